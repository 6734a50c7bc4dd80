//! Doorbells, completions, and the look at a controller that is silent.

use super::Queue;
use crate::{
    abi::Completion,
    errors::{Failure, Result},
    station::Station,
};
use std::{
    ffi::c_void,
    time::{Duration, Instant},
};
use upcie_nvme::{Wait, spec::CompletionEntry};

/// Calls of poll in a row that find nothing, before the controller is looked at.
const IDLE: u32 = 1024;
/// The controller of a silent queue is looked at this often.
const QUIET: Duration = Duration::from_millis(100);

impl Station {
    /// Stores completed commands, and returns their number.
    ///
    /// # Safety
    /// `completions` is valid for writes of `max`.
    #[inline(always)]
    pub(crate) unsafe fn reap(&self, completions: *mut Completion, max: usize) -> usize {
        let mut side = self.lane.completions();
        let mut count = 0;
        while count < max {
            let Some((entry, held)) = side.next() else { break };
            let completion = Completion { user: held.user().addr(), cqe: zerocopy::transmute!(entry) };
            // SAFETY: the caller's, which has room for `max`.
            unsafe { completions.wrapping_add(count).write(completion) };
            count += 1;
        }
        side.end();
        count
    }

    /// Returns the next completed command: its entry, and the program's pointer. Its slot is free.
    #[inline(always)]
    pub(crate) fn next(&self) -> Option<(CompletionEntry, *mut c_void)> {
        let mut side = self.lane.completions();
        let (entry, held) = side.next()?;
        side.end();
        Some((entry, held.user()))
    }

    /// Notes the begin of a poll, within which the queue can't be deleted.
    #[inline(always)]
    pub(crate) fn begin_poll(&self) {
        self.polls.set(self.polls.get() + 1);
    }

    /// Ends a poll that has [begun](Self::begin_poll).
    #[inline(always)]
    pub(crate) fn end_poll(&self) {
        self.polls.set(self.polls.get() - 1);
    }

    /// Notes that `count` completions were found. Returns `true` if a look at the controller is due.
    #[inline(always)]
    pub(crate) fn found(&self, count: usize) -> bool {
        if count > 0 {
            self.idle.set(0);
            return false;
        }
        let idle = self.idle.get() + 1;
        self.idle.set(idle);
        idle >= IDLE
    }
}

impl Queue {
    /// Opens a turn in place of one that found nothing for long, which tells that the controller was reset. Now and
    /// then, if commands are in flight, looks at the controller itself: that may be a message to its server.
    #[cold]
    pub(crate) fn look(&mut self) -> Result<()> {
        self.reopen()?;
        if self.station.lane.is_empty() || self.looked.elapsed() < QUIET {
            return Ok(());
        }
        let looked = self.pair().wait(Wait::Poll, Duration::ZERO);
        self.looked = Instant::now();
        self.reopen()?;
        looked?;
        Ok(())
    }

    /// Waits for the one command in flight.
    pub(crate) fn finish_one(&mut self, timeout: Duration) -> Result<CompletionEntry> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let ready = self.wait(left)?;
            if let Some((entry, _)) = self.station.next() {
                return Ok(entry);
            }
            if !ready && left.is_zero() {
                return Err(Failure::new(
                    libc::ETIMEDOUT,
                    format!(
                        "{}: a command was not completed within {timeout:?}",
                        self.controller.controller.name()
                    ),
                ));
            }
        }
    }
}
