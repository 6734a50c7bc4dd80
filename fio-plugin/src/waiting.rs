//! Waiting for completions in `getevents`, when too few units are done.

use crate::{errors::Failure, hot, job::Job, target::Target};
use libc::timespec;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};
use upcie_nvme::{
    Wait,
    upcie_core::{
        clock::{Clock, SystemClock},
        deadline::Stopwatch,
    },
};

/// Polls between two readings of the clock.
const LOOKS: u32 = 64;
/// Interval between two checks that the controllers are still there.
const ALIVE: Duration = Duration::from_millis(100);

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
    let patience = job.plan.timeout;
    let wanted = timeout
        .map(|time| Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32));
    let started = Instant::now();
    while found < least && job.broken == 0 {
        let limit = wanted.unwrap_or(patience).min(patience);
        match wait(job, limit) {
            Ok(true) => {}
            // fio's own timeout has expired.
            Ok(false) if wanted.is_some_and(|wanted| started.elapsed() >= wanted) => break,
            Ok(false) => {
                // No command has completed within the timeout.
                let oldest = job.oldest();
                job.out_of_time(oldest);
            }
            Err(failure) => job.break_off(&failure),
        }
        found = hot::reap(job, found, most);
    }
    found
}

/// Waits until a unit can be reaped; `false` when none can within `limit`.
fn wait(job: &mut Job, limit: Duration) -> Result<bool, Failure> {
    let started = Instant::now();
    let result = wait_for(job, limit, started);
    job.policy.end(started.elapsed());
    result
}

fn wait_for(job: &mut Job, limit: Duration, started: Instant) -> Result<bool, Failure> {
    let (mut watch, how) = (Stopwatch::new(), job.plan.wait);
    let (mut waited, mut asked) = (Duration::ZERO, started);
    loop {
        let spins = match how {
            Wait::Interrupt => Duration::ZERO,
            Wait::Adaptive(most) => job.policy.begin(SystemClock.now(), job.given, most),
            _ => ALIVE,
        };
        if spin(job, limit.min(spins)) {
            return Ok(true);
        }
        if how != Wait::Poll && sleep(job, limit.saturating_sub(waited).min(ALIVE))? {
            return Ok(true);
        }
        if asked.elapsed() >= ALIVE {
            for target in job.targets_mut().filter(|target| target.in_flight > 0) {
                if let Some(queue) = &mut target.queue {
                    queue.wait(Wait::Poll, Duration::ZERO)?;
                }
            }
            asked = Instant::now();
        }
        waited = watch.waited();
        if waited >= limit {
            return Ok(is_ready(job));
        }
    }
}

/// Polls each queue once. Units that were not submitted are done once nothing of them is in flight.
#[inline]
fn is_ready(job: &mut Job) -> bool {
    let is_done = |target: &mut Target| {
        target.in_flight > 0 && target.queue.as_ref().is_some_and(|queue| queue.is_ready())
    };
    job.targets_mut().any(is_done) || job.has_unsent()
}

/// Polls for at most `limit`; `true` when a unit can be reaped.
fn spin(job: &mut Job, limit: Duration) -> bool {
    let started = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if is_ready(job) {
                job.policy.came_by_itself();
                return true;
            }
            std::hint::spin_loop();
        }
        let waited = started.elapsed();
        if waited >= limit {
            return false;
        }
        // A software controller may be waiting for this core.
        if waited >= job.policy.patience() {
            std::thread::yield_now();
            let ready = is_ready(job);
            job.policy.yielded(started.elapsed().saturating_sub(waited), ready);
            if ready {
                return true;
            }
        }
    }
}

/// Sleeps until a queue's interrupt, at most `limit`; `true` when a unit can be reaped.
fn sleep(job: &mut Job, limit: Duration) -> Result<bool, Failure> {
    for target in job.targets_mut().filter(|target| target.in_flight > 0) {
        if let Some(queue) = &target.queue {
            queue.arm()?;
        }
    }
    // Completions that arrived before the interrupts were armed.
    if is_ready(job) {
        return Ok(true);
    }
    let queues: Vec<_> = job.targets_mut().filter(|target| target.in_flight > 0).collect();
    let fds: Vec<BorrowedFd<'_>> =
        queues.iter().filter_map(|target| target.queue.as_ref()?.completion_fd()).collect();
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
    let limit = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    match poll(&mut polled, PollTimeout::from(limit)) {
        Ok(_) | Err(Errno::EINTR) => Ok(is_ready(job)),
        Err(error) => Err(Failure::new(error as i32, format!("waiting for an interrupt: {error}"))),
    }
}
