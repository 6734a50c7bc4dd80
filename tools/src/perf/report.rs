//! What `upcie perf` says: for people, and as JSON (`docs/perf-json.md`).

use super::{
    plan::{PerfArgs, Plan},
    stats::Stats,
};
use crate::{signal, units};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};
use upcie_nvme::Controller;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    device: Device,
    parameters: Parameters,
    interrupted: bool,
    elapsed_ns: u64,
    cpu_ns_per_io: Option<f64>,
    errors: u64,
    errors_by_status: BTreeMap<String, u64>,
    mismatches: u64,
    #[serde(flatten)]
    total: Direction,
    read: Option<Direction>,
    write: Option<Direction>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Device {
    address: String,
    model: String,
    serial: String,
    firmware: String,
    version: String,
    namespaces: Vec<u32>,
    namespace: u32,
    blocks: u64,
    block_size: usize,
    max_transfer: usize,
    queue_pairs: u16,
    queue_entries: u32,
}

/// What was run.
#[derive(Debug, Serialize)]
struct Parameters {
    rw: &'static str,
    read_percent: Option<u8>,
    block_size: u64,
    depth: u32,
    queues: u16,
    time_ns: Option<u64>,
    count: Option<u64>,
    wait: &'static str,
    spin_ns: Option<u64>,
    irq: Option<&'static str>,
    seed: u64,
    offset: u64,
    size: u64,
    verify: bool,
}

/// The successes of one kind, or of both.
#[derive(Debug, Default, Serialize)]
struct Direction {
    ios: u64,
    bytes: u64,
    iops: f64,
    bytes_per_second: f64,
    latency_ns: Option<Latency>,
}

/// Of latencies, in nanoseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    mean: f64,
    stddev: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    p99_999: u64,
    max: u64,
}

