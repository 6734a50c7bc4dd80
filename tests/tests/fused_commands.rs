//! Compare and Write as a fused operation: both commands or none, and its refusals where the controller lacks it.

use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair, Refusal, spec::Status};
use upcie_tests::{
    data::Pattern,
    device::{another, namespaces},
    io::{create, finish, read, write},
    on_each_device, says,
};

const SLBA: u64 = 96;

struct Setup {
    controller: Controller,
    namespace: Namespace,
    pattern: Pattern,
    queue: QueuePair<u32>,
}

impl Setup {
    /// Makes a buffer with the pattern of `blocks` blocks.
    fn data(&self, blocks: usize, version: u32) -> DmaBuf {
        let mut buffer = self.controller.alloc(blocks * self.namespace.block_size()).unwrap();
        buffer.write_at(0, &self.pattern.bytes(SLBA, blocks, version));
        buffer
    }

    fn has(&self) -> bool {
        self.controller.identify().has_compare_and_write()
    }

    /// Returns the statuses of the Compare and the Write, and the version that the blocks have then.
    fn swap(&mut self, blocks: usize, expected: u32, new: u32) -> [Status; 2] {
        let (expected, new) = (self.data(blocks, expected), self.data(blocks, new));
        self.queue.turn().unwrap().compare_and_write(&self.namespace, SLBA, expected, new, [0, 1]).unwrap();
        let mut done = finish(&mut self.queue);
        done.sort_by_key(|done| *done.tag());
        assert_eq!(done.iter().map(|done| *done.tag()).collect::<Vec<_>>(), [0, 1]);
        let size = blocks * self.namespace.block_size();
        assert!(done.iter().all(|done| done.buffer().total_len() == size), "both buffers are back");
        [done[0].status(), done[1].status()]
    }

    fn verify(&self, blocks: usize, version: u32) {
        self.pattern.verify(&read(&self.controller, &self.namespace, SLBA, blocks), SLBA, version);
    }
}

fn on_each_namespace(test: impl Fn(&mut Setup)) {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let queue = create(controller.queue_pair().depth(8));
            let mut setup = Setup { controller: controller.clone(), namespace, pattern, queue };
            let refused = {
                let buffer = || setup.controller.alloc(setup.namespace.block_size()).unwrap();
                let (expected, new) = (buffer(), buffer());
                let mut turn = setup.queue.turn().unwrap();
                turn.compare_and_write(&setup.namespace, u64::MAX, expected, new, [0, 1]).unwrap_err()
            };
            if !setup.has() {
                assert_eq!(refused.reason, Refusal::NoFused);
                assert_eq!(setup.namespace.max_compare_and_write(), 0);
                device.lacks("Compare and Write", &refused);
                continue;
            }
            assert_eq!((refused.reason, refused.tags), (Refusal::OutOfRange, [0, 1]));
            test(&mut setup);
        }
    });
}

#[test]
fn blocks_are_written_if_they_are_the_expected_ones() {
    on_each_namespace(|setup| {
        let most = setup.namespace.max_compare_and_write() / setup.namespace.block_size();
        for blocks in [1, 3, 16, most] {
            write(&setup.namespace, SLBA, &mut setup.data(blocks, 1));
            assert_eq!(setup.swap(blocks, 1, 2), [Status::SUCCESS; 2], "{blocks} blocks");
            setup.verify(blocks, 2);
            let differs = [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED];
            assert_eq!(setup.swap(blocks, 1, 3), differs, "{blocks} blocks");
            setup.verify(blocks, 2);
        }
        assert_eq!(setup.swap(1, 2, 1), [Status::SUCCESS; 2]);
    });
}

