//! The text output of `upcie perf`.

use super::{
    breakdown::PARTS,
    report::{Device, Direction, Latency, Parameters, Report},
    results::Results,
    series::Interval,
    workload::write_shares,
};
use crate::units::{self, grouped};
use std::io::{self, Write};

impl Parameters {
    /// Describes the run in one line.
    fn title(&self, devices: usize) -> String {
        let mix = self.read_percent.map_or_else(String::new, |reads| format!(" ({reads} % reads)"));
        let random = match self.random.as_deref() {
            None | Some("uniform") => String::new(),
            Some(random) => format!(" {random}"),
        };
        let mut size = String::new();
        // Writing to a string does not fail.
        let _ = write_shares(&self.block_sizes, &mut size);
        let spread = match (self.threads, self.queues) {
            (1, 1) => "1 queue pair".to_owned(),
            (1, queues) => format!("{queues} queue pairs"),
            (threads, 1) => format!("{threads} threads"),
            (threads, queues) => format!("{threads} threads with {queues} queue pairs each"),
        };
        let rate = self
            .rate
            .map_or_else(String::new, |rate| format!(", {} IOPS asked for", units::count(rate as f64)));
        let span = match (self.count, self.time_ns) {
            (Some(1), _) => "1 I/O".to_owned(),
            (Some(count), _) => format!("{} I/Os", grouped(count)),
            (None, time) => units::nanos(time.unwrap_or(0) as f64),
        };
        let verify = if self.verify { ", verified" } else { "" };
        let fua = if self.fua { ", to the media (FUA)" } else { "" };
        let on = if devices > 1 { format!(" on each of {devices} devices") } else { String::new() };
        format!(
            "{}{mix}{random}, {size}{fua} at depth {}, {spread}{on}{rate}, {}, {span}{verify}",
            self.rw, self.depth, self.wait
        )
    }
}

impl Device {
    fn print(&self, p: &Parameters, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {}, serial {}, firmware {}, NVMe {}",
            self.address, self.model, self.serial, self.firmware, self.version
        )?;
        let others = match self.namespaces.as_slice() {
            [_] => String::new(),
            all => format!(" (of {all:?})"),
        };
        let size = units::bytes(self.blocks.saturating_mul(self.block_size as u64));
        writeln!(
            out,
            "  namespace {}{others}: {size}, {} blocks of {} bytes",
            self.namespace, self.blocks, self.block_size
        )?;
        let irq = self.irq.as_ref().map_or_else(String::new, |irq| format!(", waiting for {irq}"));
        writeln!(
            out,
            "  up to {} per command (MDTS), {} queue pairs of up to {} entries{irq}",
            units::bytes(self.max_transfer as u64),
            self.queue_pairs,
            self.queue_entries
        )?;
        if self.host_memory > 0 {
            writeln!(out, "  {} of memory lent to the controller", units::bytes(self.host_memory))?;
        }
        if p.verify {
            writeln!(out, "  verified over {} from byte {} on", units::bytes(self.size), self.offset)?;
        }
        Ok(())
    }
}

impl Report {
    /// Prints the devices and the run, in a few lines.
    pub fn print_found(&self, out: &mut impl Write) -> io::Result<()> {
        self.devices.iter().try_for_each(|device| device.print(&self.parameters, out))?;
        writeln!(out, "{}", self.title())?;
        if let Some(reason) = &self.parameters.wait_reason {
            writeln!(out, "--wait {} was chosen: {reason}", self.parameters.wait)?;
        }
        if self.parameters.latency_breakdown {
            writeln!(out, "with --latency-breakdown: three more readings of the clock per I/O")?;
        }
        Ok(())
    }

    /// Describes the run in one line.
    pub fn title(&self) -> String {
        self.parameters.title(self.devices.len())
    }

    /// Names the devices in one line.
    pub fn device_line(&self) -> String {
        match self.devices.as_slice() {
            [device] => format!("{}, {}", device.address, device.model),
            devices => devices.iter().map(|device| device.address.as_str()).collect::<Vec<_>>().join(", "),
        }
    }

