//! Compare, Verify, Write Uncorrectable and Copy: their effects, and their refusals where the controller lacks them.

use upcie_nvme::{
    Controller, DmaBuf, Namespace, QueuePair, Refusal,
    spec::{CancelResult, CopyRange, OptionalCommands, Status},
};
use upcie_tests::{
    data::Pattern,
    device::{another, namespaces},
    io::{create, finish, read, write},
    on_each_device,
};

const SLBA: u64 = 64;

/// A queue, and a namespace whose blocks from [`SLBA`] on have their pattern.
struct Setup {
    controller: Controller,
    namespace: Namespace,
    pattern: Pattern,
    queue: QueuePair<u64>,
}

impl Setup {
    fn new(controller: &Controller, (namespace, pattern): (Namespace, Pattern)) -> Self {
        let queue = create(controller.queue_pair().depth(8));
        let setup = Self { controller: controller.clone(), namespace, pattern, queue };
        write(&setup.namespace, SLBA, &mut setup.data(SLBA, 32, 1));
        setup
    }

    /// Makes a buffer with the pattern of `blocks` blocks.
    fn data(&self, slba: u64, blocks: usize, version: u32) -> DmaBuf {
        let mut buffer = self.controller.alloc(blocks * self.namespace.block_size()).unwrap();
        buffer.write_at(0, &self.pattern.bytes(slba, blocks, version));
        buffer
    }

    fn has(&self, command: OptionalCommands) -> bool {
        self.controller.identify().optional_commands().contains(command)
    }

    /// Returns the status of the one command in flight.
    fn status(&mut self) -> Status {
        let mut done = finish(&mut self.queue);
        assert_eq!(done.len(), 1);
        done.remove(0).status()
    }

    fn compare(&mut self, slba: u64, buffer: DmaBuf) -> Status {
        self.queue.turn().unwrap().compare(&self.namespace, slba, buffer, 1).unwrap();
        self.status()
    }

    fn verify(&mut self, slba: u64, blocks: u32) -> Status {
        self.queue.turn().unwrap().verify(&self.namespace, slba, blocks, 1).unwrap();
        self.status()
    }

    fn reads(&mut self, slba: u64) -> Status {
        let buffer = self.controller.alloc(self.namespace.block_size()).unwrap();
        self.queue.turn().unwrap().read(&self.namespace, slba, buffer, 1).unwrap();
        self.status()
    }

    /// Makes the source ranges of a Copy.
    fn ranges(&self, ranges: &[CopyRange]) -> DmaBuf {
        let mut buffer = self.controller.alloc(8192).unwrap();
        let bytes: Vec<u8> = ranges.iter().flat_map(|range| range.to_bytes()).collect();
        buffer.write_at(0, &bytes);
        buffer
    }

    fn copy(&mut self, ranges: &[CopyRange], slba: u64) -> Status {
        let buffer = self.ranges(ranges);
        self.queue.turn().unwrap().copy(&self.namespace, buffer, ranges.len(), slba, 1).unwrap();
        self.status()
    }

    /// Sends a Copy beyond the limits that the namespace states, which is refused; without limits the controller fails it.
    #[track_caller]
    fn copy_too_much(&mut self, ranges: &[CopyRange], slba: u64) {
        let id = self.namespace.identify();
        if id.mssrl == 0 || id.mcl == 0 {
            assert_eq!(self.copy(ranges, slba), Status::COMMAND_SIZE_LIMIT_EXCEEDED);
            return;
        }
        let buffer = self.ranges(ranges);
        let sent = self.queue.turn().unwrap().copy(&self.namespace, buffer, ranges.len(), slba, 1);
        assert_eq!(sent.unwrap_err().reason, Refusal::CopyLimits);
    }
}

fn on_each_namespace(test: impl Fn(&mut Setup)) {
    on_each_device(|device| {
        let controller = device.open();
        for namespace in namespaces(&controller) {
            test(&mut Setup::new(&controller, namespace));
        }
    });
}

