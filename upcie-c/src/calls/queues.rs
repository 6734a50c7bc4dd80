//! Calls about queues. [`upcie_submit`] and [`upcie_poll`] are the hot path.

use super::{Opaque, controllers::controller, controllers::pieces, given, handle, range};
use crate::{
    abi::{self, Completion, IoVec, QueueOpts, Request},
    errors::{Failure, Result, guarded, note},
    guard::{Guard, Pass},
    handles::Kind,
    queue::Queue,
};
use std::{
    ffi::{c_int, c_void},
    time::Duration,
};
use upcie_nvme::spec::Command;

/// A call handles at most as many commands as a queue can have.
const MOST: usize = 1 << 16;

/// Is called with a finished command.
pub type Done = unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_void);

/// Returns the queue of a handle, and the pass of this call. The queue lives until its handle is closed.
#[inline(always)]
fn queue(handle: *mut Opaque) -> Result<(*mut Queue, Pass)> {
    let found = Kind::Queue.find(handle.addr()).ok_or_else(|| Kind::Queue.bad())?;
    let queue: *mut Queue = found.cast();
    // SAFETY: the handle is valid, so that the queue lives; the guard is changed by atomics alone.
    let guard = unsafe { &(*queue).guard };
    Ok((queue, guard.enter().ok_or_else(Guard::refuse)?))
}

/// Runs a call on a queue.
fn with(handle: *mut Opaque, work: impl FnOnce(&mut Queue) -> Result<c_int>) -> c_int {
    guarded(|| {
        let (queue, _pass) = queue(handle)?;
        // SAFETY: the handle is valid, and one thread at a time uses the queue.
        work(unsafe { &mut *queue })
    })
}

/// Makes a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_queue_create(
    of: *mut Opaque,
    opts: *const QueueOpts,
    made: *mut *mut Opaque,
) -> c_int {
    guarded(|| {
        let controller = controller(of)?;
        given(made, "queue")?;
        // SAFETY: the caller's structure begins with its size.
        let opts = unsafe { abi::options(opts, "upcie_queue_opts") }?;
        let queue = Box::into_raw(Queue::create(&controller, opts)?);
        let number = Kind::Queue.insert(queue.cast()).or_else(|failure| {
            // SAFETY: from `into_raw` just now; no handle has it.
            unsafe { Box::from_raw(queue) }.delete()?;
            Err(failure)
        })?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { made.write(handle(number)) };
        Ok(0)
    })
}

/// Deletes a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_queue_delete(of: *mut Opaque) -> c_int {
    guarded(|| {
        let (at, pass) = queue(of)?;
        // SAFETY: the handle is valid, and one thread at a time uses the queue.
        if unsafe { &*at }.is_polled() {
            return Err(Failure::new(libc::EBUSY, "a queue can't be deleted by a callback of its own poll"));
        }
        drop(pass);
        let at: *mut Queue = Kind::Queue.remove(of.addr())?.cast();
        // SAFETY: from `upcie_queue_create`; its handle, which was the only one, has just been closed.
        unsafe { Box::from_raw(at) }.delete()?;
        Ok(0)
    })
}

/// Puts a command into the ring.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_submit(
    of: *mut Opaque,
    cmd: *const c_void,
    data: *mut c_void,
    data_size: usize,
    meta: *mut c_void,
    meta_size: usize,
    user: *mut c_void,
) -> c_int {
    if let (Some(queue), false, 0) = (Kind::Queue.find(of.addr()), cmd.is_null(), meta_size) {
        let queue: *mut Queue = queue.cast();
        // SAFETY: the handle is valid, so that the queue lives; the guard is changed by atomics alone.
        let guard = unsafe { &(*queue).guard };
        if let Some(_pass) = guard.enter() {
            // SAFETY: the handle is valid, and one thread at a time uses the queue.
            let queue = unsafe { &mut *queue };
            // SAFETY: memory of the heap is the caller's, and stays so until the command has ended; the command is
            // not NULL.
            if unsafe { queue.submit_plain(cmd.cast(), data.addr(), data_size, user) } {
                return 0;
            }
        }
    }
    submit_slowly(of, cmd, data, data_size, meta, meta_size, user)
}

/// Submits a command that is not plain, or returns the reason why it can't be submitted.
#[inline(never)]
extern "C" fn submit_slowly(
    of: *mut Opaque,
    cmd: *const c_void,
    data: *mut c_void,
    data_size: usize,
    meta: *mut c_void,
    meta_size: usize,
    user: *mut c_void,
) -> c_int {
    with(of, |queue| {
        given(cmd, "cmd")?;
        // SAFETY: not NULL, and the caller's 64 bytes.
        let command = unsafe { cmd.cast::<Command>().read_unaligned() };
        let (data, meta) = (range(data, data_size, "data")?, range(meta, meta_size, "meta")?);
        let piece = IoVec { base: std::ptr::without_provenance_mut(data.at), len: data.len };
        // SAFETY: memory of the heap is the caller's, and stays so until the command has ended.
        unsafe { queue.submit_pieces(&command, &[piece], meta, user) }?;
        Ok(0)
    })
}