    /// Prints the results.
    pub fn print_results(&self, results: &Results, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        writeln!(out, "Measured for {}:", units::nanos(self.elapsed_ns as f64))?;
        for problem in self.problems() {
            writeln!(out, "! {}", problem.text)?;
        }
        self.print_totals(out)?;
        self.print_cpu(out)?;
        self.print_faults(results, out)?;
        self.print_breakdown(out)?;
        self.print_parts(out)
    }

    fn print_faults(&self, results: &Results, out: &mut impl Write) -> io::Result<()> {
        line(out, "errors", [grouped(self.counts.faults.errors)])?;
        for (name, count) in &self.counts.faults.errors_by_status {
            writeln!(out, "  {} × {name}", grouped(*count))?;
        }
        if self.counts.faults.mismatches > 0 {
            let mismatches = grouped(self.counts.faults.mismatches);
            writeln!(out, "  {mismatches} × data that differs from the last write")?;
            for lane in results.workers.iter().flat_map(|worker| &worker.lanes) {
                let several = self.devices.len() > 1;
                let name =
                    if several { format!("{}: ", self.devices[lane.device].address) } else { String::new() };
                for example in &lane.faults.examples {
                    writeln!(out, "    {name}{example}")?;
                }
            }
        }
        Ok(())
    }

    fn print_totals(&self, out: &mut impl Write) -> io::Result<()> {
        let mut columns = vec![("", &self.counts.total)];
        if let (Some(read), Some(write)) = (&self.counts.read, &self.counts.write) {
            columns = vec![("total", &self.counts.total), ("read", read), ("write", write)];
            line(out, "", columns.iter().map(|(name, _)| (*name).to_owned()))?;
        }
        let columns = columns.iter().map(|(_, direction)| direction);
        line(out, "IOPS", columns.clone().map(|d| iops(d.iops)))?;
        line(out, "MiB/s", columns.clone().map(|d| mib(d.bytes_per_second)))?;
        let latencies: Vec<_> = columns.map(|d| d.latency_ns.as_ref().map(lines)).collect();
        for (i, (name, _)) in latencies.iter().flatten().next().into_iter().flatten().enumerate() {
            let value = |lines: &Option<[(_, f64); LINES]>| {
                lines.map_or_else(|| "-".into(), |lines| units::nanos(lines[i].1))
            };
            line(out, name, latencies.iter().map(value))?;
        }
        Ok(())
    }

    fn print_cpu(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(cpu) = self.cpu_ns_per_io else { return Ok(()) };
        let all: u64 = self.threads.iter().map(|thread| thread.cpu_ns).sum();
        let busy = all as f64 * 100.0 / (self.elapsed_ns.max(1) as f64 * self.threads.len() as f64);
        let meaning = match self.parameters.wait.as_str() {
            // A busy polling thread spends all its time on polls, with or without I/Os.
            "poll" if busy >= 90.0 => "; polling never sleeps: this is time, not work",
            "poll" => "; other threads had it for the rest of the time",
            _ if self.threads.len() > 1 => " for each thread",
            _ => "",
        };
        line(out, "CPU per I/O", [units::nanos(cpu)])?;
        writeln!(out, "{:15}({busy:.0} % of a core{meaning})", "")
    }

    fn print_breakdown(&self, out: &mut impl Write) -> io::Result<()> {
        let Some(parts) = &self.latency_breakdown_ns else { return Ok(()) };
        writeln!(out, "\nlatency breakdown, with three more readings of the clock per I/O:")?;
        line(out, "", ["mean", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned))?;
        for (name, part) in PARTS.iter().zip([&parts.submit, &parts.device, &parts.reap]) {
            let Some(l) = part else { continue };
            let values = [l.mean, l.p50 as f64, l.p90 as f64, l.p99 as f64, l.p99_9 as f64, l.max as f64];
            line(out, name, values.map(units::nanos))?;
        }
        Ok(())
    }

