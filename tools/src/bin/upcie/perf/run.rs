//! Runs the phases: a write pass, the warm-up, the measurement and a read pass, as the options ask for.

use super::{
    histogram::Log,
    lane::Lane,
    plan::Plan,
    print::interval_line,
    progress::Progress,
    results::Results,
    series::{Interval, Schedule},
    shared::Shared,
    tally::Tally,
    watch::{Counted, Watch, phase},
    worker::Worker,
    workload::Source,
};
use crate::{cli, signal};
use std::{mem, sync::OnceLock, time::Duration};
use upcie_tools::log;

/// The stream that gets a line for each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// None gets lines.
    None,
    /// Standard output, in place of the bar; an error ends the run.
    Stdout,
    /// Standard error; errors are ignored.
    Stderr,
}

/// Outputs during the measurement.
pub struct Outputs<'a> {
    /// Lines for intervals.
    pub lines: Lines,
    /// Length of an interval, with `--interval`.
    pub interval: Option<Duration>,
    /// The histogram log, with `--histogram`.
    pub log: Option<&'a mut dyn Log>,
}

/// Runs all phases.
pub fn measure(plan: &Plan, mut workers: Vec<Worker>, outputs: Outputs<'_>) -> anyhow::Result<Results> {
    let lost: Vec<OnceLock<String>> = plan.devices.iter().map(|_| OnceLock::new()).collect();
    let rw = plan.mixture.rw;
    let goes_on = || !signal::interrupted() && lost.iter().any(|lost| lost.get().is_none());
    if plan.verify && rw.reads() {
        sweep(plan, &mut workers, &lost, true)?;
    }
    if let Some(time) = plan.warmup
        && goes_on()
    {
        let progress = Progress::timed("warming up", time);
        let schedule = Schedule::new(None, Some(ns(time)));
        phase(&mut workers, &lost, ns(time), schedule, &mut PhaseDisplay::new(plan, progress))?;
        lanes(&mut workers)
            .filter_map(|lane| lane.breakdown.as_mut())
            .for_each(|breakdown| breakdown.reset());
    }
    for (index, lane) in (0..).zip(lanes(&mut workers)) {
        lane.source.limit(plan.share(index));
    }
    let (progress, until) = match plan.count {
        Some(count) => (Progress::counted("running", count), None),
        None => (Progress::timed("running", plan.time), Some(ns(plan.time))),
    };
    let mut display = PhaseDisplay::new(plan, progress);
    display.lines = outputs.lines;
    display.log = outputs.log;
    if outputs.lines == Lines::Stdout {
        display.progress.hide();
    }
    let schedule = Schedule::new(outputs.interval.map(ns), until);
    let counted = phase(&mut workers, &lost, until.unwrap_or(u64::MAX), schedule, &mut display)?;
    let printed = mem::replace(&mut display.printed, Ok(()));
    drop(display);
    if plan.verify && rw.writes() && goes_on() && printed.is_ok() {
        sweep(plan, &mut workers, &lost, false)?;
    }
    Ok(Results { counted, workers, lost, printed })
}

/// Writes or reads the range once.
fn sweep(
    plan: &Plan,
    workers: &mut [Worker],
    lost: &[OnceLock<String>],
    write: bool,
) -> anyhow::Result<Counted> {
    let mut kept = Vec::new();
    // The pass runs without a rate, and with the one block size that --verify allows.
    for lane in lanes(workers) {
        let each = plan.mixture.sizes.largest() / lane.namespace.block_size() as u64;
        let source = Source::sweep(lane.blocks, each, write);
        kept.push((mem::replace(&mut lane.source, source), lane.pace.take()));
    }
    let what = if write { "writing" } else { "checking" };
    let progress = Progress::counted(what, plan.places());
    let counted =
        phase(workers, lost, u64::MAX, Schedule::new(None, None), &mut PhaseDisplay::new(plan, progress));
    for (lane, kept) in lanes(workers).zip(kept) {
        (lane.source, lane.pace) = kept;
    }
    counted
}

/// Lists all queue pairs by number: by thread, then queue, then device.
fn lanes(workers: &mut [Worker]) -> impl Iterator<Item = &mut Lane> {
    workers.iter_mut().flat_map(|worker| &mut worker.lanes)
}

fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// Shows a phase to the user.
struct PhaseDisplay<'a, 'l> {
    progress: Progress,
    names: Vec<&'a str>,
    /// Number of devices that are not lost.
    left: usize,
    lines: Lines,
    /// Error of printing lines on stdout; it ends the phase.
    printed: anyhow::Result<()>,
    log: Option<&'l mut dyn Log>,
}

impl<'a> PhaseDisplay<'a, '_> {
    fn new(plan: &'a Plan, progress: Progress) -> Self {
        let names: Vec<_> = plan.devices.iter().map(|device| device.controller.name()).collect();
        Self { progress, left: names.len(), names, lines: Lines::None, printed: Ok(()), log: None }
    }
}

impl Watch for PhaseDisplay<'_, '_> {
    fn look(&mut self, shared: &Shared<'_>) {
        self.left = (0..self.names.len()).filter(|&device| shared.loss(device).is_none()).count();
        self.progress.show(shared);
        if self.printed.is_err() {
            shared.stop();
        }
    }

    fn interval(&mut self, interval: &Interval, tally: &Tally) {
        self.progress.add(interval, tally);
        match self.lines {
            Lines::Stdout if self.printed.is_ok() => {
                self.printed = cli::print(format!("{}\n", interval_line(interval)).as_bytes());
            }
            Lines::Stderr => self.progress.message(&interval_line(interval)),
            Lines::Stdout | Lines::None => {}
        }
        if let Some(log) = &mut self.log {
            log.push(interval, tally);
        }
    }

    fn lost(&mut self, device: usize, reason: &str) {
        let name = self.names[device];
        self.left = self.left.saturating_sub(1);
        let others = match self.left {
            0 => "",
            1 => "; the other device goes on",
            _ => "; the other devices go on",
        };
        // Errors of the driver name the device already.
        let name = if reason.starts_with(name) { String::new() } else { format!("{name}: ") };
        // The driver would report the consequences when the device is closed.
        log::silence();
        self.progress.message(&format!("upcie: {name}{reason}{others}"));
    }
}

impl Drop for PhaseDisplay<'_, '_> {
    fn drop(&mut self) {
        self.progress.finish();
    }
}
