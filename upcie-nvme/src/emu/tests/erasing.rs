//! Format NVM, Namespace Management and Sanitize on a medium that does not erase its data.

use super::{
    host::admin,
    recorder::Recorder,
    stepped::{DATA, Stepped},
};
use crate::spec::{
    ALL_NAMESPACES, AdminOpcode, Command, FromBytes, LogPageId, SanitizeAction, SanitizeStatusLog, Status,
};

/// Bytes of each namespace, and a byte of the second one.
const SIZE: u64 = 1 << 20;
const BROKEN: u64 = SIZE + 5;
/// The place of metadata in the host's memory.
const METADATA: usize = DATA + 4096;
/// Bit 3 of a Sanitize's dword 10 (AUSE).
const UNRESTRICTED: u32 = 1 << 3;

fn stepped() -> Stepped<Recorder> {
    let mut stepped = Stepped::recorded("namespaces=2", SIZE);
    stepped.queue(1, 16);
    stepped.recorder().broken = Some(BROKEN);
    stepped
}

fn read(stepped: &mut Stepped<Recorder>, nsid: u32) -> Status {
    let mut read = Command::read(nsid, 0, 1);
    read.set_data_pointer(stepped.memory.iova(DATA), 0);
    read.set_metadata_pointer(stepped.memory.iova(METADATA));
    stepped.status(1, read)
}

fn format(nsid: u32, index: u32) -> Command {
    admin(AdminOpcode::FORMAT_NVM.0, nsid, index, 0)
}

/// Returns the metadata bytes of the blocks of both namespaces, and the bytes of a block.
fn layouts(stepped: &Stepped<Recorder>) -> [(usize, u8); 2] {
    let namespaces = &stepped.machine.core.io.namespaces;
    [0, 1].map(|index| (namespaces[index].layout.metadata(), namespaces[index].shift))
}

#[test]
fn a_format_that_erases_nothing_changes_nothing() {
    let mut stepped = stepped();
    assert_eq!(stepped.status(0, format(2, 1)), Status::WRITE_FAULT);
    assert_eq!(layouts(&stepped), [(0, 9); 2]);
    assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
    stepped.recorder().broken = None;
    assert_eq!(stepped.status(0, format(2, 1)), Status::SUCCESS);
    assert_eq!(layouts(&stepped), [(0, 9), (0, 12)]);
}

/// Formats the first of several namespaces, with metadata: its commands move metadata.
#[test]
fn a_format_that_fails_later_is_noted() {
    let mut stepped = stepped();
    assert_eq!(stepped.status(0, format(ALL_NAMESPACES, 2)), Status::WRITE_FAULT);
    assert_eq!(layouts(&stepped), [(8, 9), (0, 9)]);
    stepped.memory.set(METADATA, &[0xee; 16]);
    assert_eq!(read(&mut stepped, 1), Status::SUCCESS);
    assert_eq!(stepped.memory.bytes(METADATA, 16), [[0; 8], [0xee; 8]].as_flattened());
}

#[test]
fn a_namespace_that_is_not_erased_is_not_deleted() {
    let mut stepped = stepped();
    let delete = |nsid| admin(AdminOpcode::NAMESPACE_MANAGEMENT.0, nsid, 1, 0);
    assert_eq!(stepped.status(0, delete(ALL_NAMESPACES)), Status::WRITE_FAULT);
    assert_eq!(read(&mut stepped, 1), Status::INVALID_FIELD, "it is gone");
    assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
    stepped.recorder().broken = None;
    assert_eq!(stepped.status(0, delete(2)), Status::SUCCESS);
}

fn sanitize(action: SanitizeAction, more: u32) -> Command {
    admin(AdminOpcode::SANITIZE.0, 0, u32::from(action.0) | more, 0)
}

/// Erases, and waits until the operation is over; returns the log page.
fn erase(stepped: &mut Stepped<Recorder>, more: u32) -> SanitizeStatusLog {
    assert_eq!(stepped.status(0, sanitize(SanitizeAction::BLOCK_ERASE, more)), Status::SUCCESS);
    assert_eq!(read(stepped, 1), Status::SANITIZE_IN_PROGRESS);
    for _ in 0..1000 {
        stepped.step();
        let mut get = Command::get_log_page(LogPageId::SANITIZE_STATUS, ALL_NAMESPACES, 512, 0);
        get.set_data_pointer(stepped.memory.iova(DATA), 0);
        assert_eq!(stepped.status(0, get), Status::SUCCESS);
        let log = SanitizeStatusLog::read_from_bytes(stepped.memory.bytes(DATA, 512)).unwrap();
        if log.status.operation() != 2 {
            return log;
        }
    }
    panic!("the operation does not end");
}

#[test]
fn a_sanitize_that_fails_is_logged_as_failed() {
    for (more, state) in [(0, 2), (UNRESTRICTED, 4)] {
        let mut stepped = stepped();
        let log = erase(&mut stepped, more);
        assert_eq!((log.status.operation(), log.status.global_data_erased()), (3, false));
        assert_eq!((log.progress, log.state_information.state()), (0xffff, state));
        for nsid in [1, 2] {
            assert_eq!(read(&mut stepped, nsid), Status::SANITIZE_FAILED);
        }
        assert_eq!(stepped.status(0, format(1, 0)), Status::SANITIZE_FAILED);
        let exit = stepped.status(0, sanitize(SanitizeAction::EXIT_FAILURE, 0));
        if more == UNRESTRICTED {
            assert_eq!((exit, read(&mut stepped, 2)), (Status::SUCCESS, Status::SUCCESS));
        } else {
            assert_eq!((exit, read(&mut stepped, 2)), (Status::SANITIZE_FAILED, Status::SANITIZE_FAILED));
        }
        stepped.recorder().broken = None;
        let log = erase(&mut stepped, more);
        assert_eq!((log.status.operation(), log.state_information.state()), (1, 0));
        assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
    }
}