#[test]
fn compare_tells_whether_the_blocks_are_equal() {
    on_each_namespace(|setup| {
        if !setup.has(OptionalCommands::COMPARE) {
            return;
        }
        let size = setup.namespace.block_size();
        for blocks in [1, 3, 32] {
            let data = setup.data(SLBA, blocks, 1);
            assert_eq!(setup.compare(SLBA, data), Status::SUCCESS);
            for at in [0, blocks * size / 2 + 1, blocks * size - 1] {
                let mut data = setup.data(SLBA, blocks, 1);
                let mut byte = [0];
                data.read_at(at, &mut byte);
                data.write_at(at, &[byte[0] ^ 0x10]);
                assert_eq!(
                    setup.compare(SLBA, data),
                    Status::COMPARE_FAILURE,
                    "byte {at} of {blocks} blocks"
                );
            }
        }
        // Of parts of memory, as any data.
        let bytes = setup.pattern.bytes(SLBA, 3, 1);
        let parts =
            [100..1000, 0..bytes.len() - 900].map(|part| setup.controller.alloc(16384).unwrap().slice(part));
        let mut at = 0;
        let parts = parts.map(|mut part| {
            part.write_at(0, &bytes[at..at + part.len()]);
            at += part.len();
            part
        });
        if setup.controller.identify().supports_sgls() {
            assert_eq!(setup.compare(SLBA, DmaBuf::gather(parts)), Status::SUCCESS);
        }
    });
}

/// Compares parts of one buffer that stays with the caller.
#[test]
fn a_held_buffer_is_compared_by_parts() {
    on_each_namespace(|setup| {
        let size = setup.namespace.block_size();
        let held = setup.data(SLBA, 4, 1);
        let has = setup.has(OptionalCommands::COMPARE);
        for (slba, part, wanted) in [
            (SLBA, 0..4 * size, Status::SUCCESS),
            (SLBA + 1, size..3 * size, Status::SUCCESS),
            (SLBA, size..2 * size, Status::COMPARE_FAILURE),
        ] {
            let mut turn = setup.queue.turn().unwrap();
            // SAFETY: the buffer outlives the command: `status` waits for it, and the queue is dropped at a panic.
            let sent = unsafe { turn.compare_held(&setup.namespace, slba, &held, part, 1) };
            drop(turn);
            match has {
                true => assert_eq!((sent.is_ok(), setup.status()), (true, wanted), "block {slba}"),
                false => assert_eq!(sent.unwrap_err().reason, Refusal::NoCommand),
            }
        }
        if has {
            let mut turn = setup.queue.turn().unwrap();
            // SAFETY: nothing is sent.
            let sent = unsafe { turn.compare_held(&setup.namespace, SLBA, &held, 1..size, 1) };
            assert_eq!(sent.unwrap_err().reason, Refusal::Length);
        }
    });
}

#[test]
fn uncorrectable_blocks_fail_until_they_are_written() {
    on_each_namespace(|setup| {
        if setup.has(OptionalCommands::VERIFY) {
            assert_eq!(setup.verify(SLBA, 32), Status::SUCCESS);
        }
        if !setup.has(OptionalCommands::WRITE_UNCORRECTABLE) {
            return;
        }
        let namespace = setup.namespace.clone();
        setup.queue.turn().unwrap().write_uncorrectable(&namespace, SLBA + 4, 8, 1).unwrap();
        assert_eq!(setup.status(), Status::SUCCESS);
        for (slba, wanted) in [
            (SLBA + 3, Status::SUCCESS),
            (SLBA + 4, Status::UNRECOVERED_READ_ERROR),
            (SLBA + 11, Status::UNRECOVERED_READ_ERROR),
            (SLBA + 12, Status::SUCCESS),
        ] {
            assert_eq!(setup.reads(slba), wanted, "block {slba}");
            if setup.has(OptionalCommands::VERIFY) {
                assert_eq!(setup.verify(slba, 1), wanted, "block {slba}");
            }
            if setup.has(OptionalCommands::COMPARE) {
                let data = setup.data(slba, 1, 1);
                assert_eq!(setup.compare(slba, data), wanted, "block {slba}");
            }
        }
        write(&namespace, SLBA + 6, &mut setup.data(SLBA + 6, 2, 2));
        assert_eq!((setup.reads(SLBA + 6), setup.reads(SLBA + 7)), (Status::SUCCESS, Status::SUCCESS));
        assert_eq!(
            (setup.reads(SLBA + 5), setup.reads(SLBA + 8)),
            (Status::UNRECOVERED_READ_ERROR, Status::UNRECOVERED_READ_ERROR)
        );
        write(&namespace, SLBA, &mut setup.data(SLBA, 32, 1));
        setup.pattern.verify(&read(&setup.controller, &namespace, SLBA, 32), SLBA, 1);
    });
}

