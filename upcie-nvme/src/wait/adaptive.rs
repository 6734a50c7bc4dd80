//! Decides whether polling pays: [`Wait::Adaptive`](crate::Wait::Adaptive) learns it from earlier waits.
//!
//! It learns two things, both from times alone.
//!
//! - **Poll first, or sleep at once.** A fast device, or a software controller on an idle core, completes a
//!   command sooner than a thread falls asleep. If cores are short, a polling thread takes time from others,
//!   often from the software controller that it waits for, and loses its own core in turn. So the rate of
//!   completions is measured both ways, and the better way is used. The other one is tried again now and
//!   then, less often the longer it loses. While hardly any time goes into long waits, sleeping can't be
//!   better and is not tried.
//! - **When to offer the core.** A thread that polls without result yields its core between polls after a
//!   while. It does so sooner once another thread's short turn on the core brought the completion: then the
//!   controller had been waiting for this very core.

use std::time::Duration;

/// The time for which a rate is measured.
const EPOCH: Duration = Duration::from_millis(10);
/// The pause after a change, before measuring: the system needs a moment to find other cores for the threads.
const SETTLE: Duration = Duration::from_millis(5);
/// The factor by which polling goes on for longer in that pause. Threads that take turns on one core by
/// sleeping look like one thread to the system: it gives them two cores once both want to run.
const LONGER: u32 = 25;
/// A trial of polling ends when this much time was lost, and three quarters of the trial: the thread, or the
/// controller, lost its core again and again. One busy program beside it takes a half.
const HOPELESS: Duration = Duration::from_millis(8);
/// Epochs until the other way is tried again: the first number, and the largest.
const AGAIN: (u32, u32) = (16, 128);
/// Sleeping does not shorten waits up to this: falling asleep and waking up take about as long.
const SHORT: Duration = Duration::from_micros(5);
/// Polling must be better by this factor, because it takes a core.
const BETTER: f64 = 1.05;
/// The weight of the measurements before the last epoch.
const KEPT: f64 = 0.5;
/// After polling without result for this long the core is offered to others: the smallest and the largest
/// value.
const PATIENCE: (Duration, Duration) = (Duration::from_micros(1), Duration::from_micros(50));
/// A yield counts as another thread's turn if it took at least the first; it was a controller's turn, not a
/// busy program's, if it took less than the second.
const TURN: (Duration, Duration) = (Duration::from_micros(2), Duration::from_micros(500));

/// The thing to do until a completion comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Poll,
    Sleep,
}

impl Arm {
    fn other(self) -> Self {
        match self {
            Self::Poll => Self::Sleep,
            Self::Sleep => Self::Poll,
        }
    }
}

/// Completions and the seconds that they took; older ones weigh less.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    done: f64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, done: u64, time: Duration) {
        self.done = self.done * KEPT + done as f64;
        self.seconds = self.seconds * KEPT + time.as_secs_f64();
    }

    /// Completions per second; `None` if it was never measured.
    fn get(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.done / self.seconds)
    }
}

/// A measurement: its start, the completions at that time, and the time that went into long waits.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    start: Duration,
    done: u64,
    lost: Duration,
    /// The pause after a change: not measured.
    settling: bool,
}

/// Learns whether a thread that waits should poll before it sleeps, and when to offer its core to others.
#[derive(Debug, Clone)]
pub(crate) struct SpinPolicy {
    arm: Arm,
    epoch: Option<Epoch>,
    /// The rates while polling and while sleeping.
    rates: [Rate; 2],
    /// Epochs until the other way is tried.
    left: u32,
    /// The number of epochs before the last trial.
    again: u32,
    /// This epoch tries the way that is worse, or not known yet.
    trying: bool,
    patience: Duration,
}

impl Default for SpinPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl SpinPolicy {
    /// Creates a policy that knows nothing yet: it polls first.
    pub(crate) fn new() -> Self {
        Self {
            arm: Arm::Poll,
            epoch: None,
            rates: [Rate::default(); 2],
            left: 0,
            again: AGAIN.0,
            trying: false,
            patience: PATIENCE.1,
        }
    }

