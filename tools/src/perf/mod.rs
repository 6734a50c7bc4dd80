//! `upcie perf`: measures a device, and checks its data.

mod plan;
mod plot;
mod progress;
mod report;
mod stats;
mod verify;
mod worker;
mod workload;

pub use plan::PerfArgs;

use crate::{cli, guard, outcome::Outcome, signal};
use anyhow::{Context, anyhow};
use plan::Plan;
use progress::Progress;
use report::Report;
use stats::Stats;
use std::{
    fs::File,
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use upcie_nvme::ControllerOptions;
use worker::{Shared, Worker};
use workload::Source;

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie perf emu                                    4 KiB random reads for 5 s, no hardware needed
  upcie perf 0000:01:00.0 --depth 128 --queues 4
  upcie perf 0000:01:00.0 --rw randrw --mix 70 --verify --size 1G
  upcie perf emu:latency=50us --wait irq --depth 1 --time 500ms
  upcie perf emu:intx=true --irq intx --queues 2
  upcie perf emu --json --plot run.svg | jq .latency_ns.p99

Latency is taken from one reading of the clock per turn of the queue: right to the length of a turn,
tens of nanoseconds for each I/O in it, which it errs by on the long side.

The JSON object (docs/perf-json.md; times in nanoseconds, sizes in bytes):
  iops, bytes_per_second, ios, bytes, elapsed_ns, errors, errors_by_status, mismatches, interrupted,
  latency_ns: { min, mean, stddev, p50, p90, p99, p99_9, p99_99, p99_999, max }, cpu_ns_per_io,
  read, write: the same of each kind, device: { model, … }, parameters: { rw, depth, … }";

/// Runs it.
pub fn run(args: &PerfArgs) -> anyhow::Result<Outcome> {
    args.check();
    if args.rw.writes() || args.verify {
        guard::check_writable(&args.target)?;
    }
    // An image that can't be written is found out before the run, not after.
    let plot = args.plot.as_ref().map(|path| {
        File::create(path).with_context(|| format!("creating {}", path.display())).map(|file| (path, file))
    });
    let plot = plot.transpose()?;
    signal::install()?;
    let options = ControllerOptions::default();
    let queues = options.queues.max(args.queues);
    let irq = args.irq.and_then(plan::IrqArg::kind);
    let options = ControllerOptions { queues, timeout: args.timeout, irq, ..options };
    let controller = args.target.open(options)?;
    let plan = Plan::new(args, &controller)?;
    let mut report = Report::new(args, &controller, &plan)?;
    // What can't be done is said before anything is shown.
    let about = || controller.name().to_owned();
    let workers = plan.workers(&controller).with_context(about)?;
    if !args.json {
        let mut text = Vec::new();
        report.print_found(&mut text)?;
        cli::print(&text)?;
    }
    let stats = measure(&plan, workers).with_context(about)?;
    report.set_results(&plan, &stats);
    // The device is left before anything else can fail.
    drop((plan, controller));
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer(&mut text, &report)?;
        writeln!(text)?;
    } else {
        report.print_results(&stats, &mut text)?;
    }
    cli::print(&text)?;
    if let Some((path, mut file)) = plot {
        file.write_all(plot::draw(&report, &stats)?.as_bytes())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(match stats.errors() {
        _ if signal::interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
        _ => Outcome::Faults,
    })
}

/// Writes what will be read, measures, and reads what was written, as far as that was asked for.
fn measure(plan: &Plan, mut workers: Vec<Worker>) -> anyhow::Result<Stats> {
    let sweep = |write| move |_: &Worker, units: u64| (Source::sweep(units, write), u64::MAX);
    let mut faults = Vec::new();
    let whole = plan.units / u64::from(plan.queues) * u64::from(plan.queues);
    if plan.verify && plan.rw.reads() {
        faults.push(phase(plan, &mut workers, Progress::counted("writing", whole), sweep(true))?);
    }
    let mut stats = {
        let progress = match plan.count {
            Some(count) => Progress::counted("running", count),
            None => Progress::timed("running", plan.time),
        };
        let until = if plan.count.is_some() { u64::MAX } else { plan.time.as_nanos() as u64 };
        phase(plan, &mut workers, progress, |worker, _| (plan.source(worker.index as u16), until))?
    };
    if plan.verify && plan.rw.writes() && !signal::interrupted() {
        faults.push(phase(plan, &mut workers, Progress::counted("checking", whole), sweep(false))?);
    }
    for fault in &faults {
        stats.add_faults(fault);
    }
    Ok(stats)
}

/// Runs all workers, each with what `work` gives for it and the number of its units, to their end.
fn phase(
    plan: &Plan,
    workers: &mut [Worker],
    progress: Progress,
    work: impl Fn(&Worker, u64) -> (Source, u64),
) -> anyhow::Result<Stats> {
    let shared = Shared::new(workers.len());
    let running = AtomicUsize::new(workers.len());
    let watcher = thread::current();
    let results: Vec<anyhow::Result<Stats>> = thread::scope(|scope| {
        let mut threads = Vec::with_capacity(workers.len());
        for worker in workers {
            let (source, until) = work(worker, plan.part(worker.index as u16).1);
            let (shared, running, watcher) = (&shared, &running, &watcher);
            let name = format!("upcie-q{}", worker.queue.id());
            let body = move || {
                // A panic must be counted, too: the watcher waits for all.
                let end = Ended { running, watcher };
                let result = worker.run(shared, source, until);
                if result.is_err() {
                    shared.fail();
                }
                drop(end);
                result
            };
            match thread::Builder::new().name(name).spawn_scoped(scope, body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.fail();
                    return vec![Err(anyhow!(error).context("starting a thread for a queue pair"))];
                }
            }
        }
        while running.load(Ordering::Acquire) > 0 {
            progress.show(&shared);
            thread::park_timeout(progress::INTERVAL);
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(anyhow!("a measuring thread panicked; the message is above")),
        };
        threads.into_iter().map(join).collect()
    });
    progress.finish();
    // Of several failures the first says the most: later ones may follow from it.
    let mut total: Option<Stats> = None;
    for result in results {
        let stats = result?;
        match &mut total {
            None => total = Some(stats),
            Some(total) => total.add(stats)?,
        }
    }
    total.ok_or_else(|| anyhow!("no queue pair ran"))
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
