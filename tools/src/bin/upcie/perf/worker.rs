//! A thread that drives its queue pairs on all devices.

use super::{lane::Lane, plan::Plan, scheduled::Share, shared::Shared, tally::Tally};
use anyhow::{Context, anyhow, ensure};
use std::{mem, time::Duration};
use upcie_nvme::{QueueGroup, Wait, queue::GroupError};

/// Longest wait: requests, losses and Ctrl-C raise no interrupt and are noticed this late at most.
const LONGEST: Duration = Duration::from_millis(20);
/// Polls of the queues between two readings of the clock: while polling pays, and where the controller needs this core.
const SPINS: (u32, u32) = (512, 32);

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
    /// Waits for the queue pairs.
    pub group: QueueGroup,
    /// Longest time without a completion before a device is given up.
    pub timeout: Duration,
    /// True if the workload needs more than the plain loop: pacing, trims, several sizes, checks, a
    /// breakdown.
    pub extra: bool,
    /// CPU time of the last phase.
    pub share: Share,
    /// Number of the last interval that was handed over.
    pub given: u32,
}

/// Makes the workers of a run, with their queue pairs.
pub fn workers(plan: &Plan) -> anyhow::Result<Vec<Worker>> {
    let vectors = plan.devices.iter().map(|device| match plan.wait {
        Wait::Poll => Ok(0),
        _ => {
            let count = device.controller.vectors()?;
            ensure!(count > 0, "{}: the device has no interrupts: use --wait poll", device.controller.name());
            Ok(count)
        }
    });
    let vectors: Vec<u16> = vectors.collect::<anyhow::Result<_>>()?;
    (0..plan.threads.len()).map(|index| Worker::new(plan, index, &vectors)).collect()
}

impl Worker {
    /// Makes thread `index`. Each device has as many interrupt vectors as `vectors` says.
    fn new(plan: &Plan, index: usize, vectors: &[u16]) -> anyhow::Result<Self> {
        let mut lanes = Vec::new();
        for queue in 0..u64::from(plan.queues) {
            let pair = index as u64 * u64::from(plan.queues) + queue;
            for (place, device) in plan.devices.iter().enumerate() {
                let lane = Lane::new(plan, place, pair, vectors[place]);
                lanes.push(lane.with_context(|| device.controller.name().to_owned())?);
            }
        }
        let extra = plan.breakdown
            || plan.verify
            || plan.rate.is_some()
            || plan.mixture.rw.trims()
            || !plan.placement.is_empty()
            || plan.prinfo.is_some()
            || plan.fua
            || lanes.iter().any(|lane| lane.source.has_many());
        Ok(Self {
            index,
            core: plan.threads[index],
            lanes,
            tallies: plan.devices.iter().map(|_| Tally::new()).collect(),
            wait: plan.wait,
            group: QueueGroup::new(),
            timeout: plan.timeout,
            extra,
            share: Share::default(),
            given: 0,
        })
    }

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
            shared.handover(self.index, device).end(tally);
        }
        self.share = Share::now()?.since(before);
        Ok(())
    }

    fn drive<const EXTRA: bool>(&mut self, shared: &Shared<'_>) {
        let mut seen = shared.tick();
        let (mut spins, mut most) = (0, self.polls_per_reading());
        let mut running = self.lanes.iter().any(|lane| lane.phase.running);
        while running {
            let mut moved = false;
            for lane in &mut self.lanes {
                if !lane.phase.running || !lane.wants_turn::<EXTRA>(shared) {
                    continue;
                }
                moved = true;
                let now = shared.now();
                if let Err(error) = lane.turn::<EXTRA>(&mut self.tallies[lane.device], now, shared) {
                    lose(lane, shared, &error);
                }
            }
            if shared.tick() != seen {
                seen = shared.tick();
                self.answer_requests(shared);
                // `answer_requests` may have given queue pairs up.
                moved = true;
            }
            if moved {
                spins = 0;
                running = self.lanes.iter().any(|lane| lane.phase.running);
            } else if spins < most {
                spins += 1;
                std::hint::spin_loop();
            } else {
                spins = 0;
                self.idle(shared, seen);
                most = self.polls_per_reading();
                running = self.lanes.iter().any(|lane| lane.phase.running);
            }
        }
    }

    /// Hands over counts if they were asked for, and checks devices that complete nothing.
    #[cold]
    #[inline(never)]
    fn answer_requests(&mut self, shared: &Shared<'_>) {
        let asked = shared.asked();
        if asked != self.given {
            self.given = asked;
            for (device, tally) in self.tallies.iter_mut().enumerate() {
                let mut handover = shared.handover(self.index, device);
                handover.given = asked;
                // The collector returns a spare tally before it asks again.
                if handover.full.is_none()
                    && let Some(spare) = handover.spare.take()
                {
                    handover.full = Some(mem::replace(tally, spare));
                }
            }
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.phase.running) {
            if shared.is_stopped() || shared.loss(lane.device).is_some() {
                lane.give_up();
                continue;
            }
            // A completion that is there already is reaped by the next turn.
            if lane.quiet() >= self.timeout && !lane.queue.is_ready() {
                let error = anyhow!(
                    "queue {}: no completion within {:?} (--timeout); {}",
                    lane.queue.id(),
                    self.timeout,
                    lane.queue.diagnose()
                );
                lose(lane, shared, &error);
            }
        }
        while let Err(failed) = self.group.check(&mut self.lanes) {
            self.give_up(failed, shared);
        }
    }

    /// Returns the number of polls between two readings of the clock.
    fn polls_per_reading(&self) -> u32 {
        match self.wait {
            how if self.group.polls_freely(how) => SPINS.0,
            Wait::Poll => SPINS.1,
            _ => 0,
        }
    }

    /// Waits until a queue has a completion, an I/O is due, or the tick changes.
    #[cold]
    #[inline(never)]
    fn idle(&mut self, shared: &Shared<'_>, seen: u32) {
        let now = shared.now();
        let due = self.lanes.iter().filter_map(Lane::due).min().unwrap_or(u64::MAX);
        if due <= now {
            return;
        }
        if matches!(self.wait, Wait::Adaptive(_)) {
            self.group.set_reaped(self.lanes.iter().map(|lane| lane.reaped).sum());
        }
        let timeout = Duration::from_nanos(due - now).min(LONGEST);
        let waited = self.group.wait_unless(&mut self.lanes, self.wait, timeout, || shared.tick() != seen);
        if let Err(failed) = waited {
            self.give_up(failed, shared);
        }
    }

    /// Gives up the device of a queue pair that can't be waited for, or all devices.
    fn give_up(&mut self, failed: GroupError, shared: &Shared<'_>) {
        let (member, error) = (failed.member, anyhow::Error::from(failed.error));
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.phase.running) {
            if member.is_none_or(|member| member == index) {
                lose(lane, shared, &error);
            }
        }
    }
}

#[cold]
#[inline(never)]
fn lose(lane: &mut Lane, shared: &Shared<'_>, error: &anyhow::Error) {
    lane.give_up();
    shared.lose(lane.device, format!("{error:#}"));
}
