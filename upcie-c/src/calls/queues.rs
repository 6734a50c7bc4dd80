//! Calls about queues and completed commands. [`upcie_poll`] and [`upcie_reap`] are the hot path.

use super::{Opaque, controllers::controller, given, handle};
use crate::{
    abi::{self, Completion, QueueOpts},
    errors::{Failure, Result, guarded},
    guard::{Guard, Pass},
    handles::Kind,
    queue::Queue,
    station::Station,
};
use std::{
    ffi::{c_int, c_void},
    time::Duration,
};

/// Is called with a finished command.
pub type Done = unsafe extern "C" fn(*mut c_void, *const c_void, *mut c_void);

/// Returns the station of a queue's handle, and the pass of this call. The queue lives until its handle is closed.
#[inline(always)]
fn station(handle: *mut Opaque) -> Result<(&'static Station, Pass)> {
    let station = Station::find(handle.addr()).ok_or_else(|| Kind::Queue.bad())?;
    Ok((station, station.guard.enter().ok_or_else(Guard::refuse)?))
}

/// Returns the queue of a station.
#[inline(always)]
fn queue(station: &Station) -> *mut Queue {
    station.object().cast()
}

/// Runs a call on a queue.
pub(super) fn with(handle: *mut Opaque, work: impl FnOnce(&mut Queue) -> Result<c_int>) -> c_int {
    guarded(|| {
        let (station, _pass) = station(handle)?;
        // SAFETY: the handle is valid, so that the queue lives, and one thread at a time uses it.
        work(unsafe { &mut *queue(station) })
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
        let number = Queue::create(&controller, opts)?.publish();
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { made.write(handle(number)) };
        Ok(0)
    })
}

/// Deletes a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_queue_delete(of: *mut Opaque) -> c_int {
    guarded(|| {
        let (station, pass) = station(of)?;
        if station.polls.get() > 0 {
            return Err(Failure::new(libc::EBUSY, "a queue can't be deleted by a callback of its own poll"));
        }
        // One of two threads that delete the queue gets it.
        let at: *mut Queue = Kind::Queue.unseat(of.addr())?.cast();
        drop(pass);
        // SAFETY: from `upcie_queue_create`; its handle, which was the only one, finds it no more.
        unsafe { Box::from_raw(at) }.delete()?;
        Ok(0)
    })
}

/// Stores completed commands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reap(of: *mut Opaque, completions: *mut Completion, max: usize) -> c_int {
    let station = Station::of(of.addr());
    if !station.is_named(of.addr()) || completions.is_null() || !completions.is_aligned() {
        return reap_slowly(of, completions, max);
    }
    let Some(_pass) = station.guard.enter() else { return reap_slowly(of, completions, max) };
    // NULL names a station, too: one whose lane is not open.
    if !station.lane.is_open() {
        return reap_slowly(of, completions, max);
    }
    // SAFETY: not NULL and aligned, and the caller's, with room for so many.
    let count = unsafe { station.reap(completions, max) };
    if station.found(count) { look_after(station, count) } else { count as c_int }
}

/// Opens a queue's lane to reap, or returns the reason why nothing can be reaped.
#[cold]
#[inline(never)]
extern "C" fn reap_slowly(of: *mut Opaque, completions: *mut Completion, max: usize) -> c_int {
    with(of, |queue| {
        if max > 0 {
            given(completions, "completions")?;
        }
        if !completions.is_aligned() {
            return Err(Failure::argument("completions must be aligned to 8 bytes"));
        }
        if !queue.station.lane.is_open() {
            queue.reopen()?;
        }
        // SAFETY: not NULL and aligned, and the caller's, with room for so many.
        let count = unsafe { queue.station.reap(completions, max) };
        if queue.station.found(count) {
            queue.look()?;
        }
        Ok(count as c_int)
    })
}

/// Writes the doorbells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_ring(of: *mut Opaque) -> c_int {
    let station = Station::of(of.addr());
    // NULL names a station, too: one whose lane is not open.
    if station.is_named(of.addr()) {
        if let Some(_pass) = station.guard.enter() {
            if station.lane.ring_plainly() {
                return 0;
            }
        }
    }
    ring_slowly(of)
}

/// Writes the doorbells of a queue whose lane is closed, or was closed by a reset: opens it.
#[cold]
#[inline(never)]
extern "C" fn ring_slowly(of: *mut Opaque) -> c_int {
    with(of, |queue| {
        if !queue.station.lane.ring() {
            queue.reopen()?;
        }
        Ok(0)
    })
}

/// Opens a queue's lane that is closed.
#[cold]
#[inline(never)]
extern "C" fn reopen(of: *mut Opaque) -> c_int {
    with(of, |queue| queue.reopen().map(|()| 0))
}

/// Calls `done` for completed commands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_poll(
    of: *mut Opaque,
    max: u32,
    done: Option<Done>,
    arg: *mut c_void,
) -> c_int {
    let station = Station::of(of.addr());
    let Some(done) = done.filter(|_| station.is_named(of.addr())) else { return no_poll(of, done) };
    let Some(_pass) = station.guard.enter() else { return no_poll(of, Some(done)) };
    let mut rung = station.lane.rung();
    // NULL names a station, too: one whose lane is not open.
    if rung == 0 && !station.lane.is_open() {
        let result = reopen(of);
        if result < 0 {
            return result;
        }
        rung = station.lane.rung();
    }
    station.begin_poll();
    let most = if max == 0 { rung as u32 } else { max.min(c_int::MAX as u32) };
    let mut left = most;
    while left > 0 {
        let Some((entry, user)) = station.next() else { break };
        left -= 1;
        // SAFETY: the caller's function; the entry lives during the call.
        unsafe { done(user, (&raw const entry).cast(), arg) };
    }
    station.end_poll();
    let count = (most - left) as usize;
    if station.found(count) { look_after(station, count) } else { count as c_int }
}

/// Looks at the controller of a silent queue; returns `count`, or the failure.
#[cold]
#[inline(never)]
fn look_after(station: &Station, count: usize) -> c_int {
    match look(handle(station.handle())) {
        failure @ ..0 => failure,
        _ => count as c_int,
    }
}

/// Looks at the controller of a queue that is silent.
#[cold]
#[inline(never)]
fn look(of: *mut Opaque) -> c_int {
    with(of, |queue| queue.look().map(|()| 0))
}

/// Returns the error of a poll that can't begin.
#[cold]
#[inline(never)]
fn no_poll(of: *mut Opaque, done: Option<Done>) -> c_int {
    guarded(|| {
        station(of)?;
        done.ok_or_else(|| super::null("fn"))?;
        Err(Guard::refuse())
    })
}

/// Returns the number of commands in flight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_in_flight(of: *mut Opaque) -> c_int {
    with(of, |queue| Ok(queue.station.lane.len() as c_int))
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
