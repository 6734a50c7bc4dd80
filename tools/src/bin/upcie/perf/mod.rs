//! `upcie perf`: measures devices and verifies their data.

mod args;
mod breakdown;
mod choice;
mod cores;
mod histogram;
mod host;
mod lane;
mod latencies;
mod memory;
mod pace;
mod places;
mod plan;
mod print;
pub mod problems;
mod progress;
pub mod random;
pub mod report;
mod results;
mod run;
mod scheduled;
pub mod series;
mod shared;
mod tag;
mod tally;
pub mod verify;
mod watch;
mod worker;
mod workload;

pub use args::PerfArgs;

use crate::{
    cli,
    files::{self, Output, Place, Use},
    outcome::Outcome,
    plot, signal, target,
};
use anyhow::{Context, anyhow};
use histogram::LogFile;
use plan::Plan;
use report::Report;
use run::{Lines, Outputs};
use std::{
    io::{self, IsTerminal, Write},
    mem,
    path::PathBuf,
};
use upcie_nvme::Controller;

/// Returns the text below the options of `--help`.
pub fn help_end() -> String {
    format!("{NOTES}\n\n{}\n\n{EXAMPLES}", target::ADDRESSES)
}

const NOTES: &str = "\
Every thread has --queues queue pairs on every device. Each queue pair has --depth I/Os in flight,
and a part of the range to itself. The clock is read once per turn of a queue: a latency is too
long by at most the length of a turn, tens of nanoseconds for each I/O in it. With --rate a latency
counts from the scheduled start of the I/O, even if it started late. Options of fio and xnvmeperf
work by their names as well: --rwmixread, --bssplit, --size, --qdepth, --iosize, --cpumask.

The JSON object (docs/perf-json.md; times in nanoseconds, sizes in bytes; `upcie plot` draws it):
  iops, bytes_per_second, ios, bytes, elapsed_ns, errors, errors_by_status, mismatches, interrupted,
  problems: [ { kind, text } ], host: { name, kernel, cpu, started, … },
  latency_ns: { min, mean, stddev, p50, p90, p95, p99, p99_9, p99_99, p99_999, max, curve },
  cpu_ns_per_io, latency_breakdown_ns, read, write: the same of each kind,
  parameters: { rw, depth, … }, devices: [ … ], threads: [ … ], intervals: [ … ]";

const EXAMPLES: &str = "\
Examples:
  upcie perf emu                                    4 KiB random reads for 5 s, no hardware needed
  upcie perf 0000:01:00.0 --depth 128 --queues 4
  upcie perf 0000:01:00.0 0000:02:00.0 --cores 2-3  two devices, each driven by both threads
  upcie perf 0000:01:00.0 --rate 50k --warmup 10 --time 60 --interval 1
  upcie perf 0000:01:00.0 --rw randrw --mix 70 --block-size 4k:60,64k:40 --destructive
  upcie perf 0000:01:00.0 --rw randrw --verify --length 1G --destructive
  upcie perf emu:latency=50us --wait irq --depth 1 --time 500ms --latency-breakdown
  upcie perf emu --json --plot run.svg --histogram run.hlog | jq .latency_ns.p99";

