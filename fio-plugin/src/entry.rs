//! The shim's calls outside of the hot path. Each catches panics, which must not reach C.

use crate::{
    errors::Failure,
    ffi::{self, Options, Workload, Zone},
    job::Job,
    placement, zones,
};
use std::{
    ffi::{CStr, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Mutex, PoisonError},
};

/// All jobs. Those that fio has set up but never started are closed when the process ends.
static JOBS: Mutex<Vec<Listed>> = Mutex::new(Vec::new());

struct Listed(*mut Job);

// SAFETY: the pointer is only compared, and its job is dropped when no other thread uses it.
unsafe impl Send for Listed {}

/// Runs `work`, prints its error, and returns 0 or an errno.
fn guarded(work: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            ffi::print(&failure.text);
            if failure.errno == 0 { libc::EIO } else { failure.errno }
        }
        Err(_) => {
            ffi::print("a defect of the engine (its panic is above); the job can't continue");
            libc::EIO
        }
    }
}

/// Gives fio the table of hooks, or null with a message.
///
/// # Safety
/// `engine` is valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_ioengine(engine: *mut *mut c_void) {
    // SAFETY: the caller promises that `engine` is valid for a write.
    unsafe { *engine = ffi::engine() };
}

/// Makes a job from its options. Returns null, with a message, when they are invalid.
///
/// # Safety
/// `options` and `workload` are valid, `checks` is null or a C string, and `thread` is fio's structure of the job's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_job_new(
    options: *const Options,
    checks: *const c_char,
    workload: *const Workload,
    thread: *mut c_void,
) -> *mut Job {
    let mut made = ptr::null_mut();
    guarded(|| {
        // SAFETY: the caller promises that `options` is valid.
        let options = unsafe { &*options };
        // SAFETY: the caller promises that `workload` is valid.
        let workload = unsafe { &*workload };
        let checks = match checks.is_null() {
            true => Default::default(),
            // SAFETY: the caller promises that it is a C string, and it is not null.
            false => unsafe { CStr::from_ptr(checks) }.to_string_lossy(),
        };
        made = Box::into_raw(Job::new(options, &checks, workload, thread)?);
        JOBS.lock().unwrap_or_else(PoisonError::into_inner).push(Listed(made));
        Ok(())
    });
    made
}

/// Checks a block size that fio may choose, once the files are open.
///
/// # Safety
/// `job` is a live job, and only this thread uses it now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_check_block(job: *mut Job, bytes: u64) -> i32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    guarded(|| unsafe { &*job }.check_block(bytes))
}

/// Checks the offset in a file, in bytes, at which the job begins.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`]; `target` is from [`upcie_open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_check_start(job: *mut Job, target: *mut c_void, offset: u64) -> i32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    guarded(|| unsafe { &*job }.check_start(target, offset))
}

/// Opens a file by its name. Stores its size in bytes, and the pointer that identifies it in units.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`]; `name` is a C string, the other pointers are valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_open(
    job: *mut Job,
    name: *const c_char,
    size: *mut u64,
    target: *mut *mut c_void,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller promises that `name` is a C string.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        // SAFETY: the caller promises that only this thread uses the live job.
        let (bytes, opened) = unsafe { &mut *job }.open(&name)?;
        // SAFETY: the caller promises that `size` is valid for a write.
        unsafe { *size = bytes };
        // SAFETY: the caller promises that `target` is valid for a write.
        unsafe { *target = opened.cast() };
        Ok(())
    })
}

/// Returns 1 if the namespace of a file has zones, otherwise 0.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_has_zones(job: *mut Job, target: *mut c_void) -> u32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    u32::from(zones::of(unsafe { &*job }, target).is_ok())
}

/// Returns the most zones of a file that can be open; 0 if there is no limit.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_max_open_zones(job: *mut Job, target: *mut c_void) -> u32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    zones::of(unsafe { &*job }, target).ok().and_then(|zones| zones.max_open()).unwrap_or(0)
}

