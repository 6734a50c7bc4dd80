//! A thread that drives its queue pairs on all devices.

use super::{
    lane::Lane,
    scheduled::Share,
    shared::{QUIET, Shared},
    tally::Tally,
};
use anyhow::anyhow;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
};
use std::{mem, thread, time::Duration};
use upcie_nvme::{SpinPolicy, Wait};

/// Longest sleep, in nanoseconds: requests and losses raise no interrupt and are noticed this late at most.
const PATIENCE: u64 = 20_000_000;
/// Polls of the queues between two readings of the clock: while polling pays, and where the controller needs this core.
const SPINS: (u32, u32) = (512, 32);
/// A pause between two turns that is longer (in nanoseconds) is reported to the wait policy.
const GAP: u64 = 5_000;
/// The thread does not yield its core if the next I/O is due sooner than this (in nanoseconds).
const YIELD_AFTER: u64 = 50_000;
/// An adaptive wait stops sleeping this long (in nanoseconds) before the next I/O is due, because timers are late.
const EARLY: u64 = 60_000;

/// A thread's queue pairs and counts.
pub struct Worker {
    /// Index among the workers.
    pub index: usize,
    /// Core that the thread is pinned to.
    pub core: Option<usize>,
    /// Queue pairs on all devices.
    pub lanes: Vec<Lane>,
    /// Counts that were not handed over yet, by device.
    pub tallies: Vec<Tally>,
    /// Wait mode.
    pub wait: Wait,
    /// Measurements that decide between polling and sleeping.
    pub policy: SpinPolicy,
    /// Number of completions that were handed over.
    pub handed: u64,
    /// Longest time without a completion before a device is given up.
    pub timeout: Duration,
    /// True if the workload needs more than the plain loop: pacing, trims, several sizes, a breakdown.
    pub extra: bool,
    /// Bytes of each I/O of the plain loop, which does not count bytes.
    pub unit: u64,
    /// CPU time of the last phase.
    pub share: Share,
    /// Number of the last interval that was handed over.
    pub given: u32,
}

impl Worker {
    /// Runs I/Os until the sources are empty, `time` nanoseconds have passed or an end was asked for; then waits for the
    /// I/Os in flight. Gives up a device that fails, and goes on with the others.
    pub fn run(&mut self, shared: &Shared<'_>, time: u64) -> anyhow::Result<()> {
        if let Some(core) = self.core {
            super::cores::pin(core)?;
        }
        let before = Share::now()?;
        let now = shared.now();
        self.given = 0;
        shared.begin(now);
        for lane in &mut self.lanes {
            lane.start(now, now.saturating_add(time));
            if shared.loss(lane.device).is_some() {
                lane.give_up();
            }
        }
        if self.extra {
            self.drive::<true>(shared);
        } else {
            self.drive::<false>(shared);
        }
        for (tally, device) in self.tallies.iter_mut().zip(0..) {
            settle(tally, self.extra, self.unit);
            shared.mail(self.index, device).end(tally)?;
        }
        self.share = Share::now()?.since(before);
        Ok(())
    }

    fn drive<const EXTRA: bool>(&mut self, shared: &Shared<'_>) {
        let mut seen = shared.tick();
        let (mut spins, mut most) = (0, self.looks());
        let mut last = shared.now();
        let mut running = self.lanes.iter().any(|lane| lane.at.running);
        while running {
            let mut moved = false;
            for lane in &mut self.lanes {
                if !lane.at.running || !lane.wants_turn::<EXTRA>(shared) {
                    continue;
                }
                moved = true;
                let now = shared.now();
                if now - last > GAP {
                    self.policy.end(Duration::from_nanos(now - last));
                }
                last = now;
                if let Err(error) = lane.turn::<EXTRA>(&mut self.tallies[lane.device], now, shared) {
                    lose(lane, shared, &error);
                }
            }
            if shared.tick() != seen {
                seen = shared.tick();
                self.look_up(shared);
                // `look_up` may have given queue pairs up.
                moved = true;
            }
            if moved {
                spins = 0;
                running = self.lanes.iter().any(|lane| lane.at.running);
            } else if spins < most {
                spins += 1;
                std::hint::spin_loop();
            } else {
                spins = 0;
                self.idle(shared, seen);
                most = self.looks();
                running = self.lanes.iter().any(|lane| lane.at.running);
            }
        }
    }