    /// Returns for how long a wait that begins now polls before it sleeps: `most`, or zero, or more than
    /// `most` in the first few milliseconds of a trial. `done` counts all completions that were reaped so
    /// far.
    pub(crate) fn begin(&mut self, now: Duration, done: u64, most: Duration) -> Duration {
        match &mut self.epoch {
            None => self.measure(now, done, true),
            Some(epoch) => {
                let passed = now.saturating_sub(epoch.start);
                let unproven = self.trying || self.rates[Arm::Sleep as usize].get().is_none();
                let hopeless = epoch.lost >= HOPELESS && epoch.lost * 4 > passed * 3;
                if self.arm == Arm::Poll && unproven && hopeless {
                    let done_since = done.saturating_sub(epoch.done);
                    self.give_up(passed, done_since);
                    self.measure(now, done, true);
                } else if epoch.settling && passed >= SETTLE {
                    self.measure(now, done, false);
                } else if !epoch.settling && passed >= EPOCH {
                    let (epoch, arm) = (*epoch, self.arm);
                    self.end_epoch(epoch, passed, done.saturating_sub(epoch.done));
                    self.measure(now, done, self.arm != arm || self.trying);
                }
            }
        }
        match self.epoch {
            Some(Epoch { settling: true, .. }) if self.polls() => most.saturating_mul(LONGER),
            _ if self.polls() => most,
            _ => Duration::ZERO,
        }
    }

    /// Notes the end of a wait, and its length. You may leave out waits of a few microseconds.
    pub(crate) fn end(&mut self, waited: Duration) {
        if let Some(epoch) = &mut self.epoch {
            epoch.lost += waited.saturating_sub(SHORT);
        }
    }

    /// Returns `true` if a wait now polls before it sleeps.
    pub(crate) fn polls(&self) -> bool {
        self.arm == Arm::Poll
    }

    /// Returns `true` if offering the core soon has not helped.
    pub(crate) fn is_patient(&self) -> bool {
        self.patience >= PATIENCE.1
    }

    /// Returns the time of polling without result after which to offer the core to others (`sched_yield`)
    /// between polls.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Notes that the core was offered to others, how long that took, and whether a completion was there
    /// afterwards.
    pub(crate) fn yielded(&mut self, took: Duration, ready: bool) {
        if took >= TURN.1 {
            self.patience = PATIENCE.1;
        } else if took >= TURN.0 && ready {
            self.patience = (self.patience / 4).max(PATIENCE.0);
        }
    }

    /// Notes a completion that came while the core was not offered to others.
    #[inline]
    pub(crate) fn came_by_itself(&mut self) {
        if self.patience < PATIENCE.1 {
            self.patience = (self.patience * 2).min(PATIENCE.1);
        }
    }

    fn measure(&mut self, now: Duration, done: u64, settling: bool) {
        self.epoch = Some(Epoch { start: now, done, lost: Duration::ZERO, settling });
    }

    /// Ends a trial of polling early, and forgets the rate of polling.
    fn give_up(&mut self, passed: Duration, done: u64) {
        let polling = &mut self.rates[Arm::Poll as usize];
        *polling = Rate::default();
        polling.add(done, passed);
        self.again = (self.again * 2).min(AGAIN.1);
        (self.left, self.arm, self.trying) = (self.again, Arm::Sleep, false);
    }