/// Reports at most `count` zones of a file, from the one of byte `offset` on. Returns their number, or a negative errno.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_start`]; `zones` is valid for writes of `count` zones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_report_zones(
    job: *mut Job,
    target: *mut c_void,
    offset: u64,
    zones: *mut Zone,
    count: u32,
) -> i32 {
    let mut reported = 0;
    let error = guarded(|| {
        // SAFETY: the caller promises that only this thread uses the live job.
        let found = zones::report(unsafe { &*job }, target, offset, count as usize)?;
        for (index, zone) in found.into_iter().take(count as usize).enumerate() {
            // SAFETY: below `count`, as many as the caller has room for.
            let place = unsafe { zones.add(index) };
            // SAFETY: the caller promises that it is valid for a write.
            unsafe { place.write(zone) };
            reported += 1;
        }
        Ok(())
    });
    if error == 0 { reported } else { -error }
}

/// Resets the zones of `len` bytes of a file from byte `offset` on.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_start`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reset_zones(job: *mut Job, target: *mut c_void, offset: u64, len: u64) -> i32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    guarded(|| zones::reset(unsafe { &*job }, target, offset, len))
}

/// Fetches the placement identifiers of a file's namespace, the first `room` of them. Returns the number of all, or a negative
/// errno.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_start`]; `identifiers` is valid for writes of `room` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_fetch_handles(
    job: *mut Job,
    target: *mut c_void,
    identifiers: *mut u16,
    room: u32,
) -> i32 {
    let mut count = 0;
    let error = guarded(|| {
        // SAFETY: the caller promises that only this thread uses the live job.
        let found = placement::identifiers(unsafe { &*job }, target)?;
        for (index, identifier) in found.iter().take(room as usize).enumerate() {
            // SAFETY: below `room`, as many as the caller has room for.
            let place = unsafe { identifiers.add(index) };
            // SAFETY: the caller promises that it is valid for a write.
            unsafe { place.write(*identifier) };
        }
        count = i32::try_from(found.len()).unwrap_or(i32::MAX);
        Ok(())
    });
    if error == 0 { count } else { -error }
}

/// Makes the queue pairs, for reads and writes of at most `longest` bytes, and for trims if there are any.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_start(job: *mut Job, longest: u64, trims: u32) -> i32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    guarded(|| unsafe { &mut *job }.start(longest, trims != 0))
}

/// Assigns a unit to an index.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_unit(job: *mut Job, index: u32, unit: *mut c_void) {
    // SAFETY: the caller promises that only this thread uses the live job.
    unsafe { &mut *job }.set_unit(index, unit);
}

/// Allocates the units' memory. Returns null, with a message, when none is available.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_memory_new(job: *mut Job, bytes: usize) -> *mut c_void {
    let mut memory = ptr::null_mut();
    guarded(|| {
        // SAFETY: the caller promises that only this thread uses the live job.
        memory = unsafe { &mut *job }.allocate(bytes)?;
        Ok(())
    });
    memory.cast()
}

/// Frees the units' memory.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_memory_free(job: *mut Job) {
    guarded(|| {
        // SAFETY: the caller promises that only this thread uses the live job.
        unsafe { &mut *job }.free();
        Ok(())
    });
}

/// Ends a job.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`]; the job is not used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_job_free(job: *mut Job) {
    guarded(|| {
        JOBS.lock().unwrap_or_else(PoisonError::into_inner).retain(|listed| listed.0 != job);
        // SAFETY: the job is a box from `upcie_job_new`, and the caller promises not to use it afterwards.
        drop(unsafe { Box::from_raw(job) });
        Ok(())
    });
}

/// Closes the jobs that were set up and never started, when the process ends.
#[unsafe(no_mangle)]
pub extern "C" fn upcie_exit() {
    guarded(|| {
        let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
        // A started job belongs to its thread, which may still run, and may free it once the list is unlocked.
        // SAFETY: listed jobs are not freed yet.
        let idle: Vec<_> = jobs.extract_if(.., |listed| !unsafe { &*listed.0 }.has_started()).collect();
        drop(jobs);
        for Listed(job) in idle {
            // SAFETY: the job is a box from `upcie_job_new`, and no thread ever got it.
            drop(unsafe { Box::from_raw(job) });
        }
        Ok(())
    });
}

/// Reports a second that differs from that of the last call.
///
/// # Safety
/// The caller owes the same as for [`upcie_check_block`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_tick(job: *mut Job, second: i64) {
    guarded(|| {
        // SAFETY: the caller promises that only this thread uses the live job.
        unsafe { &mut *job }.tick(second);
        Ok(())
    });
}
