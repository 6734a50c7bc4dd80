//! The declarations of `shim.h` in Rust.

use std::ffi::c_void;

/// The operation of an I/O unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Op(pub(crate) u32);

impl Op {
    pub(crate) const READ: Self = Self(0);
    pub(crate) const WRITE: Self = Self(1);
    pub(crate) const WRITE_FUA: Self = Self(2);
    pub(crate) const FLUSH: Self = Self(3);
    pub(crate) const TRIM: Self = Self(4);
    // Not of the shim: what a target's options make of reads and writes.
    pub(crate) const COMPARE: Self = Self(5);
    pub(crate) const ZEROES: Self = Self(6);
    pub(crate) const ZEROES_FUA: Self = Self(7);
    pub(crate) const UNCORRECTABLE: Self = Self(8);
    pub(crate) const VERIFY: Self = Self(9);

    /// Returns the name for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::READ => "read",
            Self::WRITE | Self::WRITE_FUA => "write",
            Self::FLUSH => "flush",
            Self::TRIM => "trim",
            Self::COMPARE => "compare",
            Self::ZEROES | Self::ZEROES_FUA => "write zeroes",
            Self::UNCORRECTABLE => "write uncorrectable",
            Self::VERIFY => "verify",
            _ => "operation",
        }
    }
}

/// One I/O unit.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Byte offset in the namespace.
    pub(crate) offset: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    pub(crate) buf: *mut u8,
    /// A `Target` of the job.
    pub(crate) target: *mut c_void,
    pub(crate) op: Op,
    pub(crate) padding: u32,
    /// fio's structure of the unit.
    pub(crate) unit: *mut c_void,
    /// Commands in flight, plus one for a part that could not be submitted.
    pub(crate) pieces: u32,
    /// The job's second at the submission.
    pub(crate) since: u32,
    /// Not 0 if a command of the unit has failed; kept for custom targets only.
    pub(crate) failed: u32,
    /// The directive of a write: the type in the upper half, DSPEC in the lower; 0 for none. Kept for custom targets only.
    pub(crate) directive: u32,
}

/// The part of a job that the shim shares.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    pub(crate) slots: *mut Slot,
    pub(crate) pending: *mut u32,
    pub(crate) events: *mut *mut c_void,
    pub(crate) queued: u32,
    pub(crate) depth: u32,
    pub(crate) op_of: [u8; 8],
    /// The second of the last tick.
    pub(crate) second: i64,
    /// The first of `events` that fio has not received yet.
    pub(crate) next: u32,
    /// The end of the filled-in events.
    pub(crate) end: u32,
    pub(crate) given: *mut *mut c_void,
}

/// The engine's options.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Options {
    pub(crate) nsid: u32,
    pub(crate) wait: u32,
    pub(crate) hugepage: u32,
    pub(crate) queue_depth: u32,
    pub(crate) priority: u32,
    pub(crate) fua: u32,
    pub(crate) timeout_us: u64,
    pub(crate) sgl: u32,
    pub(crate) metadata: u32,
    pub(crate) action: u32,
    pub(crate) tag: u32,
    pub(crate) mask: u32,
    pub(crate) write_mode: u32,
    pub(crate) verify_mode: u32,
    pub(crate) padding: u32,
}

/// A zone, in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Zone {
    pub(crate) start: u64,
    pub(crate) write_pointer: u64,
    pub(crate) len: u64,
    pub(crate) capacity: u64,
    pub(crate) kind: u32,
    pub(crate) state: u32,
}

/// fio's options.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Workload {
    pub(crate) depth: u64,
    pub(crate) max_block: u64,
    pub(crate) threads: u32,
    pub(crate) unaligned: u32,
    pub(crate) named: u32,
    pub(crate) memory: u32,
    pub(crate) uses: [u32; 3],
    pub(crate) zoned: u32,
    pub(crate) least_block: [u64; 3],
    pub(crate) alignment: [u64; 3],
    pub(crate) verifies: u32,
    pub(crate) pattern: u32,
    pub(crate) directive: u32,
    pub(crate) padding: u32,
}

const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(size_of::<Shared>() == 64);
const _: () = assert!(size_of::<Options>() == 64);
const _: () = assert!(size_of::<Workload>() == 112);
const _: () = assert!(size_of::<Zone>() == 40);

#[cfg(all(shim, not(test)))]
#[link(name = "upcie_shim", kind = "static")]
unsafe extern "C" {
    fn upcie_shim_print(text: *const std::ffi::c_char, len: usize);
    fn upcie_shim_fail(unit: *mut c_void, error: i32);
    fn upcie_shim_fill_expected(thread: *mut c_void, unit: *mut c_void) -> i32;
    fn upcie_shim_directive(unit: *const c_void) -> u32;
    fn upcie_shim_engine() -> *mut c_void;
}

/// Prints a line to fio's error output.
#[cfg(all(shim, not(test)))]
pub(crate) fn print(text: &str) {
    // SAFETY: the call reads `len` bytes.
    unsafe { upcie_shim_print(text.as_ptr().cast(), text.len()) }
}

/// Marks a unit as failed.
#[cfg(all(shim, not(test)))]
pub(crate) fn fail(unit: *mut c_void, error: i32) {
    // SAFETY: the pointer is fio's own, of a unit in flight.
    unsafe { upcie_shim_fail(unit, error) }
}

/// Fills the buffer of a unit with the data that fio expects, and returns `true`, if the unit is a read of fio's verification.
#[cfg(all(shim, not(test)))]
pub(crate) fn fill_expected(thread: *mut c_void, unit: *mut c_void) -> bool {
    // SAFETY: the pointers are fio's own, of the calling thread and of a unit that it has queued.
    unsafe { upcie_shim_fill_expected(thread, unit) != 0 }
}

/// Returns the directive that fio has chosen for a unit: the type in the upper half, DSPEC in the lower; 0 for none.
#[cfg(all(shim, not(test)))]
pub(crate) fn directive(unit: *const c_void) -> u32 {
    // SAFETY: the pointer is fio's own, of a unit that it has queued.
    unsafe { upcie_shim_directive(unit) }
}

/// Returns fio's table of hooks; null, with a message, when this is not the fio that it was built for.
#[cfg(all(shim, not(test)))]
pub(crate) fn engine() -> *mut c_void {
    // SAFETY: the call only compares two strings.
    unsafe { upcie_shim_engine() }
}

/// Stands for the shim when the library is built without fio.
#[cfg(any(not(shim), test))]
mod alone {
    use std::ffi::c_void;

    pub(crate) fn print(text: &str) {
        eprintln!("upcie: {text}");
    }

    pub(crate) fn fail(_unit: *mut c_void, _error: i32) {}

    pub(crate) fn fill_expected(_thread: *mut c_void, _unit: *mut c_void) -> bool {
        false
    }

    pub(crate) fn directive(_unit: *const c_void) -> u32 {
        0
    }

    pub(crate) fn engine() -> *mut c_void {
        print("this library was built without fio's headers: build it with `cargo xtask fio`");
        std::ptr::null_mut()
    }
}
#[cfg(any(not(shim), test))]
pub(crate) use alone::{directive, engine, fail, fill_expected, print};
