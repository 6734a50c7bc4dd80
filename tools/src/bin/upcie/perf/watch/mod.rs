//! Runs a phase: starts the threads, fetches their counts interval by interval, and shows the progress.

#[cfg(test)]
mod tests;

use super::{
    scheduled::{self, Share},
    series::{Interval, Schedule},
    shared::Shared,
    tally::Tally,
    worker::Worker,
};
use anyhow::anyhow;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Longest time between two checks of the workers, in nanoseconds.
const TICK: u64 = 100_000_000;
/// Pause between two looks at the handovers.
const GLANCE: Duration = Duration::from_micros(500);

/// Receives the events of a phase.
pub trait Watch {
    /// Called about ten times per second.
    fn look(&mut self, _shared: &Shared<'_>) {}
    /// Called at the end of an interval, with its counts.
    fn interval(&mut self, interval: &Interval, tally: &Tally);
    /// Called once for each device that was given up.
    fn lost(&mut self, device: usize, reason: &str);
}

/// Result of a phase.
pub struct Counted {
    /// Counts by worker, then by device.
    pub tallies: Vec<Tally>,
    /// First submission and last completion, on the phase's clock.
    pub span: (u64, u64),
    /// Intervals of the whole span.
    pub intervals: Vec<Interval>,
    /// CPU times of the workers.
    pub shares: Vec<Share>,
    /// Time that embedded controllers waited for a core.
    pub emulators: Option<Duration>,
    /// Time of the last completion (on the phase's clock) and I/Os in flight at that time, by device.
    pub ends: Vec<(u64, u64)>,
}

/// Runs all workers for `time` nanoseconds and collects their counts.
pub fn phase(
    workers: &mut [Worker],
    lost: &[OnceLock<String>],
    time: u64,
    schedule: Schedule,
    watch: &mut dyn Watch,
) -> anyhow::Result<Counted> {
    let shared = Shared::new(workers.len(), lost);
    let running = AtomicUsize::new(workers.len());
    let watcher = thread::current();
    let emulators = scheduled::emulators();
    let mut collector = Collector::new(workers.len(), lost, watch);
    let results: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers.len());
        for worker in workers.iter_mut() {
            let (shared, running, watcher) = (&shared, &running, &watcher);
            let name = format!("upcie-perf{}", worker.index);
            let body = move || {
                // `Ended` counts a panic as well: the watcher waits for all workers.
                let end = Ended { running, watcher };
                let result = worker.run(shared, time);
                if result.is_err() {
                    shared.stop();
                }
                drop(end);
                result
            };
            match thread::Builder::new().name(name).spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.stop();
                    return vec![Err(anyhow!(error).context("starting a thread"))];
                }
            }
        }
        let watched = collector.watch(&shared, &running, schedule);
        if watched.is_err() {
            shared.stop();
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow!("a measuring thread panicked; the message is above")),
        };
        // The first error is returned: later ones may follow from it.
        threads.into_iter().map(join).chain([watched]).collect()
    });
    results.into_iter().collect::<anyhow::Result<()>>()?;
    let emulators = scheduled::emulators().zip(emulators).map(|(now, before)| now.saturating_sub(before));
    let ends = workers.iter().flat_map(|worker| &worker.lanes).map(|lane| lane.phase.end);
    let end = ends.max().unwrap_or(shared.began());
    let mut ends = vec![(0, 0); lost.len()];
    for lane in workers.iter().flat_map(|worker| &worker.lanes) {
        let (end, in_flight) = &mut ends[lane.device];
        (*end, *in_flight) = ((*end).max(lane.phase.end), *in_flight + u64::from(lane.phase.in_flight));
    }
    let shares = workers.iter().map(|worker| worker.share).collect();
    let counted = collector.finish(&shared, end)?;
    Ok(Counted { shares, emulators, ends, ..counted })
}

/// Adds up the counts of the workers.
struct Collector<'a> {
    tallies: Vec<Tally>,
    /// Counts of the current interval.
    window: Tally,
    intervals: Vec<Interval>,
    /// Start of the current interval.
    start: u64,
    /// True for each device whose loss was reported.
    known: Vec<bool>,
    watch: &'a mut dyn Watch,
}

impl<'a> Collector<'a> {
    fn new(workers: usize, lost: &[OnceLock<String>], watch: &'a mut dyn Watch) -> Self {
        let tallies = (0..workers * lost.len()).map(|_| Tally::new()).collect();
        let known = lost.iter().map(|lost| lost.get().is_some()).collect();
        Self { tallies, window: Tally::new(), intervals: Vec::new(), start: 0, known, watch }
    }

