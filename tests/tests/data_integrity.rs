//! A read returns the data last written to a block, and no other block changes.

use std::collections::BTreeMap;
use upcie_core::testing::Random;
use upcie_nvme::{DmaBuf, Namespace, Wait};
use upcie_tests::{
    data::{Bytes, Pattern},
    deadline,
    device::namespaces,
    io::{create, read, write},
    on_each_device, scaled, seeded,
};

#[test]
fn blocking_calls_of_any_length_preserve_data() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let size = namespace.block_size();
            let most = namespace.max_transfer() / size;
            let page = controller.page_size() / size;
            let mut version = 0;
            for blocks in
                [1, 2, 3, page, page + 1, 2 * page, 2 * page + 1, most - 1, most, most + 1, 3 * most + 5]
            {
                if blocks == 0 {
                    continue;
                }
                for slba in [0, 7] {
                    version += 1;
                    // One more block on either side, which must stay as it is.
                    let around = slba..slba + blocks as u64 + 2;
                    let mut buffer = controller.alloc((around.end - around.start) as usize * size).unwrap();
                    pattern.fill(&mut buffer, around.start, version);
                    write(&namespace, around.start, &mut buffer);
                    pattern.verify(&buffer, around.start, version);
                    let mut inner = controller.alloc(blocks * size).unwrap();
                    pattern.fill(&mut inner, slba + 1, version + 1000);
                    write(&namespace, slba + 1, &mut inner);
                    let back = read(&controller, &namespace, around.start, blocks + 2);
                    let (before, rest) = back.split_at_checked(size).unwrap();
                    let (inside, after) = rest.split_at_checked(blocks * size).unwrap();
                    pattern.verify(before, around.start, version);
                    pattern.verify(inside, slba + 1, version + 1000);
                    pattern.verify(after, around.end - 1, version);
                }
            }
            namespace.flush().unwrap();
        }
    });
}

#[test]
fn the_first_and_the_last_blocks_hold_data() {
    on_each_device(|device| {
        let controller = device.open();
        let all = namespaces(&controller);
        // Write to all before reading from one: no namespace may show the data of another.
        for (namespace, pattern) in &all {
            for slba in [0, namespace.blocks() - 1] {
                let mut buffer = controller.alloc(namespace.block_size()).unwrap();
                pattern.fill(&mut buffer, slba, 1);
                write(namespace, slba, &mut buffer);
            }
        }
        for (namespace, pattern) in &all {
            for slba in [0, namespace.blocks() - 1] {
                pattern.verify(&read(&controller, namespace, slba, 1), slba, 1);
            }
            // One command of the greatest length, up to the end of the namespace.
            let blocks = (namespace.max_transfer() / namespace.block_size()) as u64;
            let slba = namespace.blocks() - blocks;
            let mut buffer = controller.alloc(namespace.max_transfer()).unwrap();
            pattern.fill(&mut buffer, slba, 2);
            write(namespace, slba, &mut buffer);
            pattern.verify(&read(&controller, namespace, slba, blocks as usize), slba, 2);
        }
    });
}

#[test]
fn random_overwrites_through_a_queue_match_a_model() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let mut model = Model::new(&namespace, pattern);
            let mut whole = controller.alloc(BLOCKS * namespace.block_size()).unwrap();
            pattern.fill(&mut whole, FIRST, 0);
            write(&namespace, FIRST, &mut whole);
            let mut queue = create::<Job>(controller.queue_pair().depth(33));
            let mut left = scaled(20_000);
            let mut idle: BTreeMap<usize, Vec<DmaBuf>> = BTreeMap::new();
            while left > 0 || queue.in_flight() > 0 {
                let mut turn = queue.turn().unwrap();
                for done in turn.by_ref() {
                    let (job, result, buffer) = done.into_parts();
                    result.unwrap();
                    model.finish(&job, buffer.bytes());
                    idle.entry(buffer.len()).or_default().push(buffer);
                }
                while left > 0 && turn.room() > 0 {
                    let Some(job) = model.start() else { break };
                    let len = job.blocks * namespace.block_size();
                    let mut buffer = match idle.get_mut(&len).and_then(Vec::pop) {
                        Some(buffer) => buffer,
                        None => controller.alloc(len).unwrap(),
                    };
                    left -= 1;
                    if job.write > 0 {
                        pattern.fill(&mut buffer, job.slba, job.write);
                        turn.write(&namespace, job.slba, buffer, job).unwrap();
                    } else {
                        buffer.fill(0);
                        turn.read(&namespace, job.slba, buffer, job).unwrap();
                    }
                }
                drop(turn);
                assert!(
                    queue.in_flight() == 0 || queue.wait(Wait::Poll, deadline()).unwrap(),
                    "no completion within the deadline"
                );
            }
            drop(queue);
            let whole = read(&controller, &namespace, FIRST, BLOCKS);
            for (at, block) in whole.chunks_exact(namespace.block_size()).enumerate() {
                pattern.verify(block, FIRST + at as u64, model.versions[at]);
            }
        }
    });
}

/// The first block of the model.
const FIRST: u64 = 1000;
const BLOCKS: usize = 1500;

#[derive(Debug)]
struct Job {
    slba: u64,
    blocks: usize,
    /// The version to write; 0 for a read.
    write: u32,
}

/// The version that each block must hold, and the blocks of commands in flight, whose order is open.
struct Model {
    pattern: Pattern,
    block_size: usize,
    most: usize,
    random: Random,
    versions: Vec<u32>,
    busy: Vec<bool>,
    next: u32,
}

impl Model {
    fn new(namespace: &Namespace, pattern: Pattern) -> Self {
        Self {
            pattern,
            block_size: namespace.block_size(),
            most: namespace.max_transfer() / namespace.block_size(),
            random: seeded(namespace.nsid().into()),
            versions: vec![0; BLOCKS],
            busy: vec![false; BLOCKS],
            next: 1,
        }
    }

    fn start(&mut self) -> Option<Job> {
        for _ in 0..20 {
            // Mostly few blocks, so that many commands are in flight.
            let limit = if self.random.one_in(20) { self.most.min(200) } else { 9 };
            let blocks = 1 + self.random.below(limit);
            let at = self.random.below(BLOCKS - blocks);
            let busy = &mut self.busy[at..at + blocks];
            if busy.iter().any(|&busy| busy) {
                continue;
            }
            busy.fill(true);
            let write = if self.random.one_in(2) {
                {
                    self.next += 1;
                    self.next
                }
            } else {
                0
            };
            return Some(Job { slba: FIRST + at as u64, blocks, write });
        }
        None
    }

    fn finish(&mut self, job: &Job, data: &[u8]) {
        let at = (job.slba - FIRST) as usize;
        let range = at..at + job.blocks;
        self.busy[range.clone()].fill(false);
        if job.write > 0 {
            self.versions[range].fill(job.write);
            self.pattern.verify(data, job.slba, job.write);
        } else {
            for (block, at) in data.chunks_exact(self.block_size).zip(range) {
                self.pattern.verify(block, FIRST + at as u64, self.versions[at]);
            }
        }
    }
}