/// Runs `upcie perf`.
pub fn run(args: &PerfArgs) -> anyhow::Result<Outcome> {
    args.check();
    files::check_distinct(&uses(args))?;
    files::check_stream_unlocked(Place::Stdout)?;
    if let Some(what) = args.overwrites() {
        for target in args.targets() {
            args.consent.check(&target, args.namespace, &what)?;
        }
    }
    if let Some(cores) = args.pinned() {
        cores::check(&cores.0)?;
    }
    // Open the files before the run: an error must not cost its results. Their old contents stay until there
    // is new content.
    let plot = args.plot.as_deref().map(Output::open).transpose()?;
    let log = args.histogram.as_deref().map(Output::open).transpose()?.map(LogFile);
    signal::install()?;
    let core_times = (args.wait == args::WaitKind::Auto).then(choice::CoreTimes::now).flatten();
    let plan = Plan::new(args, open(args)?, core_times.as_ref())?;
    memory::check(&plan)?;
    let mut report = Report::new(args, &plan)?;
    // Make the queue pairs before anything is printed: they may fail.
    let workers = worker::workers(&plan)?;
    if !args.json {
        let mut text = Vec::new();
        report.print_found(&mut text)?;
        cli::print(&text)?;
    }
    let lines = match (args.interval, args.json) {
        (Some(_), false) => Lines::Stdout,
        // A terminal has the bar.
        (Some(_), true) if !io::stderr().is_terminal() => Lines::Stderr,
        _ => Lines::None,
    };
    let kinds = plan.mixture.rw.reads() && plan.mixture.rw.writes();
    let (mut results, logged) = match log {
        None => {
            (run::measure(&plan, workers, Outputs { lines, interval: args.interval, log: None })?, Ok(()))
        }
        Some(file) => {
            let title = format!("{} on {}", report.title(), report.device_line());
            file.write(&title, kinds, |log| {
                run::measure(&plan, workers, Outputs { lines, interval: args.interval, log: Some(log) })
            })?
        }
    };
    report.set_results(&plan, &results)?;
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer(&mut text, &report)?;
        writeln!(text)?;
    } else {
        report.print_results(&results, &mut text)?;
    }
    let printed_lines = mem::replace(&mut results.printed, Ok(()));
    // Close the devices before anything else can fail.
    drop((results, plan));
    let printed = printed_lines.and_then(|()| cli::print(&text));
    let drawn = plot.map_or(Ok(()), |file| draw(&report, file));
    // One failed output does not stop the others.
    let failed = [logged, drawn, printed].into_iter().filter_map(Result::err);
    let all = |one: anyhow::Error, other| match cli::is_broken_pipe(&other) {
        true => one,
        false => anyhow!("{one:#}; {other:#}"),
    };
    if let Some(error) = failed.reduce(all) {
        return Err(error);
    }
    let lost = report.devices.iter().any(|device| device.lost.is_some());
    Ok(match report.counts.faults.errors {
        _ if lost => Outcome::Lost,
        1.. => Outcome::Faults,
        0 if signal::interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
    })
}

fn draw(report: &Report, mut file: Output) -> anyhow::Result<()> {
    let svg = plot::draw(report)?;
    file.write_all(svg.as_bytes()).with_context(|| format!("writing {}", file.name()))
}

/// Lists the files that a run reads or writes.
fn uses(args: &PerfArgs) -> Vec<Use> {
    let named = |option: &str, path: &Option<PathBuf>| {
        path.as_deref().map(|path| Use::writes(format!("{option} {}", path.display()), Place::output(path)))
    };
    let outputs = named("--plot", &args.plot).into_iter().chain(named("--histogram", &args.histogram));
    let stdout = Use::writes("stdout, which has the results,", Place::Stdout);
    let media = args.targets().filter_map(|target| Use::media(&target, false)).collect::<Vec<_>>();
    outputs.chain([stdout]).chain(media).collect()
}

/// Queue pairs that are requested at least, as other programs do by default.
const MIN_QUEUES: u16 = 64;

/// Opens the devices.
fn open(args: &PerfArgs) -> anyhow::Result<Vec<Controller>> {
    let pairs = args.threads().len().saturating_mul(args.queues.into());
    let queues = u16::try_from(pairs).unwrap_or(u16::MAX).max(MIN_QUEUES);
    let irq = args.irq.and_then(args::IrqArg::kind);
    let pages = args.buffers.pages();
    let lists = target::Lists { sgl: args.sgl };
    let options = lists.builder().queues(queues).timeout(args.timeout).irq(irq).pages(pages);
    let open = |target: target::Target| {
        let controller = target.open(options.clone())?;
        if let Some(most) = args.host_memory {
            controller.lend_host_memory(usize::try_from(most)?)?;
        }
        Ok(controller)
    };
    args.targets().map(open).collect()
}
