//! Calls about controllers.

use super::{Opaque, given, handle, memory::heap, range};
use crate::{
    abi::{self, Func, Info, IoVec, Opts, text},
    controller::Ctrlr,
    errors::{Failure, Result, guarded},
    handles::Kind,
};
use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::Arc,
};
use upcie_nvme::{
    ResetKind,
    spec::{Command, CompletionEntry},
    upcie_core::{device::Device, pci::functions},
};

/// Returns the controller of a handle.
pub(super) fn controller(handle: *mut Opaque) -> Result<Arc<Ctrlr>> {
    // SAFETY: `upcie_open` alone makes handles of this kind.
    unsafe { Kind::Controller.get(handle.addr()) }
}

/// Calls `each` for each NVMe function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_scan(
    each: Option<unsafe extern "C" fn(*const Func, *mut c_void) -> c_int>,
    arg: *mut c_void,
) -> c_int {
    guarded(|| {
        let each = each.ok_or_else(|| super::null("fn"))?;
        for function in functions()?.iter().filter(|function| function.is_nvme()) {
            let func = Func {
                size: size_of::<Func>() as u32,
                vendor: function.vendor,
                device: function.device,
                address: text(&function.bdf.to_string()),
                driver: text(function.driver.as_deref().unwrap_or_default()),
            };
            // SAFETY: the caller's function, which takes a structure and its own argument.
            let result = unsafe { each(&raw const func, arg) };
            if result != 0 {
                return Ok(result);
            }
        }
        Ok(0)
    })
}

/// Opens a controller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_open(
    of: *mut Opaque,
    address: *const c_char,
    opts: *const Opts,
    made: *mut *mut Opaque,
) -> c_int {
    guarded(|| {
        let heap = heap(of)?;
        given(made, "ctrlr")?;
        given(address, "address")?;
        // SAFETY: not NULL, and the caller's string.
        let address = unsafe { CStr::from_ptr(address) };
        let address = address.to_str().map_err(|_| Failure::argument("the address is not UTF-8"))?;
        // SAFETY: the caller's structure begins with its size.
        let opts = unsafe { abi::options(opts, "upcie_opts") }?;
        let opened = Ctrlr::open(&heap, address, opts)?;
        let number = Kind::Controller.share(opened)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { made.write(handle(number)) };
        Ok(0)
    })
}

/// Opens a controller on a device of the caller's, and returns its handle: for a Rust program that measures or tests the C
/// calls on a transport of its own.
///
/// # Errors
/// A negative errno; [`upcie_last_error`](super::upcie_last_error) has the text.
pub fn open_device(of: *mut Opaque, device: Arc<dyn Device>) -> Result<*mut Opaque, c_int> {
    let mut made = std::ptr::null_mut();
    let code = guarded(|| {
        made = handle(Kind::Controller.share(Ctrlr::on_device(&heap(of)?, device)?)?);
        Ok(0)
    });
    if code < 0 { Err(code) } else { Ok(made) }
}

/// Shuts a controller down.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_close(of: *mut Opaque) -> c_int {
    guarded(|| {
        controller(of)?.close()?;
        // SAFETY: `upcie_open` alone makes handles of this kind.
        drop(unsafe { Kind::Controller.take::<Ctrlr>(of.addr()) }?);
        Ok(0)
    })
}

/// Describes a controller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_info(of: *mut Opaque, info: *mut Info) -> c_int {
    guarded(|| {
        let controller = controller(of)?;
        given(info, "info")?;
        // SAFETY: the caller's structure begins with its size.
        unsafe { abi::fill(info, &controller.info(), "upcie_info") }?;
        Ok(0)
    })
}

/// Reads registers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_regs(of: *mut Opaque, dst: *mut c_void, offset: usize, size: usize) -> c_int {
    guarded(|| {
        let controller = controller(of)?;
        given(dst, "dst")?;
        if offset % 4 != 0 || size % 4 != 0 || offset.checked_add(size).is_none() {
            return Err(Failure::argument(format!(
                "{size} bytes at {offset:#x}: registers are read by 4 bytes"
            )));
        }
        for at in (0..size).step_by(4) {
            let value = controller.controller.register(offset + at)?;
            let to = dst.cast::<u8>().wrapping_add(at);
            // SAFETY: the caller's, of `size` bytes, at any alignment.
            unsafe { to.cast::<u32>().write_unaligned(value) };
        }
        Ok(0)
    })
}

