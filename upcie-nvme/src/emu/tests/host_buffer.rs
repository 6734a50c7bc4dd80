//! A host memory buffer that the controller can't use.

use super::stepped::{DATA, Stepped};
use crate::spec::{Command, FeatureId, FeatureSelect, HostMemoryDescriptor, IntoBytes, Status};

/// Bytes of the buffer: as many as the controller needs.
const BYTES: usize = 1 << 20;
/// The places of the list and of the buffer.
const LIST: usize = DATA;
const BUFFER: usize = DATA + (1 << 20);

/// Lends the memory at `address`; returns the status, and whether the controller says that it uses the memory.
fn lend(stepped: &mut Stepped, address: u64) -> (Status, bool) {
    let pages = (BYTES / 4096) as u32;
    let piece = HostMemoryDescriptor { address, size: pages, reserved12: 0 };
    stepped.memory.set(LIST, piece.as_bytes());
    let (list, set) = (stepped.memory.iova(LIST), Command::set_features(FeatureId::HOST_MEMORY_BUFFER, 1));
    let (cdw13, cdw14) = (list as u32, (list >> 32) as u32);
    let status = stepped.status(0, Command { cdw12: pages, cdw13, cdw14, cdw15: 1, ..set });
    let mut get = Command::get_features(FeatureId::HOST_MEMORY_BUFFER, FeatureSelect::CURRENT);
    get.set_data_pointer(stepped.memory.iova(LIST), 0);
    let done = stepped.run(0, get);
    assert_eq!(done.status(), Status::SUCCESS);
    (status, done.dw0 & 1 != 0)
}

#[test]
fn memory_beyond_the_last_address_is_refused() {
    let mut stepped = Stepped::new("size=1M,hmb=4M");
    // The last byte of this one would have no address.
    let beyond = (u64::MAX - BYTES as u64 + 1) + 4096;
    assert_eq!(lend(&mut stepped, beyond), (Status::INVALID_FIELD, false));
    // The last byte of this one has the last address that there is; the host has no memory there.
    assert_eq!(lend(&mut stepped, beyond - 4096), (Status::DATA_TRANSFER_ERROR, false));
    let good = stepped.memory.iova(BUFFER);
    assert_eq!(lend(&mut stepped, good), (Status::SUCCESS, true));
}

#[test]
fn memory_that_can_not_be_written_is_not_used() {
    let mut stepped = Stepped::new("size=1M,hmb=4M");
    let (start, end) = (stepped.memory.iova(BUFFER), stepped.memory.iova(BUFFER + BYTES));
    stepped.memory.sealed = end - 1..end;
    assert_eq!(lend(&mut stepped, start), (Status::DATA_TRANSFER_ERROR, false));
    stepped.memory.sealed = 0..0;
    assert_eq!(lend(&mut stepped, start), (Status::SUCCESS, true), "it can be lent again");
}
