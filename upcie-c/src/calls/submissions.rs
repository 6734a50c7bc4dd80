//! Calls that submit commands. [`upcie_submit`] and [`upcie_submit_many`] are the hot path.

use super::{Opaque, controllers::pieces, given, queues::with, range};
use crate::{
    abi::{IoVec, Request},
    errors::Failure,
    station::Station,
};
use std::ffi::{c_int, c_void};
use upcie_nvme::spec::Command;

/// A call handles at most as many commands as a queue can have.
const MOST: usize = 1 << 16;

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
    // Two branches: joined, they would be computed as flags.
    if cmd.is_null() {
        return no_command(of);
    }
    if meta_size != 0 {
        cold();
        return submit_slowly(of, cmd, data, data_size, meta, meta_size, user);
    }
    let station = Station::of(of.addr());
    // NULL names a station, too: one that takes no command.
    if station.is_named(of.addr()) {
        if let Some(_pass) = station.guard.enter() {
            // SAFETY: memory of the heap is the caller's, and stays so until the command has ended; the command is not
            // NULL.
            if unsafe { station.submit_again(cmd.cast(), data.addr(), data_size, user) } {
                return 0;
            }
        }
    }
    submit_plain(of, cmd, data, data_size, user)
}

/// Submits a command with data that the queue's next slot does not remember.
// Without metadata: a call with all arguments of its caller's would keep that one's registers taken.
#[inline(never)]
extern "C" fn submit_plain(
    of: *mut Opaque,
    cmd: *const c_void,
    data: *mut c_void,
    data_size: usize,
    user: *mut c_void,
) -> c_int {
    if let Some(station) = Station::find(of.addr()) {
        if let Some(_pass) = station.guard.enter() {
            // SAFETY: memory of the heap is the caller's, and stays so until the command has ended; the command is not
            // NULL.
            if unsafe { station.submit_plain(cmd.cast(), data.addr(), data_size, user) } {
                return 0;
            }
        }
    }
    submit_slowly(of, cmd, data, data_size, std::ptr::null_mut(), 0, user)
}

/// Returns the error of a submission without a command.
// With few arguments: a call that passes NULL on would take stack in each submission.
#[cold]
#[inline(never)]
extern "C" fn no_command(of: *mut Opaque) -> c_int {
    with(of, |_| Err(super::null("cmd")))
}

/// Marks a branch as cold, so that it stays a branch.
#[cold]
#[inline]
fn cold() {}

/// Submits a command that is not plain, or returns the reason why it can't be submitted.
// Cold for its callers: the stack that a call with seven arguments needs is then made in that branch alone.
#[cold]
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
    let (station, mut sent) = (Station::of(of.addr()), 0);
    // NULL names a station, too: one that takes no command.
    if station.is_named(of.addr())
        && !requests.is_null()
        && requests.is_aligned()
        && (1..=MOST).contains(&count)
    {
        if let Some(_pass) = station.guard.enter() {
            // SAFETY: not NULL and aligned, and the caller's, of so many requests.
            let requests = unsafe { std::slice::from_raw_parts(requests, count) };
            // A single command that has come back goes out with its data again: that needs no translation.
            if let [Request { data, data_size, user, cmd }] = requests {
                let user = std::ptr::without_provenance_mut(*user);
                // SAFETY: memory of the heap is the caller's, and stays so until the command has ended.
                if unsafe { station.submit_again(cmd.as_ptr().cast(), *data, *data_size, user) } {
                    return 1;
                }
            }
            // SAFETY: each request has a command; its memory of the heap is the caller's until the command has ended.
            sent = unsafe { station.submit_run(requests) };
            if sent == count {
                return sent as c_int;
            }
        }
    }
    submit_rest(of, requests, count, sent)
}

/// Submits commands of which the first ones were `sent` already.
#[cold]
#[inline(never)]
extern "C" fn submit_rest(of: *mut Opaque, requests: *const Request, count: usize, sent: usize) -> c_int {
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
        let sent = unsafe { queue.submit_many(requests, sent) }?;
        Ok(sent as c_int)
    })
}
