//! The calls of the header, in its order within each file: handles and pointers are checked here, and errors become errno
//! values.

mod controllers;
mod memory;
mod queues;
mod submissions;

pub use controllers::*;
pub use memory::*;
pub use queues::*;
pub use submissions::*;

use crate::errors::{Failure, Result};
use std::ffi::c_char;

/// The target of a handle as C sees it: nothing that could be read.
#[derive(Debug)]
#[repr(C)]
pub struct Opaque {
    _nothing: [u8; 0],
}

/// Returns the version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn upcie_abi() -> u32 {
    crate::abi::ABI
}

/// Returns the text of the thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn upcie_last_error() -> *const c_char {
    crate::errors::last()
}

/// Makes a handle a pointer.
fn handle<T>(number: usize) -> *mut T {
    std::ptr::without_provenance_mut(number)
}

/// Refuses NULL for `name`.
fn given<T>(at: *const T, name: &'static str) -> Result<()> {
    if at.is_null() { Err(null(name)) } else { Ok(()) }
}

#[cold]
fn null(name: &'static str) -> Failure {
    Failure::argument(format!("{name} is NULL"))
}

/// Checks memory of a command: NULL, or a length that overflows.
#[inline(always)]
fn range(at: *const std::ffi::c_void, len: usize, name: &'static str) -> Result<crate::held::Range> {
    if len == 0 {
        return Ok(crate::held::Range::default());
    }
    if at.is_null() || at.addr().checked_add(len).is_none() {
        return Err(bad_range(at.addr(), len, name));
    }
    Ok(crate::held::Range { at: at.addr(), len })
}

#[cold]
fn bad_range(at: usize, len: usize, name: &'static str) -> Failure {
    if at == 0 {
        return Failure::argument(format!("{name} is NULL, and its size is {len}"));
    }
    Failure::new(libc::EFAULT, format!("{name}: {len} bytes at {at:#x} end beyond all addresses"))
}
