//! The header's structures, their sizes and offsets, and their reading and filling.

use crate::errors::{Failure, Result};
use std::ffi::{c_char, c_void};
use upcie_nvme::spec::{Command, CompletionEntry};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// The version of the interface.
pub(crate) const ABI: u32 = 0;

macro_rules! structure {
    ($(#[$attribute:meta])* $name:ident, $bytes:literal { $($field:ident: $type:ty = $at:literal),* $(,)? }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
        #[repr(C)]
        pub struct $name {
            $(pub(crate) $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $bytes);
        $(const _: () = assert!(std::mem::offset_of!($name, $field) == $at);)*
    };
}

structure! {
    /// Options of a heap.
    HeapOpts, 24 { size: u32 = 0, reserved: u32 = 4, bytes: u64 = 8, page_size: u64 = 16 }
}
structure! {
    /// Options of a controller.
    Opts, 16 { size: u32 = 0, timeout_ms: u32 = 4, queues: u16 = 8, reserved: [u16; 3] = 10 }
}
structure! {
    /// Options of a queue.
    QueueOpts, 28 {
        size: u32 = 0, depth: u32 = 4, flags: u32 = 8, vector: u16 = 12, reserved0: u16 = 14, max_transfer: u32 = 16,
        reserved: [u32; 2] = 20,
    }
}
structure! {
    /// Properties of a controller.
    Info, 236 {
        size: u32 = 0, timeout_ms: u32 = 4, max_transfer: u32 = 8, max_depth: u32 = 12, page_size: u32 = 16,
        version: u32 = 20, queues: u16 = 24, vectors: u16 = 26, reserved: u32 = 28, address: [u8; 128] = 32,
        model: [u8; 41] = 160, serial: [u8; 21] = 201, firmware: [u8; 9] = 222, padding: [u8; 5] = 231,
    }
}
structure! {
    /// A function of the machine.
    Func, 72 { size: u32 = 0, vendor: u16 = 4, device: u16 = 6, address: [u8; 32] = 8, driver: [u8; 32] = 40 }
}

structure! {
    /// A command to be submitted, with its data and the program's pointer.
    Request, 88 { data: usize = 0, data_size: usize = 8, user: usize = 16, cmd: [u64; 8] = 24 }
}
structure! {
    /// A finished command: the program's pointer, and the completion entry.
    Completion, 24 { user: usize = 0, cqe: [u64; 2] = 8 }
}

impl QueueOpts {
    /// Returns the default options, with this depth.
    pub fn of_depth(depth: u32) -> Self {
        Self { size: size_of::<Self>() as u32, depth, ..Self::new_zeroed() }
    }
}

impl Request {
    /// Makes a request.
    pub fn new(command: &Command, data: *mut c_void, data_size: usize, user: *mut c_void) -> Self {
        Self { data: data.addr(), data_size, user: user.addr(), cmd: zerocopy::transmute!(*command) }
    }

    /// Makes the request one for other data and another command dword 10.
    #[inline(always)]
    pub fn reuse(&mut self, data: *mut c_void, user: *mut c_void, cdw10: u32) {
        (self.data, self.user) = (data.addr(), user.addr());
        self.cmd[5] = u64::from(cdw10);
    }
}

impl Default for Completion {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl Completion {
    /// Returns the program's pointer.
    #[inline(always)]
    pub fn user(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.user)
    }

    /// Returns the completion entry.
    #[inline(always)]
    pub fn entry(&self) -> CompletionEntry {
        zerocopy::transmute!(self.cqe)
    }
}

/// An iovec of C's.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct IoVec {
    /// The address.
    pub base: *mut u8,
    /// The length in bytes.
    pub len: usize,
}
const _: () = assert!(size_of::<IoVec>() == size_of::<libc::iovec>());

/// Reads a structure of options that begins with its size; NULL gives the defaults.
///
/// # Safety
/// `at` is NULL, or as many bytes as its first word says can be read there.
pub(crate) unsafe fn options<T: FromZeros + FromBytes + IntoBytes>(at: *const T, name: &str) -> Result<T> {
    let mut value = T::new_zeroed();
    if at.is_null() {
        return Ok(value);
    }
    // SAFETY: the caller promises that the structure begins with its size.
    let given = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    let known = size_of::<T>();
    if !(8..=4096).contains(&given) {
        return Err(Failure::argument(format!("{name}.size is {given}: set it to sizeof(struct {name})")));
    }
    let bytes = given.min(known);
    // SAFETY: the caller promises `given` bytes, and the value has `known`.
    unsafe { std::ptr::copy_nonoverlapping(at.cast::<u8>(), value.as_mut_bytes().as_mut_ptr(), bytes) };
    for offset in known..given {
        // SAFETY: the caller promises `given` bytes.
        let byte = unsafe { at.cast::<u8>().add(offset) };
        // SAFETY: within the caller's structure.
        if unsafe { byte.read() } != 0 {
            return Err(Failure::argument(format!(
                "{name} has an option at byte {offset} that this library doesn't know"
            )));
        }
    }
    Ok(value)
}

/// Stores as much of a structure as the caller's has, by the size in its first word, which stays.
///
/// # Safety
/// As many bytes as the first word at `at` says can be read and written there.
pub(crate) unsafe fn fill<T: IntoBytes + Immutable>(at: *mut T, value: &T, name: &str) -> Result<()> {
    // SAFETY: the caller promises that the structure begins with its size.
    let given = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    if !(8..=4096).contains(&given) {
        return Err(Failure::argument(format!("{name}.size is {given}: set it to sizeof(struct {name})")));
    }
    let bytes = &value.as_bytes()[4..given.min(size_of::<T>())];
    // SAFETY: behind the first word of the caller's structure.
    let to = unsafe { at.cast::<u8>().add(4) };
    // SAFETY: `bytes` is no longer than the rest of the caller's structure.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Ok(())
}

/// Makes a C string in a field; the rest, at least one byte, is zero.
pub(crate) fn text<const N: usize>(value: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut len = value.len().min(N - 1);
    while !value.is_char_boundary(len) {
        len -= 1;
    }
    bytes[..len].copy_from_slice(&value.as_bytes()[..len]);
    bytes
}

const _: () = assert!(size_of::<c_char>() == 1);