    /// Hands over counts if they were asked for, and checks devices that complete nothing.
    #[cold]
    #[inline(never)]
    fn look_up(&mut self, shared: &Shared<'_>) {
        let asked = shared.asked();
        if asked != self.given {
            self.given = asked;
            for (device, tally) in self.tallies.iter_mut().enumerate() {
                let mut mail = shared.mail(self.index, device);
                mail.given = asked;
                // The collector returns a spare tally before it asks again.
                if mail.full.is_none()
                    && let Some(spare) = mail.spare.take()
                {
                    let mut full = mem::replace(tally, spare);
                    settle(&mut full, self.extra, self.unit);
                    self.handed += full.ios() + full.errors;
                    mail.full = Some(full);
                }
            }
        }
        let now = shared.now();
        for lane in self.lanes.iter_mut().filter(|lane| lane.at.running) {
            if shared.is_stopped() || shared.loss(lane.device).is_some() {
                lane.give_up();
                continue;
            }
            let quiet = lane.quiet(now);
            // A completion that is there already is reaped by the next turn.
            if Duration::from_nanos(quiet) >= self.timeout && !lane.queue.is_ready() {
                let error = anyhow!(
                    "queue {}: no completion within {:?} (--timeout); {}",
                    lane.queue.id(),
                    self.timeout,
                    lane.queue.diagnose()
                );
                lose(lane, shared, &error);
            } else if quiet >= QUIET && shared.begin_check(lane.device) {
                let there = lane.queue.wait(Wait::Poll, Duration::ZERO);
                shared.end_check(lane.device);
                if let Err(error) = there {
                    lose(lane, shared, &error.into());
                }
            }
        }
    }

    /// Returns the number of polls between two readings of the clock.
    fn looks(&self) -> u32 {
        match self.wait {
            Wait::Poll if self.policy.patience() >= SpinPolicy::new().patience() => SPINS.0,
            Wait::Adaptive(_) if self.policy.polls() => SPINS.0,
            Wait::Poll => SPINS.1,
            _ => 0,
        }
    }

    /// Returns the number of completions so far.
    fn done(&self) -> u64 {
        self.handed + self.tallies.iter().map(|tally| tally.ios() + tally.errors).sum::<u64>()
    }

    /// Waits until a queue has a completion, an I/O is due, or the tick changes.
    #[cold]
    #[inline(never)]
    fn idle(&mut self, shared: &Shared<'_>, seen: u32) {
        let start = shared.now();
        let spin = match self.wait {
            Wait::Poll => u64::MAX,
            Wait::Adaptive(spin) => {
                self.policy.begin(Duration::from_nanos(start), self.done(), spin).as_nanos() as u64
            }
            _ => 0,
        };
        let early = if matches!(self.wait, Wait::Adaptive(_)) { EARLY } else { 0 };
        let patience = self.policy.patience().as_nanos() as u64;
        loop {
            let now = shared.now();
            let due = self.lanes.iter().filter_map(Lane::due).min().unwrap_or(u64::MAX);
            if due <= now || shared.tick() != seen {
                return;
            }
            if now - start >= spin && due - now > early {
                return self.sleep(shared, (due - now - early).min(PATIENCE));
            }
            for _ in 0..64 {
                if self.is_ready() {
                    self.policy.came_by_itself();
                    return;
                }
                std::hint::spin_loop();
            }
            // A software controller may be waiting for this very core.
            if now - start >= patience && due - now > YIELD_AFTER {
                let before = shared.now();
                thread::yield_now();
                let ready = self.is_ready();
                self.policy.yielded(Duration::from_nanos(shared.now() - before), ready);
                if ready {
                    return;
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.lanes.iter().any(|lane| lane.at.running && lane.queue.is_ready())
    }

    /// Sleeps until one of the queues has an interrupt, for `timeout` nanoseconds at most.
    fn sleep(&mut self, shared: &Shared<'_>, timeout: u64) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.at.running) {
            if let Err(error) = lane.queue.arm() {
                lose(lane, shared, &error.into());
            }
        }
        if self.is_ready() {
            return;
        }
        let running = self.lanes.iter().filter(|lane| lane.at.running);
        let descriptors = running.filter_map(|lane| lane.queue.completion_fd());
        // The allocation is cheap compared with the sleep.
        let mut events: Vec<_> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let woken = match ppoll(&mut events, Some(Duration::from_nanos(timeout).into()), None) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            Err(error) => {
                drop(events);
                let error = anyhow::Error::from(error).context("waiting for interrupts");
                for lane in self.lanes.iter_mut().filter(|lane| lane.at.running) {
                    lose(lane, shared, &error);
                }
                return;
            }
        };
        if woken && !self.is_ready() {
            // The interrupt was for another queue of the vector. INTx and MSI repeat it until that queue is reaped.
            thread::yield_now();
        }
    }
}

#[cold]
#[inline(never)]
fn lose(lane: &mut Lane, shared: &Shared<'_>, error: &anyhow::Error) {
    lane.give_up();
    shared.lose(lane.device, format!("{error:#}"));
}

/// Computes the bytes of the plain loop, whose I/Os all have one size.
fn settle(tally: &mut Tally, counted: bool, unit: u64) {
    if !counted {
        tally.bytes = [0, 1].map(|kind: usize| tally.latency[kind].len() * unit);
    }
}