    /// Prints a line per device and per thread, if there are several. Text of any length comes last in a
    /// line.
    fn print_parts(&self, out: &mut impl Write) -> io::Result<()> {
        if self.devices.len() < 2 && self.threads.len() < 2 {
            return Ok(());
        }
        writeln!(out)?;
        line(out, "", ["IOPS", "MiB/s", "p50", "p99", "max", "errors"].map(str::to_owned))?;
        if self.devices.len() > 1 {
            for (i, device) in self.devices.iter().enumerate() {
                let lost = if device.lost.is_some() { " (lost)" } else { "" };
                part(
                    out,
                    &format!("device {}", i + 1),
                    &device.counts.total,
                    device.counts.faults.errors,
                    |out| write!(out, "   {}{lost}", device.address),
                )?;
            }
        }
        if self.threads.len() > 1 {
            for (i, thread) in self.threads.iter().enumerate() {
                part(out, &format!("thread {}", i + 1), &thread.total, thread.errors, |out| {
                    match thread.core {
                        Some(core) => write!(out, "   on core {core}"),
                        None => Ok(()),
                    }
                })?;
            }
        }
        Ok(())
    }
}

/// Formats an interval as one line.
pub fn interval_line(interval: &Interval) -> String {
    let latency = |value: Option<u64>| value.map_or_else(|| "-".into(), |ns| units::nanos(ns as f64));
    let errors = if interval.errors > 0 { format!("   {} errors", interval.errors) } else { String::new() };
    format!(
        "{:>9.2} s {:>11} IOPS {:>10} MiB/s   p50 {:>8}   p99 {:>8}{errors}",
        interval.end_ns as f64 / 1e9,
        iops(interval.iops),
        mib(interval.bytes_per_second),
        latency(interval.p50_ns),
        latency(interval.p99_ns)
    )
}

fn part<W: Write>(
    out: &mut W,
    name: &str,
    direction: &Direction,
    errors: u64,
    rest: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    let latency = |of: fn(&Latency) -> u64| {
        direction.latency_ns.as_ref().map_or_else(|| "-".into(), |latency| units::nanos(of(latency) as f64))
    };
    let values = [
        iops(direction.iops),
        mib(direction.bytes_per_second),
        latency(|l| l.p50),
        latency(|l| l.p99),
        latency(|l| l.max),
        grouped(errors),
    ];
    cells(out, name, values)?;
    rest(out)?;
    writeln!(out)
}

/// Number of lines about latencies.
const LINES: usize = 11;

/// Returns the values that are printed of latencies, with their names.
fn lines(latency: &Latency) -> [(&'static str, f64); LINES] {
    [
        ("latency mean", latency.mean),
        ("  stddev", latency.stddev),
        ("  min", latency.min as f64),
        ("  p50", latency.p50 as f64),
        ("  p90", latency.p90 as f64),
        ("  p95", latency.p95.unwrap_or(latency.p99) as f64),
        ("  p99", latency.p99 as f64),
        ("  p99.9", latency.p99_9 as f64),
        ("  p99.99", latency.p99_99 as f64),
        ("  p99.999", latency.p99_999 as f64),
        ("  max", latency.max as f64),
    ]
}

fn iops(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { grouped(value.round() as u64) }
}

fn mib(bytes_per_second: f64) -> String {
    format!("{:.1}", bytes_per_second / f64::from(1 << 20))
}

fn line(out: &mut impl Write, name: &str, values: impl IntoIterator<Item = String>) -> io::Result<()> {
    cells(out, name, values)?;
    writeln!(out)
}

fn cells(out: &mut impl Write, name: &str, values: impl IntoIterator<Item = String>) -> io::Result<()> {
    write!(out, "{name:<13}")?;
    values.into_iter().try_for_each(|value| write!(out, "{value:>12}"))
}
