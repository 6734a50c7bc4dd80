//! Waiting for completions in `getevents`, when too few units are done.

use crate::{errors::Failure, hot, job::Job};
use libc::timespec;
use std::time::Duration;
use upcie_nvme::upcie_core::deadline::Stopwatch;

/// Waits until `least` events are filled in, or the job is broken, where `found` are filled in already. Returns their
/// number.
#[cold]
#[inline(never)]
pub(crate) fn reap_more(
    job: &mut Job,
    mut found: u32,
    least: u32,
    most: u32,
    timeout: Option<&timespec>,
) -> u32 {
    let limit = job.plan.timeout;
    let wanted = timeout
        .map(|time| Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32));
    let mut watch = Stopwatch::new();
    while found < least && job.broken == 0 {
        match wait(job, wanted.unwrap_or(limit).min(limit)) {
            Ok(true) => {}
            // fio's own timeout has expired.
            Ok(false) if wanted.is_some_and(|wanted| watch.waited() >= wanted) => break,
            Ok(false) => {
                // No command has completed within the timeout.
                let oldest = job.oldest();
                job.out_of_time(oldest);
            }
            Err(failure) => job.abort_job(&failure),
        }
        found = hot::reap(job, found, most);
    }
    found
}

/// Waits until a unit can be reaped; `false` when none can within `limit`. Units that were not submitted are done once
/// nothing of them is in flight.
fn wait(job: &mut Job, limit: Duration) -> Result<bool, Failure> {
    if job.has_unsent() {
        return Ok(true);
    }
    job.group.set_reaped(job.given);
    Ok(job.group.wait(&mut job.targets, job.plan.wait, limit).map_err(|failed| failed.error)?)
}