    /// Decides after an epoch which way the next one goes.
    fn end_epoch(&mut self, epoch: Epoch, passed: Duration, done: u64) {
        let (arm, tried) = (self.arm, std::mem::take(&mut self.trying));
        if done == 0 {
            // No completions: the cause can't be told.
            return;
        }
        self.rates[arm as usize].add(done, passed);
        let better = match (self.rates[0].get(), self.rates[1].get()) {
            (Some(polling), Some(sleeping)) if polling > sleeping * BETTER => Arm::Poll,
            (Some(_), Some(_)) => Arm::Sleep,
            _ => arm,
        };
        if better != arm && arm == Arm::Poll && !tried {
            // The system may have put both threads on one core for a moment.
            self.trying = true;
            return;
        }
        if better != arm {
            // A trial that lost is repeated later than the last time; after a change for the worse, soon.
            self.again = if tried { (self.again * 2).min(AGAIN.1) } else { AGAIN.0 };
            (self.left, self.arm) = (self.again, better);
            return;
        }
        if tried {
            (self.again, self.left) = (AGAIN.0, AGAIN.0);
        }
        let is_quick = arm == Arm::Poll && epoch.lost * 10 < passed;
        if self.left > 0 {
            self.left -= 1;
        } else if !is_quick {
            (self.left, self.arm, self.trying) = (self.again, arm.other(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);
    const MOST: Duration = Duration::from_micros(20);

    /// A device with its completions per second while the thread polls and while it sleeps, and the part of
    /// the time that goes into long waits while it polls.
    #[derive(Clone, Copy)]
    struct Machine {
        polling: f64,
        sleeping: f64,
        lost: f64,
    }

    const IDLE: Machine = Machine { polling: 5e6, sleeping: 1e6, lost: 0.01 };
    const BUSY: Machine = Machine { polling: 2e5, sleeping: 1e6, lost: 0.6 };

    struct Run {
        policy: SpinPolicy,
        now: Duration,
        done: f64,
    }

    impl Run {
        fn new() -> Self {
            Self { policy: SpinPolicy::new(), now: Duration::ZERO, done: 0.0 }
        }

        /// Runs for `ms` milliseconds; returns the completions as a fraction of those of the better way.
        fn on(&mut self, machine: Machine, ms: u64) -> f64 {
            let (end, before) = (self.now + Duration::from_millis(ms), self.done);
            while self.now < end {
                let spins = self.policy.begin(self.now, self.done as u64, MOST) > Duration::ZERO;
                let step = 100 * US;
                self.now += step;
                if spins {
                    self.done += machine.polling * step.as_secs_f64();
                    self.policy.end(step.mul_f64(machine.lost) + SHORT);
                } else {
                    self.done += machine.sleeping * step.as_secs_f64();
                    self.policy.end(50 * US);
                }
            }
            (self.done - before) / (machine.polling.max(machine.sleeping) * ms as f64 / 1e3)
        }
    }

    #[test]
    fn polling_that_pays_continues() {
        let mut run = Run::new();
        let share = run.on(IDLE, 5000);
        assert!(share > 0.999, "{share}");
    }

    #[test]
    fn polling_that_does_not_pay_ends_soon() {
        let mut run = Run::new();
        run.on(BUSY, 30);
        assert!(!run.policy.polls());
        let share = run.on(BUSY, 5000);
        assert!(share > 0.95, "{share} of what sleeping gives");
    }

    #[test]
    fn polling_is_tried_again_and_kept_when_cores_are_idle() {
        let mut run = Run::new();
        run.on(BUSY, 5000);
        // Polling is tried every two seconds at least.
        run.on(IDLE, 2000);
        assert!(run.policy.polls());
        assert!(run.on(IDLE, 1000) > 0.95);
        run.on(BUSY, 200);
        assert!(run.on(BUSY, 2000) > 0.9);
    }

    #[test]
    fn long_waits_take_no_core() {
        // A device of 80 µs: a poll of 20 µs fails each time.
        let mut run = Run::new();
        run.on(Machine { polling: 12_000.0, sleeping: 12_000.0, lost: 0.9 }, 100);
        assert!(!run.policy.polls());
        // One of 10 µs: polling saves a third, though most of the time is waited.
        let near = Machine { polling: 95_000.0, sleeping: 66_000.0, lost: 0.5 };
        let mut run = Run::new();
        run.on(near, 100);
        assert!(run.on(near, 5000) > 0.95);
    }

    #[test]
    fn one_bad_moment_changes_nothing() {
        let mut policy = SpinPolicy::new();
        let now = Duration::ZERO;
        assert_eq!(policy.begin(now, 0, MOST), MOST * LONGER);
        assert_eq!(policy.begin(now + SETTLE, 0, MOST), MOST);
        assert_eq!(policy.begin(now, 0, Duration::MAX), Duration::MAX);
        let mut run = Run::new();
        run.on(Machine { lost: 0.5, ..IDLE }, 1000);
        assert!(run.policy.polls());
        run.on(BUSY, 11);
        run.on(IDLE, 30);
        assert!(run.policy.polls());
    }

    #[test]
    fn a_hopeless_try_is_short() {
        let mut run = Run::new();
        // Put off its core for 9 ms at once.
        run.policy.begin(run.now, 0, MOST);
        run.policy.end(Duration::from_millis(9));
        assert_eq!(run.policy.begin(run.now + Duration::from_millis(9), 10, MOST), Duration::ZERO);
        // Nor does what was good before make it come back each time.
        let mut run = Run::new();
        run.on(Machine { lost: 0.5, ..IDLE }, 1000);
        let share = run.on(BUSY, 5000);
        assert!(share > 0.97, "{share}");
    }

    #[test]
    fn a_pause_without_completions_decides_nothing() {
        let mut run = Run::new();
        run.on(BUSY, 100);
        assert!(!run.policy.polls());
        run.on(Machine { polling: 0.0, sleeping: 0.0, lost: 1.0 }, 60_000);
        run.on(BUSY, 100);
        assert!(run.on(BUSY, 1000) > 0.9);
    }

    #[test]
    fn a_controller_that_needs_the_core_gets_it_soon() {
        let mut policy = SpinPolicy::new();
        assert_eq!(policy.patience(), 50 * US);
        for _ in 0..4 {
            policy.yielded(5 * US, true);
        }
        assert_eq!(policy.patience(), US);
        // A program of somebody else's had it for its whole turn.
        policy.yielded(3000 * US, true);
        assert_eq!(policy.patience(), 50 * US);
        // Nobody wanted it.
        policy.yielded(Duration::from_nanos(300), true);
        policy.yielded(5 * US, false);
        assert_eq!(policy.patience(), 50 * US);
        policy.yielded(5 * US, true);
        policy.came_by_itself();
        policy.came_by_itself();
        assert_eq!(policy.patience(), 50 * US);
    }
}
