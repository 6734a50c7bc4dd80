//! A caller of the driver: functions as a program has them. `cargo xtask bench --instructions` counts what they execute
//! and looks at their machine code.

use crate::Random;
use upcie_nvme::{Namespace, QueuePair, Result, spec::Command};

/// Reaps what is done and reads as much again, into the same buffers: how much. `None` when a command failed.
#[inline(never)]
pub fn reap_and_read(
    queue: &mut QueuePair<u64>,
    namespace: &Namespace,
    random: &mut Random,
) -> Result<Option<u64>> {
    let mut turn = queue.turn()?;
    let mut done = 0;
    while let Some(completion) = turn.next() {
        let (tag, result, buffer) = completion.into_parts();
        if result.is_err() {
            return Ok(None);
        }
        if turn.read(namespace, random.next() & 0xff_fff8, buffer, tag).is_err() {
            return Ok(None);
        }
        done += 1;
    }
    Ok(Some(done))
}

/// The same with writes.
#[inline(never)]
pub fn reap_and_write(
    queue: &mut QueuePair<u64>,
    namespace: &Namespace,
    random: &mut Random,
) -> Result<Option<u64>> {
    let mut turn = queue.turn()?;
    let mut done = 0;
    while let Some(completion) = turn.next() {
        let (tag, result, buffer) = completion.into_parts();
        if result.is_err() {
            return Ok(None);
        }
        if turn.write(namespace, random.next() & 0xff_fff8, buffer, tag).is_err() {
            return Ok(None);
        }
        done += 1;
    }
    Ok(Some(done))
}

/// The same with a command that the caller made.
///
/// # Safety
/// The command must be one that [`submit_raw`](upcie_nvme::Turn::submit_raw) may send again and again.
#[inline(never)]
pub unsafe fn reap_and_submit(queue: &mut QueuePair<u64>, command: &Command) -> Result<Option<u64>> {
    let mut turn = queue.turn()?;
    let mut done = 0;
    while let Some(completion) = turn.next() {
        let (tag, result, buffer) = completion.into_parts();
        if result.is_err() {
            return Ok(None);
        }
        // SAFETY: the caller's word.
        let sent = unsafe { turn.submit_raw(command, buffer, tag) };
        if sent.is_err() {
            return Ok(None);
        }
        done += 1;
    }
    Ok(Some(done))
}
