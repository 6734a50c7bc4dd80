//! A thread that drives its queue pairs, of all devices.

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
use std::{
    mem, thread,
    time::{Duration, Instant},
};
use upcie_nvme::{SpinPolicy, Wait};

/// The longest sleep: so soon is something noticed that no interrupt tells of.
const PATIENCE: u64 = 20_000_000;
/// Looks at the queues before the clock is asked: while polling pays, and where the controller needs this core.
const SPINS: (u32, u32) = (512, 32);
/// A longer time between two turns is one that the wait policy is told of.
const GAP: u64 = 5_000;
/// An I/O that is due sooner is waited for without offering the core to others.
const YIELD_AFTER: u64 = 50_000;
/// How long before an I/O is due a thread that waits adaptively stops sleeping: timers are late.
const EARLY: u64 = 60_000;

/// A thread's queue pairs, and what it counts.
pub struct Worker {
    /// Its place among the workers.
    pub index: usize,
    /// Where it is pinned.
    pub core: Option<usize>,
    /// Its queue pairs, of all devices.
    pub lanes: Vec<Lane>,
    /// What was counted and not handed over, by device.
    pub tallies: Vec<Tally>,
    /// How to wait.
    pub wait: Wait,
    /// What was learned about waiting.
    pub policy: SpinPolicy,
    /// Completions that were handed over.
    pub handed: u64,
    /// How long a device may complete nothing.
    pub timeout: Duration,
    /// Whether the workload needs more than the plain loop has.
    pub extra: bool,
    /// Bytes of an I/O, if the plain loop does not count them.
    pub unit: u64,
    /// What it had of a core in the last phase.
    pub share: Share,
    /// The interval that was handed over last.
    pub given: u32,
}

impl Worker {
    /// Runs I/Os until the sources or the time (in nanoseconds) are up or an end was asked for, and waits for those in
    /// flight. A device that fails is given up, not the others.
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
                // It may have given queue pairs up.
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

    /// Does what was asked for, and looks after the devices.
    #[cold]
    #[inline(never)]
    fn look_up(&mut self, shared: &Shared<'_>) {
        let asked = shared.asked();
        if asked != self.given {
            self.given = asked;
            for (device, tally) in self.tallies.iter_mut().enumerate() {
                let mut mail = shared.mail(self.index, device);
                mail.given = asked;
                // It is asked for again only when this was fetched: there is a spare one.
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
            // What is there now is reaped by the next turn.
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

    /// Looks at the queues before the clock is asked.
    fn looks(&self) -> u32 {
        match self.wait {
            Wait::Poll if self.policy.patience() >= SpinPolicy::new().patience() => SPINS.0,
            Wait::Adaptive(_) if self.policy.polls() => SPINS.0,
            Wait::Poll => SPINS.1,
            _ => 0,
        }
    }

    /// Completions so far.
    fn done(&self) -> u64 {
        self.handed + self.tallies.iter().map(|tally| tally.ios() + tally.errors).sum::<u64>()
    }

    /// Waits until a queue has something to reap, an I/O is due, or there is something to look at.
    #[cold]
    #[inline(never)]
    fn idle(&mut self, shared: &Shared<'_>, seen: u32) {
        let start = shared.now();
        let spin = match self.wait {
            Wait::Poll => u64::MAX,
            Wait::Adaptive(spin) => self.policy.begin(Instant::now(), self.done(), spin).as_nanos() as u64,
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
            // Whoever is waited for (a software controller, above all) may be waiting for this very core.
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

    /// Sleeps until an interrupt of one of the queues, at most for `timeout` nanoseconds.
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
        // An allocation per sleep, which takes much longer.
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
            // Another queue of the vector was meant. Until its owner has reaped, INTx and MSI come again and again.
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

/// The plain loop does not count bytes: all its I/Os have as many.
fn settle(tally: &mut Tally, counted: bool, unit: u64) {
    if !counted {
        tally.bytes = [0, 1].map(|kind: usize| tally.latency[kind].len() * unit);
    }
}
