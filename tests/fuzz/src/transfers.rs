//! Buffers of every shape: the driver's PRPs, SGLs and lists against the embedded controller's walk of them, and both against a
//! plain copy of the blocks.
//!
//! The first bytes are the first block, and the direction of the transfer (bit 0), whether the buffer is gathered (bit 1), and
//! the queue's use of SGLs (bits 2 and 3); then each three bytes are a segment: the offset of its start in its allocation, in
//! units of 128 bytes (odd units: of 4 bytes), and its length, in units of 512 bytes and of 2 bytes.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::{clock::Clock, dma::DmaBuf};
use upcie_nvme::{
    Controller, Namespace, QueuePair, Refusal, Wait,
    emu::Lockstep,
    queue::{SegmentFault, SglUse},
};

const BLOCK: usize = 512;
const BLOCKS: u64 = 256;
const PAGE: u64 = 4096;

/// Time that passes only in `sleep`, where the controller takes its steps.
#[derive(Debug)]
struct Simulated(AtomicU64, Arc<Lockstep>);

impl Clock for Simulated {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        self.1.step(self.now());
    }

    fn runs(&self) -> bool {
        false
    }
}

/// A driver, and the blocks as they should be.
struct Setup {
    /// One for each use of SGLs.
    queues: Vec<(SglUse, QueuePair<u64>)>,
    namespace: Namespace,
    controller: Controller,
    blocks: Vec<u8>,
    /// The number of writes so far.
    writes: u8,
}

thread_local! {
    static SETUP: RefCell<Option<Setup>> = const { RefCell::new(None) };
}

impl Setup {
    fn new() -> Self {
        let device = Lockstep::new(&"size=128K,mdts=64K".parse().expect("options")).expect("a controller");
        let clock = Arc::new(Simulated(AtomicU64::new(0), device.clone()));
        let controller = Controller::builder().clock(clock).from_device(device).expect("a driver");
        let namespace = controller.namespace(1).expect("a namespace");
        let queue = |usage| (usage, controller.queue_pair().depth(4).sgl(usage).create().expect("a queue"));
        let queues =
            [SglUse::Never, SglUse::WhereNeeded, SglUse::Always, SglUse::Beyond(3)].map(queue).into();
        Self { queues, namespace, controller, blocks: vec![0; BLOCKS as usize * BLOCK], writes: 0 }
    }

    /// Waits for the one command in flight; returns its buffer.
    fn only(&mut self, at: usize) -> DmaBuf {
        let queue = &mut self.queues[at].1;
        assert!(queue.wait(Wait::Poll, Duration::from_secs(1)).expect("a wait"), "{}", queue.diagnose());
        let done = queue.turn().expect("a turn").next().expect("a completion");
        let (_, status, buffer) = done.into_parts();
        assert_eq!(status, Ok(()));
        buffer
    }

    /// Makes a transfer; returns whether it was sent.
    fn transfer(&mut self, lba: u64, options: u8, buffer: DmaBuf) -> bool {
        let (writes, gathered) = (options & 1 == 1, options & 2 == 2);
        let at = usize::from(options >> 2 & 3) % self.queues.len();
        let wanted = self.verdict(lba, self.queues[at].0, &buffer);
        let (total, start) = (buffer.total_len(), lba as usize * BLOCK);
        let buffer = if writes {
            self.writes = self.writes.wrapping_add(1);
            fill(buffer, &mut (0_u32..), self.writes)
        } else {
            buffer
        };
        let buffer = if gathered { DmaBuf::gather([buffer]) } else { buffer };
        let data = gather(&buffer);
        let mut turn = self.queues[at].1.turn().expect("a turn");
        let sent = match writes {
            true => turn.write(&self.namespace, lba, buffer, 1),
            false => turn.read(&self.namespace, lba, buffer, 1),
        };
        drop(turn);
        match sent {
            Ok(()) => assert_eq!(wanted, None, "a command was sent"),
            Err(refused) => {
                assert_eq!(Some(refused.reason), wanted);
                assert_eq!(gather(&refused.buffer), data, "a refused buffer is unchanged");
                return false;
            }
        }
        let buffer = self.only(at);
        let blocks = &mut self.blocks[start..start + total];
        if writes {
            blocks.copy_from_slice(&data);
        }
        assert!(gather(&buffer) == blocks, "the buffer has other bytes than the blocks");
        let mut back = vec![0; self.blocks.len()];
        self.namespace.read_at(0, &mut back).expect("a read");
        assert!(back == self.blocks, "other blocks have changed");
        true
    }