/// Puts a command with data in pieces into the ring.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_submitv(
    of: *mut Opaque,
    cmd: *const c_void,
    iov: *const IoVec,
    iov_count: usize,
    meta: *mut c_void,
    meta_size: usize,
    user: *mut c_void,
) -> c_int {
    with(of, |queue| {
        given(cmd, "cmd")?;
        // SAFETY: not NULL, and the caller's 64 bytes.
        let command = unsafe { cmd.cast::<Command>().read_unaligned() };
        // SAFETY: the caller's, of `iov_count` pieces.
        let data = unsafe { pieces(iov, iov_count) }?;
        let meta = range(meta, meta_size, "meta")?;
        // SAFETY: memory of the heap is the caller's, and stays so until the command has ended.
        unsafe { queue.submit_pieces(&command, data, meta, user) }?;
        Ok(0)
    })
}

/// Submits commands in order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_submit_many(of: *mut Opaque, requests: *const Request, count: usize) -> c_int {
    with(of, |queue| {
        let count = count.min(MOST);
        if count == 0 {
            return Ok(0);
        }
        given(requests, "requests")?;
        if !requests.is_aligned() {
            return Err(Failure::argument("requests must be aligned to 8 bytes"));
        }
        // SAFETY: not NULL and aligned, and the caller's, of so many requests.
        let requests = unsafe { std::slice::from_raw_parts(requests, count) };
        // SAFETY: memory of the heap is the caller's, and stays so until the command has ended.
        let sent = unsafe { queue.submit_many(requests) }?;
        Ok(sent as c_int)
    })
}

/// Stores completed commands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reap(of: *mut Opaque, completions: *mut Completion, max: usize) -> c_int {
    with(of, |queue| {
        let max = max.min(MOST);
        if max > 0 {
            given(completions, "completions")?;
        }
        if !completions.is_aligned() {
            return Err(Failure::argument("completions must be aligned to 8 bytes"));
        }
        queue.begin_poll()?;
        // SAFETY: not NULL and aligned, and the caller's, with room for so many.
        let count = unsafe { queue.reap(completions, max) };
        queue.end_poll(count as u32)?;
        Ok(count as c_int)
    })
}

/// Writes the doorbells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_ring(of: *mut Opaque) -> c_int {
    let ring = || {
        let (queue, _pass) = queue(of)?;
        // SAFETY: the handle is valid, and one thread at a time uses the queue.
        unsafe { &mut *queue }.ring()
    };
    match ring() {
        Ok(()) => 0,
        Err(failure) => note(failure),
    }
}

/// Calls `done` for completed commands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_poll(
    of: *mut Opaque,
    max: u32,
    done: Option<Done>,
    arg: *mut c_void,
) -> c_int {
    let (at, _pass, most, done) = match begin_poll(of, max, done) {
        Ok(begun) => begun,
        Err(failure) => return note(failure),
    };
    let mut count = 0;
    while count < most {
        // Anew for each: the callback may have used the queue.
        // SAFETY: it can't be deleted while it is polled, and no other thread uses it.
        let Some((entry, user)) = (unsafe { &mut *at }).next() else { break };
        count += 1;
        // SAFETY: the caller's function; the entry lives during the call.
        unsafe { done(user, (&raw const entry).cast(), arg) };
    }
    // SAFETY: it can't be deleted while it is polled, and no other thread uses it.
    match unsafe { &mut *at }.end_poll(count) {
        Ok(()) => count as c_int,
        Err(failure) => note(failure),
    }
}

/// Begins a poll: returns the queue, the pass of the call, the most completions, and the callback.
fn begin_poll(of: *mut Opaque, max: u32, done: Option<Done>) -> Result<(*mut Queue, Pass, u32, Done)> {
    let (at, pass) = queue(of)?;
    let done = done.ok_or_else(|| super::null("fn"))?;
    // SAFETY: the handle is valid, and one thread at a time uses the queue.
    let queue = unsafe { &mut *at };
    queue.begin_poll()?;
    let most = if max == 0 { queue.in_flight() as u32 } else { max.min(c_int::MAX as u32) };
    Ok((at, pass, most, done))
}

/// Returns the number of commands in flight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_in_flight(of: *mut Opaque) -> c_int {
    with(of, |queue| Ok(queue.in_flight() as c_int))
}

/// Rings, and waits for a completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_wait(of: *mut Opaque, timeout_ms: u32) -> c_int {
    with(of, |queue| queue.wait(Duration::from_millis(timeout_ms.into())).map(c_int::from))
}

/// Returns the descriptor of the queue's interrupts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_fd(of: *mut Opaque) -> c_int {
    with(of, |queue| queue.fd())
}

/// Rings, and asks for the next interrupt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_arm(of: *mut Opaque) -> c_int {
    with(of, |queue| queue.arm().map(|()| 0))
}

/// Brings a queue back after a reset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_recover(of: *mut Opaque, done: Option<Done>, arg: *mut c_void) -> c_int {
    let mut ended = Vec::new();
    let result = with(of, |queue| {
        done.ok_or_else(|| super::null("fn"))?;
        ended = queue.recover()?;
        Ok(ended.len() as c_int)
    });
    if let Some(done) = done {
        for (entry, user) in &ended {
            // SAFETY: the caller's function; the entry lives during the call. The queue is open, and in no other use.
            unsafe { done(*user, std::ptr::from_ref(entry).cast(), arg) };
        }
    }
    result
}
