//! What the threads of a run share: the clock, who is asked for what, and which devices were lost.

use super::tally::Tally;
use std::{
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

/// Nothing completed for so long: the device is asked whether it is there.
pub const QUIET: u64 = 100_000_000;
/// It is being asked.
const ASKING: u64 = u64::MAX;

/// Of one phase of a run.
#[derive(Debug)]
pub struct Shared<'a> {
    epoch: Instant,
    /// When the first worker began.
    began: AtomicU64,
    /// Moves on whenever the workers are to look up: at what was asked for, and after their devices.
    tick: AtomicU32,
    /// The number of the interval that is over: what was counted until now is to be handed over.
    asked: AtomicU32,
    /// The run can't go on.
    stopped: AtomicBool,
    /// Why a device was given up, by device.
    lost: &'a [OnceLock<String>],
    /// When it was last asked whether it is there, by device.
    checked: Vec<AtomicU64>,
    /// By worker, then by device.
    mail: Vec<Mutex<Mail>>,
}

/// What is handed over by one worker of one device.
#[derive(Debug)]
pub struct Mail {
    /// Counted, and not fetched yet.
    pub full: Option<Tally>,
    /// To go on with.
    pub spare: Option<Tally>,
    /// The interval that was handed over last.
    pub given: u32,
    /// Nothing more will come.
    pub over: bool,
}

impl Mail {
    /// Hands over the last of what was counted; `tally` is empty afterwards. At once, so that no interval ends without
    /// it.
    pub fn end(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.over = true;
        if let Some(full) = &mut self.full {
            full.add(tally)?;
            tally.reset();
        } else {
            // While what was handed over before is being added up there is no spare one.
            let spare = self.spare.take().map_or_else(Tally::new, Ok)?;
            self.full = Some(mem::replace(tally, spare));
        }
        Ok(())
    }
}

impl<'a> Shared<'a> {
    /// For `workers` workers; the run's clock starts.
    pub fn new(workers: usize, lost: &'a [OnceLock<String>]) -> anyhow::Result<Self> {
        let mail = |_| {
            let spare = Some(Tally::new()?);
            Ok(Mutex::new(Mail { full: None, spare, given: 0, over: false }))
        };
        Ok(Self {
            mail: (0..workers * lost.len()).map(mail).collect::<anyhow::Result<_>>()?,
            epoch: Instant::now(),
            began: AtomicU64::new(u64::MAX),
            tick: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            lost,
            checked: lost.iter().map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Nanoseconds since the clock was started.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// A worker begins.
    pub fn begin(&self, now: u64) {
        // Once and for all, though another may have read the clock before and come later: intervals count from here.
        let _ = self.began.compare_exchange(u64::MAX, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When the first one began; `u64::MAX` if none has.
    pub fn began(&self) -> u64 {
        self.began.load(Ordering::Relaxed)
    }

    /// A number that changes when there is something to look at.
    #[inline(always)]
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Makes the workers look up.
    pub fn nudge(&self) {
        self.tick.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for what was counted until now; gives the interval's number.
    pub fn ask(&self) -> u32 {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        self.nudge();
        number
    }

    /// The interval that was asked for last.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends the phase for all.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.nudge();
    }

    /// Whether it is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Gives a device up. The first reason says the most: later ones may follow from it.
    pub fn lose(&self, device: usize, reason: String) {
        let _ = self.lost[device].set(reason);
        self.nudge();
    }

    /// Why a device was given up, if it was.
    pub fn loss(&self, device: usize) -> Option<&str> {
        self.lost[device].get().map(String::as_str)
    }

    /// Whether this thread is to ask a device whether it is there: one does for all queue pairs, since a software controller
    /// answers one after the other, and one that hangs holds up who asks. [`end_check`](Self::end_check) is called then.
    pub fn begin_check(&self, device: usize) -> bool {
        let (checked, now) = (&self.checked[device], self.now());
        let last = checked.load(Ordering::Relaxed);
        now.saturating_sub(last) >= QUIET
            && checked.compare_exchange(last, ASKING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// It has answered, or not.
    pub fn end_check(&self, device: usize) {
        self.checked[device].store(self.now(), Ordering::Relaxed);
    }

    /// What a worker of a device hands over.
    pub fn mail(&self, worker: usize, device: usize) -> MutexGuard<'_, Mail> {
        let mail = &self.mail[worker * self.lost.len() + device];
        mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.lost.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_thread_asks_for_a_device_and_not_again_at_once() {
        let lost = [OnceLock::new(), OnceLock::new()];
        let mut shared = Shared::new(2, &lost).unwrap();
        shared.epoch = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        assert_eq!([0, 0, 1].map(|device| shared.begin_check(device)), [true, false, true]);
        shared.end_check(0);
        assert!(!shared.begin_check(0));
        shared.epoch -= Duration::from_nanos(QUIET);
        assert_eq!([0, 1].map(|device| shared.begin_check(device)), [true, false]);
    }

    #[test]
    fn the_clock_of_a_run_starts_once() {
        let lost = [OnceLock::new()];
        let shared = Shared::new(2, &lost).unwrap();
        assert_eq!(shared.began(), u64::MAX);
        shared.begin(50);
        // It read the clock, lost its core, and comes now: an interval may have been told by the other's time.
        shared.begin(40);
        assert_eq!(shared.began(), 50);
    }

    #[test]
    fn the_last_counts_are_handed_over_whatever_the_collector_is_at() {
        let counted = |ios: u64| {
            let mut tally = Tally::new().unwrap();
            tally.latency[0].record_n(1000, ios).unwrap();
            tally
        };
        // Handed over and not fetched; nothing on its way; fetched, and its tally not given back.
        for (full, spare, all) in [(Some(counted(5)), None, 7), (None, Some(counted(0)), 2), (None, None, 2)]
        {
            let mut mail = Mail { full, spare, given: 0, over: false };
            let mut tally = counted(2);
            mail.end(&mut tally).unwrap();
            assert_eq!((mail.full.map(|full| full.ios()), tally.ios(), mail.over), (Some(all), 0, true));
        }
    }
}
