//! Runs a phase: starts the threads, fetches what they count, interval by interval, and shows how it goes.

use super::{
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

/// The longest that the workers are left alone.
const TICK: u64 = 100_000_000;
/// The longest that a worker is waited for at the end of an interval.
const HANDOVER: u64 = 30_000_000;
/// Between looks for it.
const GLANCE: Duration = Duration::from_micros(500);

/// What a phase is told of as it goes.
pub trait Watch {
    /// Every tenth of a second or so.
    fn look(&mut self, _shared: &Shared<'_>) {}
    /// An interval is over, with what was counted in it.
    fn interval(&mut self, interval: &Interval, tally: &Tally);
    /// A device was given up.
    fn lost(&mut self, device: usize, reason: &str);
}

/// What a phase came to.
pub struct Counted {
    /// By worker, then by device.
    pub tallies: Vec<Tally>,
    /// From the first submission to the last completion, on the phase's clock.
    pub span: (u64, u64),
    /// All that was in between.
    pub intervals: Vec<Interval>,
    /// CPU time in nanoseconds, by worker.
    pub cpu: Vec<u64>,
}

/// Runs all workers to their end: `time` nanoseconds after they have started.
pub fn phase(
    workers: &mut [Worker],
    lost: &[OnceLock<String>],
    time: u64,
    schedule: Schedule,
    watch: &mut dyn Watch,
) -> anyhow::Result<Counted> {
    let shared = Shared::new(workers.len(), lost)?;
    let running = AtomicUsize::new(workers.len());
    let watcher = thread::current();
    let tallies = (0..workers.len() * lost.len()).map(|_| Tally::new()).collect::<Result<_, _>>()?;
    let known = lost.iter().map(|lost| lost.get().is_some()).collect();
    let window = Tally::new()?;
    let mut collector = Collector { tallies, window, intervals: Vec::new(), start: 0, known, watch };
    let results: Vec<anyhow::Result<()>> = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers.len());
        for worker in workers.iter_mut() {
            let (shared, running, watcher) = (&shared, &running, &watcher);
            let name = format!("upcie-perf{}", worker.index);
            let body = move || {
                // A panic must be counted, too: the watcher waits for all.
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
        // What failed first says the most.
        threads.into_iter().map(join).chain([watched]).collect()
    });
    results.into_iter().collect::<anyhow::Result<()>>()?;
    collector.finish(&shared, workers)
}

/// Puts together what is handed over.
struct Collector<'a> {
    tallies: Vec<Tally>,
    /// Of the interval that has begun.
    window: Tally,
    intervals: Vec<Interval>,
    /// When it began.
    start: u64,
    /// Which losses were told.
    known: Vec<bool>,
    watch: &'a mut dyn Watch,
}

impl Collector<'_> {
    fn watch(
        &mut self,
        shared: &Shared<'_>,
        running: &AtomicUsize,
        mut schedule: Schedule,
    ) -> anyhow::Result<()> {
        while running.load(Ordering::Acquire) > 0 {
            // Threads take a moment to start: intervals count from when the first has.
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
                let number = shared.ask();
                self.fetch(shared, number)?;
                self.close(shared, now)?;
                schedule.advance(now - began);
            } else {
                shared.nudge();
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

    /// Takes what the workers hand over for an interval.
    fn fetch(&mut self, shared: &Shared<'_>, number: u32) -> anyhow::Result<()> {
        let start = shared.now();
        let mut missing: Vec<usize> = (0..self.tallies.len()).collect();
        while !missing.is_empty() && shared.now() - start < HANDOVER {
            let mut left = Vec::new();
            for place in missing {
                let (worker, device) = (place / shared.devices(), place % shared.devices());
                let (full, done) = {
                    let mut mail = shared.mail(worker, device);
                    (mail.full.take(), mail.over || mail.given >= number)
                };
                if let Some(mut full) = full {
                    self.add(place, &full)?;
                    full.reset();
                    shared.mail(worker, device).spare = Some(full);
                }
                if !done {
                    left.push(place);
                }
            }
            missing = left;
            if !missing.is_empty() {
                thread::park_timeout(GLANCE);
            }
        }
        Ok(())
    }

    fn add(&mut self, place: usize, tally: &Tally) -> anyhow::Result<()> {
        self.tallies[place].add(tally)?;
        self.window.add(tally)
    }

    /// Ends the interval that has begun.
    fn close(&mut self, shared: &Shared<'_>, now: u64) -> anyhow::Result<()> {
        // From the first submission on, and not from when the threads were started.
        let began = shared.began().min(now);
        let start = self.start.max(began);
        let interval = Interval::new(start - began, now.max(start) - began, &self.window)?;
        self.watch.interval(&interval, &self.window);
        self.intervals.push(interval);
        self.window.reset();
        self.start = now;
        Ok(())
    }

    /// Adds what the workers still have.
    fn finish(mut self, shared: &Shared<'_>, workers: &[Worker]) -> anyhow::Result<Counted> {
        let devices = shared.devices();
        for i in 0..workers.len() {
            for device in 0..devices {
                let full = shared.mail(i, device).full.take();
                if let Some(full) = full {
                    self.add(i * devices + device, &full)?;
                }
            }
        }
        let at = || workers.iter().flat_map(|worker| &worker.lanes).map(|lane| lane.at);
        let start = shared.began();
        let end = at().map(|at| at.end).max().unwrap_or(start);
        if self.window.ios() + self.window.errors > 0 || self.intervals.is_empty() {
            self.close(shared, end)?;
        }
        // One that was closed just after the end.
        if let Some(last) = self.intervals.last_mut() {
            last.end_by(end.saturating_sub(start));
        }
        let cpu = workers.iter().map(|worker| worker.cpu.as_nanos() as u64).collect();
        Ok(Counted { tallies: self.tallies, span: (start, end), intervals: self.intervals, cpu })
    }
}

/// Counts a worker off when dropped.
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