    /// Returns the reason for which the command must be refused, from the addresses alone.
    fn verdict(&self, lba: u64, usage: SglUse, buffer: &DmaBuf) -> Option<Refusal> {
        let total = buffer.total_len();
        if total == 0 || !total.is_multiple_of(BLOCK) {
            return Some(Refusal::Length);
        }
        if lba + (total / BLOCK) as u64 > BLOCKS {
            return Some(Refusal::OutOfRange);
        }
        if total > self.namespace.max_transfer() {
            return Some(Refusal::TooLong);
        }
        let spans: Vec<_> = buffer
            .segments()
            .filter(|part| !part.is_empty())
            .map(|part| (part.iova(0), part.iova(part.len() - 1) + 1))
            .collect();
        let joins =
            |pair: &[(u64, u64)]| pair[0].1 == pair[1].0 || (pair[0].1 | pair[1].0).is_multiple_of(PAGE);
        let odd = spans.windows(2).position(|pair| !joins(pair)).map(|before| before as u32 + 1);
        let number = if spans[0].0.is_multiple_of(4) { odd } else { Some(0) }?;
        match usage {
            // The controller takes SGLs of any bytes.
            SglUse::WhereNeeded | SglUse::Beyond(_) | SglUse::Always => None,
            SglUse::Never if spans.len() == 1 => Some(Refusal::Unaligned),
            SglUse::Never => Some(Refusal::Segment { number, fault: SegmentFault::Unaligned }),
        }
    }
}

/// Copies the bytes of all segments out.
fn gather(buffer: &DmaBuf) -> Vec<u8> {
    buffer.segments().flat_map(|segment| segment.to_vec()).collect()
}

/// Writes bytes that tell their place and version.
fn fill(mut buffer: DmaBuf, places: &mut impl Iterator<Item = u32>, version: u8) -> DmaBuf {
    let bytes: Vec<u8> =
        places.take(buffer.len()).map(|place| (place >> 9 ^ place) as u8 ^ version).collect();
    buffer.write_at(0, &bytes);
    if let Some(next) = buffer.unchain() {
        buffer.chain(fill(next, places, version));
    }
    buffer
}

pub fn target(data: &[u8]) {
    play(data);
}

/// Makes a transfer; returns whether it was sent.
fn play(data: &[u8]) -> bool {
    let [lba, options, segments @ ..] = data else { return false };
    SETUP.with_borrow_mut(|setup| {
        let setup = setup.get_or_insert_with(Setup::new);
        let mut chain = DmaBuf::empty();
        for segment in segments.chunks_exact(3).take(8).collect::<Vec<_>>().into_iter().rev() {
            let unit = if segment[0] & 1 == 0 { 128 } else { 4 };
            let (offset, len) = (
                usize::from(segment[0]) * unit,
                usize::from(segment[1] % 64) * BLOCK + usize::from(segment[2]) * 2,
            );
            let Ok(whole) = setup.controller.heap().alloc_aligned(offset + len.max(1), 4096) else {
                return false;
            };
            let mut part = whole.slice(offset..offset + len.max(1));
            part.fill(0xee);
            if !chain.is_empty() {
                part.chain(chain);
            }
            chain = part;
        }
        setup.transfer(u64::from(*lba), *options, chain)
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 1, 0, 1, 0],
        vec![3, 0, 0, 63, 0],
        vec![9, 1, 4, 24, 0],
        vec![9, 1, 1, 24, 0],
        vec![20, 1, 16, 4, 0, 0, 8, 0, 0, 16, 0, 0, 3, 0],
        vec![20, 0, 28, 1, 0, 0, 8, 0, 0, 1, 0],
        vec![200, 1, 8, 30, 0, 0, 8, 0],
        vec![9, 2, 0, 8, 0, 0, 16, 0, 0, 24, 0],
        vec![9, 3, 1, 4, 7, 0, 8, 3, 3, 3, 249],
        vec![9, 5, 1, 4, 7, 0, 8, 3, 3, 3, 249],
        vec![9, 11, 4, 24, 0, 0, 8, 0],
        vec![9, 8, 1, 4, 7, 0, 8, 3, 3, 3, 249],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_transferred() {
        let sent: Vec<_> = seeds().iter().map(|seed| play(seed)).collect();
        assert!(sent.iter().filter(|&&sent| sent).count() >= 8, "{sent:?}");
    }
}