    fn watch(
        &mut self,
        shared: &Shared<'_>,
        running: &AtomicUsize,
        mut schedule: Schedule,
    ) -> anyhow::Result<()> {
        while running.load(Ordering::Acquire) > 0 {
            // Threads take a moment to start: intervals count from the first worker's start.
            let began = shared.began();
            if began == u64::MAX {
                thread::park_timeout(GLANCE);
                continue;
            }
            let now = shared.now();
            let next = schedule.next().map_or(u64::MAX, |next| began.saturating_add(next));
            if now < next {
                thread::park_timeout(Duration::from_nanos((next - now).min(TICK)));
            }
            let now = shared.now();
            if now >= next && running.load(Ordering::Acquire) > 0 {
                if !self.fetch(shared, running)? {
                    break;
                }
                self.close(shared, now)?;
                schedule.advance(now - began);
            } else {
                shared.request_check();
            }
            self.tell_losses(shared);
            self.watch.look(shared);
        }
        self.tell_losses(shared);
        Ok(())
    }

    fn tell_losses(&mut self, shared: &Shared<'_>) {
        for (device, known) in self.known.iter_mut().enumerate() {
            if let Some(reason) = shared.loss(device).filter(|_| !*known) {
                *known = true;
                self.watch.lost(device, reason);
            }
        }
    }

    /// Ends an interval: asks for its counts and adds them up. Waits for a late thread (one that sleeps, or
    /// has no core): its counts belong to this interval, not to the next. Returns false if all workers have
    /// ended: then the interval ends with them.
    fn fetch(&mut self, shared: &Shared<'_>, running: &AtomicUsize) -> anyhow::Result<bool> {
        let number = shared.ask();
        let mut looked = shared.now();
        let mut missing: Vec<usize> = (0..self.tallies.len()).collect();
        loop {
            // A worker that panicked hands over nothing.
            let last = running.load(Ordering::Acquire) == 0;
            let mut left = Vec::new();
            for place in missing {
                let (worker, device) = (place / shared.devices(), place % shared.devices());
                let (full, given, over) = {
                    let mut handover = shared.handover(worker, device);
                    (handover.full.take(), handover.given >= number, handover.over)
                };
                if let Some(mut full) = full {
                    self.add(place, &full);
                    full.reset();
                    shared.handover(worker, device).spare = Some(full);
                }
                if !given && !over {
                    left.push(place);
                }
            }
            missing = left;
            if missing.is_empty() || last {
                let devices = shared.devices();
                let goes_on = |place| !shared.handover(place / devices, place % devices).over;
                return Ok((0..self.tallies.len()).any(goes_on));
            }
            if shared.now() - looked >= TICK {
                looked = shared.now();
                shared.request_check();
                self.tell_losses(shared);
                self.watch.look(shared);
            }
            thread::park_timeout(GLANCE);
        }
    }

    fn add(&mut self, place: usize, tally: &Tally) {
        self.tallies[place].add(tally);
        self.window.add(tally);
    }

    /// Ends the current interval.
    fn close(&mut self, shared: &Shared<'_>, now: u64) -> anyhow::Result<()> {
        // The first interval starts with the first submission, not with the threads.
        let began = shared.began().min(now);
        let start = self.start.max(began);
        let interval = Interval::new(start - began, now.max(start) - began, &self.window)?;
        self.watch.interval(&interval, &self.window);
        self.intervals.push(interval);
        self.window.reset();
        self.start = now;
        Ok(())
    }

    /// Adds the counts that the workers left when they ended; the last of them ended at `end`.
    fn finish(mut self, shared: &Shared<'_>, end: u64) -> anyhow::Result<Counted> {
        let devices = shared.devices();
        for place in 0..self.tallies.len() {
            let full = shared.handover(place / devices, place % devices).full.take();
            if let Some(full) = full {
                self.add(place, &full);
            }
        }
        let start = shared.began();
        // Drop empty intervals after the end: the loss of the last device is noticed later.
        while let [_, .., last] = self.intervals.as_slice()
            && (last.start_ns >= end.saturating_sub(start) && last.ios + last.errors == 0)
        {
            self.start = start + last.start_ns;
            self.intervals.pop();
        }
        let rest = end.saturating_sub(self.start);
        match self.intervals.last_mut() {
            // The rest is short and empty, or the last interval was closed just after the end.
            Some(last) if self.window.is_empty() && rest < (last.end_ns - last.start_ns) / 2 => {
                last.end_at(end.saturating_sub(start));
            }
            _ => self.close(shared, end)?,
        }
        let end = self.intervals.last().map_or(end, |last| start + last.end_ns);
        Ok(Counted {
            tallies: self.tallies,
            span: (start, end),
            intervals: self.intervals,
            shares: Vec::new(),
            emulators: None,
            ends: Vec::new(),
        })
    }
}

/// Decrements the number of running workers when dropped.
struct Ended<'a> {
    running: &'a AtomicUsize,
    watcher: &'a thread::Thread,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Release);
        self.watcher.unpark();
    }
}