#[test]
fn a_pair_needs_room_for_both() {
    on_each_namespace(|setup| {
        write(&setup.namespace, SLBA, &mut setup.data(1, 1));
        let (namespace, controller) = (setup.namespace.clone(), setup.controller.clone());
        let block = || controller.alloc(namespace.block_size()).unwrap();
        // Seven slots: three pairs, and room for one command.
        let mut turn = setup.queue.turn().unwrap();
        for _ in 0..3 {
            turn.compare_and_write(&namespace, SLBA, block(), block(), [1, 2]).unwrap();
        }
        assert_eq!(turn.room(), 1);
        let refused = turn.compare_and_write(&namespace, SLBA, block(), block(), [7, 8]).unwrap_err();
        assert_eq!((refused.reason, refused.tags), (Refusal::Full, [7, 8]));
        assert_eq!(
            (refused.expected.len(), refused.new.len()),
            (namespace.block_size(), namespace.block_size())
        );
        assert_eq!(turn.len(), 6, "neither was sent");
        turn.flush(&namespace, 9).unwrap();
        drop(turn);
        assert_eq!(finish(&mut setup.queue).len(), 7);
        // A queue of one command never has room.
        let mut small: QueuePair<u32> = create(controller.queue_pair().depth(2));
        let refused =
            small.turn().unwrap().compare_and_write(&namespace, SLBA, block(), block(), [1, 2]).unwrap_err();
        assert_eq!(refused.reason, Refusal::Small);
        says(&refused, &["depth of 3"]);
        let mut fits: QueuePair<u32> = create(controller.queue_pair().depth(3));
        fits.turn().unwrap().compare_and_write(&namespace, SLBA, block(), block(), [1, 2]).unwrap();
        assert_eq!(finish(&mut fits).len(), 2);
    });
}

#[test]
fn a_wrong_pair_is_refused_before_it_is_sent() {
    on_each_namespace(|setup| {
        let (namespace, size) = (setup.namespace.clone(), setup.namespace.block_size());
        let foreign = another();
        let most = namespace.max_compare_and_write();
        let own = |len| setup.controller.alloc(len).unwrap();
        let other = |len| foreign.alloc(len).unwrap();
        for (slba, expected, new, reason) in [
            (0, own(size), own(2 * size), Refusal::Length),
            (0, own(size / 2), own(size / 2), Refusal::Length),
            (0, own(most + size), own(most + size), Refusal::TooLong),
            (namespace.blocks(), own(size), own(size), Refusal::OutOfRange),
            (0, own(size), other(size), Refusal::ForeignBuffer),
            (0, other(size), own(size), Refusal::ForeignBuffer),
        ] {
            let lens = (expected.len(), new.len());
            let refused =
                setup.queue.turn().unwrap().compare_and_write(&namespace, slba, expected, new, [3, 4]);
            let refused = refused.unwrap_err();
            assert_eq!(refused.reason, reason);
            assert_eq!(((refused.expected.len(), refused.new.len()), refused.tags), (lens, [3, 4]));
        }
        assert_eq!(setup.queue.in_flight(), 0);
    });
}

#[test]
fn blocking_calls_swap_blocks() {
    on_each_namespace(|setup| {
        write(&setup.namespace, SLBA, &mut setup.data(4, 1));
        let (mut expected, mut new) = (setup.data(4, 1), setup.data(4, 2));
        assert!(setup.namespace.compare_and_write(SLBA, &mut expected, &mut new).unwrap());
        setup.verify(4, 2);
        assert!(!setup.namespace.compare_and_write(SLBA, &mut expected, &mut new).unwrap());
        setup.pattern.verify(&expected.to_vec(), SLBA, 1);
        setup.pattern.verify(&new.to_vec(), SLBA, 2);
        // Chains come back as they were.
        let size = setup.namespace.block_size();
        let chain = |version| {
            let bytes = setup.pattern.bytes(SLBA, 2, version);
            DmaBuf::gather(bytes.chunks(size).map(|block| {
                let mut buffer = setup.controller.alloc(4096).unwrap();
                buffer.write_at(0, block);
                buffer.slice(0..size)
            }))
        };
        let (mut expected, mut new) = (chain(2), chain(3));
        match setup.namespace.compare_and_write(SLBA, &mut expected, &mut new) {
            Ok(swapped) => {
                assert!(swapped);
                setup.verify(2, 3);
            }
            // Blocks below a page need scatter gather lists.
            Err(error) => says(&error, &["Compare and Write of", "not sent"]),
        }
        assert_eq!((expected.segments().count(), new.segments().count()), (2, 2));
        let error = setup.namespace.compare_and_write(SLBA, &mut setup.data(1, 1), &mut setup.data(2, 1));
        says(&error.unwrap_err(), &["Compare and Write of", "whole blocks"]);
    });
}