/// Resets a controller, its subsystem or its function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reset(of: *mut Opaque, kind: c_int) -> c_int {
    guarded(|| {
        let controller = controller(of)?;
        let kind = match kind {
            0 => ResetKind::Controller,
            1 => ResetKind::Subsystem,
            2 => ResetKind::Function,
            other => return Err(Failure::argument(format!("{other} is no kind of reset"))),
        };
        controller.reset(kind).map(|()| 0)
    })
}

/// Asks for the active namespaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_rescan(
    of: *mut Opaque,
    ids: *mut u32,
    max: usize,
    count: *mut usize,
) -> c_int {
    guarded(|| {
        let controller = controller(of)?;
        controller.controller.invalidate_namespaces();
        let found = controller.controller.namespace_ids()?;
        if !ids.is_null() {
            for (index, id) in found.iter().enumerate().take(max) {
                // SAFETY: the caller's, of `max` ids.
                unsafe { ids.wrapping_add(index).write(*id) };
            }
        }
        if !count.is_null() {
            // SAFETY: not NULL, and the caller's to be written.
            unsafe { count.write(found.len()) };
        }
        Ok(0)
    })
}

/// Reads a command of the caller's.
fn command(at: *const c_void) -> Result<Command> {
    given(at, "cmd")?;
    // SAFETY: not NULL, and the caller's 64 bytes.
    Ok(unsafe { at.cast::<Command>().read_unaligned() })
}

/// Stores the entry, if it is wanted, and returns the call's result.
fn ended(controller: &Ctrlr, what: &Command, entry: CompletionEntry, cqe: *mut c_void) -> Result<c_int> {
    if !cqe.is_null() {
        // SAFETY: not NULL, and the caller's 16 bytes.
        unsafe { cqe.cast::<CompletionEntry>().write_unaligned(entry) };
    }
    if entry.is_success() {
        return Ok(0);
    }
    let (name, status) = (controller.controller.name(), entry.status());
    Err(Failure::new(libc::EIO, format!("{name}: command {:#04x} failed: {status}", what.opcode)))
}

/// Runs an admin command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_admin(
    of: *mut Opaque,
    cmd: *const c_void,
    data: *mut c_void,
    data_size: usize,
    meta: *mut c_void,
    meta_size: usize,
    cqe: *mut c_void,
) -> c_int {
    guarded(|| {
        let (controller, command) = (controller(of)?, command(cmd)?);
        let (data, meta) = (range(data, data_size, "data")?, range(meta, meta_size, "meta")?);
        // SAFETY: memory of the heap is the caller's to be read and written.
        let entry = unsafe { controller.admin(command, data, meta) }?;
        ended(&controller, &command, entry, cqe)
    })
}

/// Runs an I/O command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_io(
    of: *mut Opaque,
    cmd: *const c_void,
    data: *mut c_void,
    data_size: usize,
    meta: *mut c_void,
    meta_size: usize,
    cqe: *mut c_void,
) -> c_int {
    let piece = IoVec { base: data.cast(), len: data_size };
    // SAFETY: the caller owes the same for both calls.
    unsafe { upcie_iov(of, cmd, &raw const piece, 1, meta, meta_size, cqe) }
}

/// Runs an I/O command with data in pieces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_iov(
    of: *mut Opaque,
    cmd: *const c_void,
    iov: *const IoVec,
    iov_count: usize,
    meta: *mut c_void,
    meta_size: usize,
    cqe: *mut c_void,
) -> c_int {
    guarded(|| {
        let (controller, command) = (controller(of)?, command(cmd)?);
        // SAFETY: the caller's, of `iov_count` pieces.
        let data = unsafe { pieces(iov, iov_count) }?;
        let meta = range(meta, meta_size, "meta")?;
        // SAFETY: memory of the heap is the caller's, and stays so until the command has ended.
        let entry = unsafe { controller.io(&command, data, meta) }?;
        ended(&controller, &command, entry, cqe)
    })
}

/// Checks pieces of data.
///
/// # Safety
/// `iov` is NULL, or so many pieces can be read there for as long as the result lives.
pub(super) unsafe fn pieces<'p>(iov: *const IoVec, count: usize) -> Result<&'p [IoVec]> {
    if count == 0 {
        return Ok(&[]);
    }
    given(iov, "iov")?;
    if count > 1 << 20 || !iov.is_aligned() {
        return Err(Failure::argument(format!(
            "{count} pieces of data: at most 1,048,576, aligned to 8 bytes"
        )));
    }
    // SAFETY: not NULL and aligned, and the caller's promise.
    let pieces = unsafe { std::slice::from_raw_parts(iov, count) };
    for piece in pieces {
        range(piece.base.cast(), piece.len, "a piece of the data")?;
    }
    Ok(pieces)
}
