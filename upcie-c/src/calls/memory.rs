//! Calls about memory.

use super::{Opaque, given, handle};
use crate::{
    abi::{self, HeapOpts},
    controller::Ctrlr,
    errors::{Failure, Result, guarded, guarded_pointer},
    handles::Kind,
    heap::Heap,
    pieces::contiguous,
};
use std::{
    ffi::{c_int, c_void},
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
};

/// Returns the heap of a handle.
pub(super) fn heap(handle: *mut Opaque) -> Result<Arc<Heap>> {
    // SAFETY: `upcie_heap_create` alone makes handles of this kind.
    unsafe { Kind::Heap.get(handle.addr()) }
}

/// Makes a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_heap_create(opts: *const HeapOpts, made: *mut *mut Opaque) -> c_int {
    guarded(|| {
        given(made, "heap")?;
        // SAFETY: the caller's structure begins with its size.
        let opts = unsafe { abi::options(opts, "upcie_heap_opts") }?;
        let number = Kind::Heap.share(Arc::new(Heap::new(opts)?))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { made.write(handle(number)) };
        Ok(0)
    })
}

/// Frees all memory of a heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_heap_destroy(of: *mut Opaque) -> c_int {
    guarded(|| {
        heap(of)?.close()?;
        // SAFETY: `upcie_heap_create` alone makes handles of this kind.
        drop(unsafe { Kind::Heap.take::<Heap>(of.addr()) }?);
        Ok(0)
    })
}

/// Allocates zeroed memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_alloc(of: *mut Opaque, size: usize) -> *mut c_void {
    guarded_pointer(|| Ok(heap(of)?.alloc(size)?.cast()))
}

/// Allocates other memory for the bytes of an allocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_realloc(of: *mut Opaque, at: *mut c_void, size: usize) -> *mut c_void {
    guarded_pointer(|| Ok(heap(of)?.realloc(at.cast(), size)?.cast()))
}

/// Frees an allocation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_free(of: *mut Opaque, at: *mut c_void) -> c_int {
    guarded(|| heap(of)?.free(at.cast()).map(|()| 0))
}

/// Lets controllers use memory of the program's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_map(of: *mut Opaque, at: *mut c_void, size: usize) -> c_int {
    guarded(|| heap(of)?.map(at.cast(), size).map(|()| 0))
}

/// Ends a mapping.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_unmap(of: *mut Opaque, at: *mut c_void) -> c_int {
    guarded(|| heap(of)?.unmap(at.cast()).map(|()| 0))
}

/// Maps a memory file for the program and for controllers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_import_fd(
    of: *mut Opaque,
    fd: c_int,
    at: *mut *mut c_void,
    size: *mut usize,
) -> c_int {
    guarded(|| {
        let heap = heap(of)?;
        given(at, "addr")?;
        given(size, "size")?;
        // SAFETY: takes a number; one that is no descriptor is an error.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Failure::new(
                error.raw_os_error().unwrap_or(libc::EBADF),
                format!("descriptor {fd}: {error}"),
            ));
        }
        // SAFETY: a descriptor that was just made for this call.
        let (base, len) = heap.import(unsafe { OwnedFd::from_raw_fd(copy) })?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { at.write(base.cast()) };
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { size.write(len) };
        Ok(0)
    })
}

/// Looks up the device address of memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_iova(
    of: *mut Opaque,
    at: *const c_void,
    size: usize,
    iova: *mut u64,
) -> c_int {
    guarded(|| {
        // SAFETY: `upcie_open` alone makes handles of this kind.
        let controller: Arc<Ctrlr> = unsafe { Kind::Controller.get(of.addr()) }?;
        given(iova, "iova")?;
        let range = super::range(at, size.max(1), "addr")?;
        let found = contiguous(&controller.space.translation, range.at, range.len)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { iova.write(found) };
        Ok(0)
    })
}
