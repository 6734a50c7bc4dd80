//! What the shim calls that is not the hot path: each catches panics, which must not reach C.

use crate::{
    errors::Failure,
    ffi::{self, Options, Workload},
    job::Job,
};
use std::{
    ffi::{CStr, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Mutex, PoisonError},
};

/// All jobs: what fio sets up and never starts is closed when the process ends.
static JOBS: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

struct Listed(*mut Job);

// SAFETY: it is only compared, and dropped when no other thread has it.
unsafe impl Send for Listed {}

/// Runs `work`, prints what goes wrong, and gives 0 or an errno.
fn guarded(work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            ffi::print(&failure.text);
            if failure.errno == 0 { libc::EIO } else { failure.errno }
        }
        Err(_) => {
            ffi::print("a defect of the engine (its panic is above); the job can't go on");
            libc::EIO
        }
    }
}

/// fio's way in: the table of hooks, or null with a message.
///
/// # Safety
/// `engine` is fio's, to be filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_ioengine(engine: *mut *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { *engine = ffi::engine() };
}

/// A job by its options; null, and a message, when they can't be.
///
/// # Safety
/// Both are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_job_new(options: *const Options, workload: *const Workload) -> *mut Job {
    let mut made = ptr::null_mut();
    guarded(|| {
        // SAFETY: the caller's promise.
        let options = unsafe { &*options };
        // SAFETY: as above.
        let workload = unsafe { &*workload };
        made = Box::into_raw(Job::new(options, workload)?);
        JOBS.lock().unwrap_or_else(PoisonError::into_inner).push(Listed(made));
        Ok(())
    });
    made
}

/// Checks a block size that fio may choose, once the files are open.
///
/// # Safety
/// `job` is one of ours, and this thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_check_block(job: *mut Job, bytes: u64) -> i32 {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { &*job }.check_block(bytes))
}

/// Checks where the job begins in a file, in bytes.
///
/// # Safety
/// As for [`upcie_check_block`]; `target` is from [`upcie_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_check_start(job: *mut Job, target: *mut c_void, offset: u64) -> i32 {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { &*job }.check_start(target, offset))
}

/// Opens a file by its name; gives its size in bytes and what stands for it in units.
///
/// # Safety
/// As for [`upcie_check_block`]; `name` is a C string, the others are to be filled in.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_open(
    job: *mut Job,
    name: *const c_char,
    size: *mut u64,
    target: *mut *mut c_void,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        // SAFETY: as above.
        let (bytes, opened) = unsafe { &mut *job }.open(&name)?;
        // SAFETY: as above.
        unsafe { *size = bytes };
        // SAFETY: as above.
        unsafe { *target = opened.cast() };
        Ok(())
    })
}

/// Makes the queue pairs, for reads and writes of `longest` bytes at most, and for trims if there are any.
///
/// # Safety
/// As for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_start(job: *mut Job, longest: u64, trims: u32) -> i32 {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { &mut *job }.start(longest, trims != 0))
}

/// Says which unit has an index.
///
/// # Safety
/// As for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_unit(job: *mut Job, index: u32, unit: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { &mut *job }.set_unit(index, unit);
}

/// Memory for the units; null, and a message, when there is none.
///
/// # Safety
/// As for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_memory_new(job: *mut Job, bytes: usize) -> *mut c_void {
    let mut memory = ptr::null_mut();
    guarded(|| {
        // SAFETY: the caller's promise.
        memory = unsafe { &mut *job }.allocate(bytes)?;
        Ok(())
    });
    memory.cast()
}

/// Gives the memory back.
///
/// # Safety
/// As for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_memory_free(job: *mut Job) {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe { &mut *job }.free();
        Ok(())
    });
}

/// Ends a job.
///
/// # Safety
/// As for [`upcie_check_block`]; it is not used after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_job_free(job: *mut Job) {
    guarded(|| {
        JOBS.lock().unwrap_or_else(PoisonError::into_inner).retain(|listed| listed.0 != job);
        // SAFETY: from `upcie_job_new`, and the caller's promise.
        drop(unsafe { Box::from_raw(job) });
        Ok(())
    });
}

/// The process ends: closes what was set up and never started.
#[unsafe(no_mangle)]
pub extern "C" fn upcie_exit() {
    guarded(|| {
        let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was started is its thread's, which may still run, and free it once the list is let go of.
        // SAFETY: listed jobs are not freed yet.
        let idle: Vec<_> = jobs.extract_if(.., |listed| !unsafe { &*listed.0 }.has_started()).collect();
        drop(jobs);
        for Listed(job) in idle {
            // SAFETY: from `upcie_job_new`; no thread was ever given it.
            drop(unsafe { Box::from_raw(job) });
        }
        Ok(())
    });
}

/// Another second than that of the last call.
///
/// # Safety
/// As for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_tick(job: *mut Job, second: i64) {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe { &mut *job }.tick(second);
        Ok(())
    });
}