#[test]
fn copy_moves_blocks_within_the_namespace() {
    on_each_namespace(|setup| {
        if !setup.has(OptionalCommands::COPY) {
            return;
        }
        let to = SLBA + 100;
        write(&setup.namespace, to - 1, &mut setup.data(to - 1, 10, 9));
        let ranges = [CopyRange::new(SLBA + 8, 3), CopyRange::new(SLBA, 1), CopyRange::new(SLBA + 31, 1)];
        // QEMU's namespace without a device of its own states limits of 0.
        let limits = setup.namespace.identify();
        if limits.mssrl < 3 || limits.mcl < 5 || limits.msrc < 2 {
            setup.copy_too_much(&ranges, to);
            return;
        }
        assert_eq!(setup.copy(&ranges, to), Status::SUCCESS);
        let wanted = [
            setup.pattern.bytes(to - 1, 1, 9),
            setup.pattern.bytes(SLBA + 8, 3, 1),
            setup.pattern.bytes(SLBA, 1, 1),
            setup.pattern.bytes(SLBA + 31, 1, 1),
            setup.pattern.bytes(to + 5, 4, 9),
        ]
        .concat();
        assert!(read(&setup.controller, &setup.namespace, to - 1, 10) == wanted);
        // Where a part of it is not possible, a controller may copy the ranges before that: here to block `to`.
        let end = setup.namespace.blocks();
        assert_eq!(
            setup.copy(&[CopyRange::new(SLBA, 1), CopyRange::new(end, 1)], to),
            Status::LBA_OUT_OF_RANGE
        );
        assert_eq!(setup.copy(&ranges, end - 2), Status::LBA_OUT_OF_RANGE);
        let most = setup.namespace.identify().mssrl;
        if u64::from(most) < 65535 && end > 70_000 {
            let longer = CopyRange::new(0, u32::from(most) + 1);
            setup.copy_too_much(&[longer], to);
        }
        let after = read(&setup.controller, &setup.namespace, to + 1, 8);
        assert!(after == wanted[2 * setup.namespace.block_size()..]);
    });
}

