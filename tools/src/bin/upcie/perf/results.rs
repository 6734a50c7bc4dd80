//! Turns the counts of the workers into the report.

use super::{
    breakdown::{Breakdown, PARTS},
    latencies::histogram,
    plan::Plan,
    report::{self, Counts, Direction, Latency, Report},
    scheduled::Share,
    tally::{Faults, Tally},
    watch::Counted,
    worker::Worker,
};
use crate::signal;
use hdrhistogram::Histogram;
use std::sync::OnceLock;

/// Everything that a run counted.
pub struct Results {
    /// Counts of the measured phase.
    pub counted: Counted,
    /// The workers, which hold the faults.
    pub workers: Vec<Worker>,
    /// Reason for giving up a device, by device.
    pub lost: Vec<OnceLock<String>>,
    /// Error of printing the interval lines on stdout.
    pub printed: anyhow::Result<()>,
}

impl Report {
    /// Adds the results.
    pub fn set_results(&mut self, plan: &Plan, results: &Results) -> anyhow::Result<()> {
        let Results { counted, workers, lost, .. } = results;
        let devices = plan.devices.len();
        let elapsed = counted.span.1 - counted.span.0;
        let rw = plan.mixture.rw;
        let sum = |wanted: &dyn Fn(usize) -> bool| {
            let mut sum = Tally::new();
            let places = counted.tallies.iter().enumerate().filter(|(place, _)| wanted(*place));
            places.for_each(|(_, tally)| sum.add(tally));
            sum
        };
        let total =
            |tally: &Tally| anyhow::Ok(Direction::new(&tally.all()?, tally.bytes().iter().sum(), elapsed));
        let kind = |tally: &Tally, kind: usize| {
            anyhow::Ok(Direction::new(&tally.histogram(kind)?, tally.bytes()[kind], elapsed))
        };
        let faults = |wanted: &dyn Fn(usize) -> bool| {
            let mut sum = Faults::default();
            let lanes = workers.iter().flat_map(|worker| &worker.lanes);
            lanes.filter(|lane| wanted(lane.device)).for_each(|lane| sum.add(&lane.faults));
            report::Faults::new(&sum)
        };
        let counts = |tally: &Tally, faults: report::Faults| {
            anyhow::Ok(Counts {
                total: total(tally)?,
                read: rw.reads().then(|| kind(tally, 0)).transpose()?,
                write: rw.writes().then(|| kind(tally, 1)).transpose()?,
                trim: rw.trims().then(|| kind(tally, 1)).transpose()?,
                faults,
            })
        };
        let per_io = |cpu: u64, ios: u64| (ios > 0).then(|| cpu as f64 / ios as f64);

        self.interrupted = signal::interrupted();
        self.elapsed_ns = elapsed;
        let all = sum(&|_| true);
        self.counts = counts(&all, faults(&|_| true))?;
        let cpu = |share: &Share| share.cpu.as_nanos() as u64;
        self.cpu_ns_per_io = per_io(counted.shares.iter().map(cpu).sum(), all.ios());
        self.emulator_wait_ns = counted.emulators.map(|waited| waited.as_nanos() as u64);
        self.intervals.clone_from(&counted.intervals);
        for (place, device) in self.devices.iter_mut().enumerate() {
            let tally = sum(&|i| i % devices == place);
            device.counts = counts(&tally, faults(&|device| device == place))?;
            device.lost = lost[place].get().cloned();
            let (end, in_flight) = counted.ends[place];
            device.lost_after_ns = device.lost.as_ref().map(|_| end.saturating_sub(counted.span.0));
            device.lost_in_flight = device.lost.as_ref().map(|_| in_flight);
        }
        for (place, worker) in workers.iter().enumerate() {
            let tally = sum(&|i| i / devices == place);
            let share = &counted.shares[place];
            let cpu_ns = cpu(share);
            self.threads.push(report::Thread {
                core: worker.core,
                total: total(&tally)?,
                errors: worker.lanes.iter().map(|lane| lane.faults.count()).sum(),
                cpu_ns,
                cpu_ns_per_io: per_io(cpu_ns, tally.ios()),
                wall_ns: Some(share.wall.as_nanos() as u64),
                core_wait_ns: share.waited.map(|waited| waited.as_nanos() as u64),
            });
        }
        if plan.breakdown {
            let lanes = workers.iter().flat_map(|worker| &worker.lanes);
            let [submit, device, reap] = parts(lanes.filter_map(|lane| lane.breakdown.as_ref()))?;
            let [submit, device, reap] = [submit, device, reap].map(|part| Latency::new(&part));
            self.latency_breakdown_ns = Some(report::Breakdown { submit, device, reap });
        }
        self.problems = Some(self.find_problems());
        Ok(())
    }
}

/// Sums up the latency parts of all queue pairs.
fn parts<'a>(
    breakdowns: impl Iterator<Item = &'a Breakdown>,
) -> anyhow::Result<[Histogram<u64>; PARTS.len()]> {
    let mut sum = [histogram()?, histogram()?, histogram()?];
    for breakdown in breakdowns {
        for (sum, part) in sum.iter_mut().zip(&breakdown.parts) {
            sum.add(part)?;
        }
    }
    Ok(sum)
}
