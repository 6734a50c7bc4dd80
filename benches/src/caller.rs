//! Callers of the driver, in functions as a program has them. `cargo xtask bench --instructions` counts their
//! instructions and checks their machine code.

use crate::Random;
use upcie_nvme::{Namespace, QueuePair, Result, spec::Command};

/// Reaps all completions and reads again into the same buffers; returns their number, or `None` if a command
/// failed.
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

/// Like [`reap_and_read`], with writes.
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

/// Like [`reap_and_read`], with a command that the caller made.
///
/// # Safety
/// [`submit_raw`](upcie_nvme::Turn::submit_raw) must be allowed to send the command any number of times.
#[inline(never)]
pub unsafe fn reap_and_submit(queue: &mut QueuePair<u64>, command: &Command) -> Result<Option<u64>> {
    let mut turn = queue.turn()?;
    let mut done = 0;
    while let Some(completion) = turn.next() {
        let (tag, result, buffer) = completion.into_parts();
        if result.is_err() {
            return Ok(None);
        }
        // SAFETY: the caller guarantees that the command may be sent again.
        let sent = unsafe { turn.submit_raw(command, buffer, tag) };
        if sent.is_err() {
            return Ok(None);
        }
        done += 1;
    }
    Ok(Some(done))
}