#[test]
fn impossible_commands_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let foreign = another();
        let mut setup = Setup::new(&controller, namespaces(&controller).remove(0));
        let (namespace, size) = (setup.namespace.clone(), setup.namespace.block_size());
        let theirs = foreign.namespace(1).unwrap();
        let (end, most) = (namespace.blocks(), namespace.max_transfer());
        let or_lacks =
            |setup: &Setup, command, reason| if setup.has(command) { reason } else { Refusal::NoCommand };
        for (namespace, slba, len, reason) in [
            (&namespace, 0, size - 4, Refusal::Length),
            (&namespace, 0, most + size, Refusal::TooLong),
            (&namespace, end, size, Refusal::OutOfRange),
            (&theirs, 0, size, Refusal::ForeignNamespace),
        ] {
            let buffer = controller.alloc(len).unwrap();
            let refused = setup.queue.turn().unwrap().compare(namespace, slba, buffer, 9).unwrap_err();
            let wanted = match reason {
                Refusal::ForeignNamespace => reason,
                _ => or_lacks(&setup, OptionalCommands::COMPARE, reason),
            };
            assert_eq!((refused.reason, refused.buffer.len(), refused.tag), (wanted, len, 9));
        }
        for (slba, blocks, reason) in [
            (0, 0, Refusal::Length),
            (end, 1, Refusal::OutOfRange),
            (end - 1, 2, Refusal::OutOfRange),
            (u64::MAX, 1, Refusal::OutOfRange),
        ] {
            let refused = setup.queue.turn().unwrap().verify(&namespace, slba, blocks, 9).unwrap_err();
            assert_eq!(refused.reason, or_lacks(&setup, OptionalCommands::VERIFY, reason));
            let refused =
                setup.queue.turn().unwrap().write_uncorrectable(&namespace, slba, blocks, 9).unwrap_err();
            assert_eq!(refused.reason, or_lacks(&setup, OptionalCommands::WRITE_UNCORRECTABLE, reason));
        }
        let short = || controller.alloc(48).unwrap();
        for (buffer, count, slba, reason) in [
            (short(), 0, 0, Refusal::Length),
            (short(), 2, 0, Refusal::Length),
            (setup.ranges(&[]), 257, 0, Refusal::Length),
            (short(), 1, end, Refusal::OutOfRange),
            (foreign.alloc(4096).unwrap(), 1, 0, Refusal::ForeignBuffer),
        ] {
            let len = buffer.len();
            let refused = setup.queue.turn().unwrap().copy(&namespace, buffer, count, slba, 9).unwrap_err();
            assert_eq!(refused.reason, or_lacks(&setup, OptionalCommands::COPY, reason));
            assert_eq!((refused.buffer.len(), refused.tag), (len, 9));
        }
        assert_eq!(setup.queue.in_flight(), 0);
    });
}

#[test]
fn a_cancel_ends_what_is_in_flight_or_says_that_there_is_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let cancel = match controller.cancel() {
            Ok(cancel) => cancel,
            // QEMU's controllers lack it.
            Err(error) => return assert!(error.to_string().contains("does not have it"), "{error}"),
        };
        let mut setup = Setup::new(&controller, namespaces(&controller).remove(0));
        let (namespace, foreign) = (setup.namespace.clone(), another());
        let theirs = foreign.namespace(1).unwrap();
        for (cancel, reason) in [
            (cancel.of_slot(0), Refusal::NotInFlight),
            (cancel.of_slot(7), Refusal::NotInFlight),
            (cancel.of_slot(u32::MAX), Refusal::NotInFlight),
            (cancel.of_namespace(&theirs), Refusal::ForeignNamespace),
            (foreign.cancel().unwrap(), Refusal::ForeignCancel),
        ] {
            let refused = setup.queue.turn().unwrap().cancel(cancel, 9).unwrap_err();
            assert_eq!((refused.reason, refused.tag), (reason, 9));
        }
        for of_slot in [false, true] {
            let buffer = setup.data(SLBA, 1, 1);
            let mut turn = setup.queue.turn().unwrap();
            let slot = turn.next_slot();
            turn.read(&namespace, SLBA, buffer, 1).unwrap();
            let which = if of_slot { cancel.of_slot(slot) } else { cancel.of_namespace(&namespace) };
            turn.cancel(which, 2).unwrap();
            drop(turn);
            for done in finish(&mut setup.queue) {
                if *done.tag() == 1 {
                    assert!([Status::SUCCESS, Status::ABORT_REQUESTED].contains(&done.status()), "{done:?}");
                    continue;
                }
                assert_eq!(done.status(), Status::SUCCESS);
                let counts = CancelResult::from_bits(done.dword0());
                assert!(counts.aborted() + counts.deferred() <= 1, "{counts:?}");
            }
        }
        // The queue goes on as before.
        assert_eq!(setup.reads(SLBA), Status::SUCCESS);
    });
}
