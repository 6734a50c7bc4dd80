//! State that the threads of a run share: the clock, requests for counts, and lost devices.

use super::tally::Tally;
use std::{
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Shared state of one phase of a run.
#[derive(Debug)]
pub struct Shared<'a> {
    epoch: Instant,
    /// Start time of the first worker.
    began: AtomicU64,
    /// Changes whenever the workers have to check for requests and for dead devices.
    tick: AtomicU32,
    /// Number of the interval that has ended; workers have to hand over their counts up to now.
    asked: AtomicU32,
    /// True if the run can't continue.
    stopped: AtomicBool,
    /// Reason for giving up a device, by device.
    lost: &'a [OnceLock<String>],
    /// Handovers by worker, then by device.
    handover: Vec<Mutex<Handover>>,
}

/// Counts that one worker hands over for one device.
#[derive(Debug)]
pub struct Handover {
    /// Counts that the collector has not fetched yet.
    pub full: Option<Tally>,
    /// Empty tally for the worker's next interval.
    pub spare: Option<Tally>,
    /// Number of the last interval that was handed over.
    pub given: u32,
    /// True if the worker has ended.
    pub over: bool,
}

impl Handover {
    /// Hands over the last counts; `tally` is empty afterwards. Both happen under one lock, so that no
    /// interval ends without these counts.
    pub fn end(&mut self, tally: &mut Tally) {
        self.over = true;
        if let Some(full) = &mut self.full {
            full.add(tally);
            tally.reset();
        } else {
            // No spare is left while the collector adds up the last tally.
            let spare = self.spare.take().unwrap_or_else(Tally::new);
            self.full = Some(mem::replace(tally, spare));
        }
    }
}

impl<'a> Shared<'a> {
    /// Starts the clock of a run with `workers` workers.
    pub fn new(workers: usize, lost: &'a [OnceLock<String>]) -> Self {
        let handover =
            |_| Mutex::new(Handover { full: None, spare: Some(Tally::new()), given: 0, over: false });
        Self {
            handover: (0..workers * lost.len()).map(handover).collect(),
            epoch: Instant::now(),
            began: AtomicU64::new(u64::MAX),
            tick: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            lost,
        }
    }

    /// Returns the nanoseconds since the clock was started.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Records the start of a worker.
    pub fn begin(&self, now: u64) {
        // The first caller wins, even if another one read the clock earlier: intervals count from this time.
        let _ = self.began.compare_exchange(u64::MAX, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the start time of the first worker; `u64::MAX` if none has started.
    pub fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// Returns a number that changes when workers have something to check.
    #[inline(always)]
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Makes the workers check for requests.
    pub fn request_check(&self) {
        self.tick.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the workers for their counts; returns the interval's number.
    pub fn ask(&self) -> u32 {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.request_check();
        number
    }

    /// Returns the number of the interval that was asked for last.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends the phase for all.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.request_check();
    }

    /// Returns true if the phase has to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Gives a device up. Only the first reason is kept: later ones may follow from it.
    pub fn lose(&self, device: usize, reason: String) {
        let _ = self.lost[device].set(reason);
        self.request_check();
    }

    /// Returns the reason for giving up the device, if it was given up.
    pub fn loss(&self, device: usize) -> Option<&str> {
        self.lost[device].get().map(String::as_str)
    }

    /// Locks the handover of a worker for a device.
    pub fn handover(&self, worker: usize, device: usize) -> MutexGuard<'_, Handover> {
        let handover = &self.handover[worker * self.lost.len() + device];
        handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of devices.
    pub fn devices(&self) -> usize {
        self.lost.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_run_starts_once() {
        let lost = [OnceLock::new()];
        let shared = Shared::new(2, &lost);
        assert_eq!(shared.began(), u64::MAX);
        shared.begin(50);
        // This worker read the clock first but arrives second; the collector may have used the first time
        // already.
        shared.begin(40);
        assert_eq!(shared.began(), 50);
    }

    #[test]
    fn the_last_counts_are_handed_over_in_every_state() {
        let counted = |ios: u64| Tally::of([ios, 0], [0; 2], 1000);
        // A tally not fetched yet; a spare; a tally fetched and not given back yet.
        for (full, spare, all) in [(Some(counted(5)), None, 7), (None, Some(counted(0)), 2), (None, None, 2)]
        {
            let mut handover = Handover { full, spare, given: 0, over: false };
            let mut tally = counted(2);
            handover.end(&mut tally);
            assert_eq!(
                (handover.full.map(|full| full.ios()), tally.ios(), handover.over),
                (Some(all), 0, true)
            );
        }
    }
}
