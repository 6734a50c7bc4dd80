//! Memory of the controller itself, as a host maps it.

mod cmb;
mod pmr;

use super::{host::Host, sessions::Sessions};
use crate::spec::{Command, CompletionEntry, FromBytes, SglDescriptor, Status};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use upcie_core::{barrier, device::Device, mmio::Mapping};

/// Bytes of each memory.
const SIZE: usize = 64 << 10;
/// The offset in the host's data that a memory covers.
const COVERED: usize = 1 << 20;

const INVALID: (Status, bool) = (Status::INVALID_USE_OF_CMB, true);

/// A host's mapping of the memory in a BAR.
struct Buffer(Arc<Mapping>);

impl Buffer {
    fn of(device: &dyn Device, bar: u8) -> Self {
        let bar = device.bar(bar).unwrap();
        assert_eq!((bar.size(), bar.areas().len()), (SIZE as u64, 1));
        Self(bar.areas()[0].mapping.clone())
    }

    fn set(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.0.len());
        for (at, &byte) in (at..).zip(bytes) {
            // SAFETY: the byte is mapped, as just checked, and no reference to it exists.
            unsafe { self.0.as_ptr().wrapping_add(at).write_volatile(byte) };
        }
    }

    fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.0.len());
        let byte = |at| {
            // SAFETY: the byte is mapped, as just checked, and no reference to it exists.
            unsafe { self.0.as_ptr().wrapping_add(at).read_volatile() }
        };
        (at..at + len).map(byte).collect()
    }

    /// Waits for a completion at `at`.
    fn completion(&self, at: usize, phase: bool) -> CompletionEntry {
        let end = Instant::now() + Duration::from_secs(10);
        while CompletionEntry::read_from_bytes(&self.bytes(at, 16)).unwrap().phase() != phase {
            assert!(Instant::now() < end, "no completion");
            thread::yield_now();
        }
        barrier::dma_rmb();
        CompletionEntry::read_from_bytes(&self.bytes(at, 16)).unwrap()
    }
}

fn block(address: u64, len: usize) -> SglDescriptor {
    SglDescriptor::new(SglDescriptor::DATA_BLOCK, address, len as u32)
}

fn with_list(mut command: Command, first: SglDescriptor) -> Command {
    command.set_sgl(first);
    command
}

/// Serves a controller to one client after the other; calls `test` with a function that makes the next one.
fn with_clients(options: &'static str, test: impl FnOnce(&dyn Fn() -> Host)) {
    let sessions = Sessions::new(options);
    test(&|| sessions.connect());
    sessions.end();
}