impl Latency {
    fn new(latency: &Histogram<u64>) -> Self {
        let at = |quantile| latency.value_at_quantile(quantile);
        Self {
            min: latency.min(),
            mean: latency.mean(),
            stddev: latency.stdev(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            p99_999: at(0.99999),
            max: latency.max(),
        }
    }

    /// What is printed, by its name.
    fn lines(&self) -> [(&'static str, f64); 7] {
        [
            ("latency mean", self.mean),
            ("  p50", self.p50 as f64),
            ("  p90", self.p90 as f64),
            ("  p99", self.p99 as f64),
            ("  p99.9", self.p99_9 as f64),
            ("  p99.99", self.p99_99 as f64),
            ("  max", self.max as f64),
        ]
    }
}

impl Direction {
    fn new(latency: &Histogram<u64>, unit: u64, elapsed_ns: u64) -> Self {
        let ios = latency.len();
        let seconds = elapsed_ns.max(1) as f64 / 1e9;
        let iops = ios as f64 / seconds;
        let latency_ns = (ios > 0).then(|| Latency::new(latency));
        Self { ios, bytes: ios * unit, iops, bytes_per_second: iops * unit as f64, latency_ns }
    }
}

impl Report {
    /// The device and the parameters; no results yet.
    pub fn new(args: &PerfArgs, controller: &Controller, plan: &Plan) -> anyhow::Result<Self> {
        let (identify, namespace) = (controller.identify(), &plan.namespace);
        let device = Device {
            address: controller.name().into(),
            model: identify.model(),
            serial: identify.serial(),
            firmware: identify.firmware(),
            version: controller.version().to_string(),
            namespaces: controller.namespaces()?,
            namespace: namespace.nsid(),
            blocks: namespace.blocks(),
            block_size: namespace.block_size(),
            max_transfer: namespace.max_transfer(),
            queue_pairs: controller.max_queue_pairs(),
            queue_entries: controller.max_depth(),
        };
        let parameters = Parameters {
            rw: plan.rw.name(),
            read_percent: (plan.rw.reads() && plan.rw.writes()).then_some(plan.mix),
            block_size: plan.unit,
            depth: plan.depth,
            queues: plan.queues,
            time_ns: plan.count.is_none().then_some(plan.time.as_nanos() as u64),
            count: plan.count,
            wait: args.wait.name(),
            spin_ns: (args.wait == super::plan::WaitKind::Adaptive).then_some(args.spin.as_nanos() as u64),
            irq: controller
                .irq_kind()
                .filter(|_| args.wait != super::plan::WaitKind::Poll)
                .map(crate::target::irq_name),
            seed: plan.seed,
            offset: plan.offset,
            size: plan.units * plan.unit,
            verify: plan.verify,
        };
        Ok(Self {
            schema: 1,
            device,
            parameters,
            interrupted: false,
            elapsed_ns: 0,
            cpu_ns_per_io: None,
            errors: 0,
            errors_by_status: BTreeMap::new(),
            mismatches: 0,
            total: Direction::default(),
            read: None,
            write: None,
        })
    }

    /// Adds the results.
    pub fn set_results(&mut self, plan: &Plan, stats: &Stats) {
        self.interrupted = signal::interrupted();
        self.elapsed_ns = stats.end_ns - stats.start_ns;
        let [reads, writes] = &stats.latency;
        let all = total(stats);
        self.cpu_ns_per_io = (!all.is_empty()).then(|| stats.cpu_ns as f64 / all.len() as f64);
        self.errors = stats.errors();
        self.mismatches = stats.mismatches;
        for (status, count) in &stats.failed {
            let name = status.name().map_or_else(|| format!("{status:?}"), str::to_owned);
            *self.errors_by_status.entry(name).or_default() += count;
        }
        let direction = |latency: &Histogram<u64>| Direction::new(latency, plan.unit, self.elapsed_ns);
        self.total = direction(&all);
        self.read = plan.rw.reads().then(|| direction(reads));
        self.write = plan.rw.writes().then(|| direction(writes));
    }

    /// What was found and what will be run, in a few lines.
    pub fn print_found(&self, out: &mut impl Write) -> io::Result<()> {
        let d = &self.device;
        writeln!(
            out,
            "{}: {}, serial {}, firmware {}, NVMe {}",
            d.address, d.model, d.serial, d.firmware, d.version
        )?;
        let others = match d.namespaces.as_slice() {
            [_] => String::new(),
            all => format!(" (of {all:?})"),
        };
        let size = units::bytes(d.blocks.saturating_mul(d.block_size as u64));
        writeln!(
            out,
            "  namespace {}{others}: {size}, {} blocks of {} bytes",
            d.namespace, d.blocks, d.block_size
        )?;
        writeln!(
            out,
            "  up to {} per command (MDTS), {} queue pairs of up to {} entries",
            units::bytes(d.max_transfer as u64),
            d.queue_pairs,
            d.queue_entries
        )?;
        writeln!(out, "{}", self.title())
    }

    /// The parameters in a line.
    pub fn title(&self) -> String {
        let p = &self.parameters;
        let mix = p.read_percent.map_or_else(String::new, |reads| format!(" ({reads} % reads)"));
        let span = match (p.count, p.time_ns) {
            (Some(count), _) => format!("{count} I/Os"),
            (None, time) => units::nanos(time.unwrap_or(0) as f64),
        };
        let verify =
            if p.verify { format!(", verified over {}", units::bytes(p.size)) } else { String::new() };
        let wait = match (p.wait, p.irq) {
            ("irq", Some(kind)) => kind.to_owned(),
            (wait, Some(kind)) => format!("{wait} ({kind})"),
            (wait, None) => wait.to_owned(),
        };
        format!(
            "{}{mix}, {} at depth {}, {} queue pair{}, {wait}, {span}{verify}",
            p.rw,
            units::bytes(p.block_size),
            p.depth,
            p.queues,
            if p.queues == 1 { "" } else { "s" },
        )
    }

    /// The device in a line.
    pub fn device_line(&self) -> String {
        format!("{}, {}", self.device.address, self.device.model)
    }

    /// The results, for people.
    pub fn print_results(&self, stats: &Stats, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        if self.interrupted {
            writeln!(out, "Interrupted after {}:", units::nanos(self.elapsed_ns as f64))?;
        }
        let mut columns = vec![("", &self.total)];
        if let (Some(read), Some(write)) = (&self.read, &self.write) {
            columns = vec![("total", &self.total), ("read", read), ("write", write)];
            line(out, "", columns.iter().map(|(name, _)| (*name).to_owned()))?;
        }
        let columns = columns.iter().map(|(_, direction)| direction);
        line(out, "IOPS", columns.clone().map(|d| format!("{:.0}", d.iops)))?;
        line(
            out,
            "MiB/s",
            columns.clone().map(|d| format!("{:.1}", d.bytes_per_second / f64::from(1 << 20))),
        )?;
        let latencies: Vec<_> = columns.map(|d| d.latency_ns.as_ref().map(Latency::lines)).collect();
        for (i, (name, _)) in latencies.iter().flatten().next().into_iter().flatten().enumerate() {
            let value = |lines: &Option<[(_, f64); 7]>| {
                lines.map_or_else(|| "-".into(), |lines| units::nanos(lines[i].1))
            };
            line(out, name, latencies.iter().map(value))?;
        }
        if let Some(cpu) = self.cpu_ns_per_io {
            let busy = stats.cpu_ns as f64 * 100.0
                / (self.elapsed_ns.max(1) as f64 * f64::from(self.parameters.queues));
            let meaning = match self.parameters.wait {
                "poll" => "polling never sleeps: this is time, not work",
                _ => "of each queue pair's thread",
            };
            line(out, "CPU per I/O", [units::nanos(cpu)])?;
            writeln!(out, "{:15}({busy:.0} % of a core; {meaning})", "")?;
        }
        line(out, "errors", [self.errors.to_string()])?;
        for (name, count) in &self.errors_by_status {
            writeln!(out, "  {count} × {name}")?;
        }
        if self.mismatches > 0 {
            writeln!(out, "  {} × data that differs from what was written", self.mismatches)?;
            for example in &stats.examples {
                writeln!(out, "    {example}")?;
            }
        }
        Ok(())
    }
}

/// Reads and writes together.
pub fn total(stats: &Stats) -> Histogram<u64> {
    let [reads, writes] = &stats.latency;
    let mut all = reads.clone();
    // Of the same bounds, as both were made in one place.
    let _ = all.add(writes);
    all
}

fn line(out: &mut impl Write, name: &str, values: impl IntoIterator<Item = String>) -> io::Result<()> {
    write!(out, "{name:<13}")?;
    for value in values {
        write!(out, "{value:>12}")?;
    }
    writeln!(out)
}
