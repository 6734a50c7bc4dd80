//! The report that `upcie perf --json` prints (`docs/perf-json.md`) and `upcie plot` reads.

use super::{
    args::PerfArgs,
    host::{self, Host},
    plan::{Device as PlannedDevice, Plan},
    series::Interval,
    workload::Share,
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use upcie_core::pci::Bdf;
use upcie_nvme::Controller;

/// Version of the format; changes when a field is removed or gets another meaning.
pub const SCHEMA: u32 = 2;
/// Number of curve points between two nines of the percentile.
const POINTS: u32 = 10;

/// The whole report.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub schema: u32,
    pub parameters: Parameters,
    /// Problems. Fields with a default were added to schema 2 later.
    #[serde(default)]
    pub problems: Option<Vec<Problem>>,
    #[serde(default)]
    pub host: Option<Host>,
    pub interrupted: bool,
    pub elapsed_ns: u64,
    #[serde(flatten)]
    pub counts: Counts,
    pub cpu_ns_per_io: Option<f64>,
    #[serde(default)]
    pub emulator_wait_ns: Option<u64>,
    pub latency_breakdown_ns: Option<Breakdown>,
    pub devices: Vec<Device>,
    pub threads: Vec<Thread>,
    pub intervals: Vec<Interval>,
}

/// A failure of the run, or a cause that falsifies the measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `errors`, `mismatches`, `interrupted`, `lost`, `rate`, `starved` or `cores`.
    pub kind: String,
    /// Text for people.
    pub text: String,
}

/// Settings of the run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parameters {
    pub rw: String,
    pub read_percent: Option<u8>,
    pub random: Option<String>,
    pub block_size: Option<u64>,
    pub block_sizes: Vec<Share>,
    pub depth: u32,
    pub queues: u16,
    pub threads: usize,
    pub cores: Option<Vec<usize>>,
    pub rate: Option<u64>,
    pub buffers: String,
    /// All data is described by SGLs.
    #[serde(default)]
    pub sgl: bool,
    /// Placement identifiers that writes use in turn.
    #[serde(default)]
    pub placement: Vec<u16>,
    /// Protection information of all commands: 8 the action, 4, 2, 1 checks.
    #[serde(default)]
    pub prinfo: Option<u8>,
    /// Reads and writes go to the media, past a volatile cache.
    #[serde(default)]
    pub fua: bool,
    pub time_ns: Option<u64>,
    pub count: Option<u64>,
    pub warmup_ns: Option<u64>,
    pub wait: String,
    /// Reason for the wait mode, if `--wait auto` chose it.
    #[serde(default)]
    pub wait_reason: Option<String>,
    pub spin_ns: Option<u64>,
    pub seed: u64,
    pub verify: bool,
    pub latency_breakdown: bool,
    pub interval_ns: Option<u64>,
}

/// A device with its results.
#[derive(Debug, Serialize, Deserialize)]
pub struct Device {
    pub address: String,
    pub model: String,
    pub serial: String,
    pub firmware: String,
    pub version: String,
    pub namespaces: Vec<u32>,
    pub namespace: u32,
    pub blocks: u64,
    pub block_size: usize,
    pub max_transfer: usize,
    pub queue_pairs: u16,
    pub queue_entries: u32,
    /// Bytes that were lent to the controller.
    #[serde(default)]
    pub host_memory: u64,
    pub irq: Option<String>,
    pub offset: u64,
    pub size: u64,
    #[serde(default)]
    pub numa_node: Option<u32>,
    pub lost: Option<String>,
    #[serde(default)]
    pub lost_after_ns: Option<u64>,
    #[serde(default)]
    pub lost_in_flight: Option<u64>,
    #[serde(flatten)]
    pub counts: Counts,
}

/// Results of I/Os, of all devices or of one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    #[serde(flatten)]
    pub total: Direction,
    pub read: Option<Direction>,
    pub write: Option<Direction>,
    pub trim: Option<Direction>,
    #[serde(flatten)]
    pub faults: Faults,
}

/// Results of a thread on all devices.
#[derive(Debug, Serialize, Deserialize)]
pub struct Thread {
    pub core: Option<usize>,
    #[serde(flatten)]
    pub total: Direction,
    pub errors: u64,
    pub cpu_ns: u64,
    pub cpu_ns_per_io: Option<f64>,
    #[serde(default)]
    pub wall_ns: Option<u64>,
    #[serde(default)]
    pub core_wait_ns: Option<u64>,
}

/// Failures of I/Os.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Faults {
    pub errors: u64,
    pub errors_by_status: BTreeMap<String, u64>,
    pub mismatches: u64,
}

impl Faults {
    /// Sums the faults up by status.
    pub fn new(faults: &super::tally::Faults) -> Self {
        let mut errors_by_status = BTreeMap::new();
        for (status, count) in &faults.failed {
            let unnamed = || format!("unknown status ({:02x}/{:02x}h)", status.code_type().0, status.code());
            let name = status.name().map_or_else(unnamed, str::to_owned);
            *errors_by_status.entry(name).or_default() += count;
        }
        Self { errors: faults.count(), errors_by_status, mismatches: faults.mismatches }
    }
}

/// Results of successful I/Os of one kind, or of all kinds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Direction {
    pub ios: u64,
    pub bytes: u64,
    pub iops: f64,
    pub bytes_per_second: f64,
    pub latency_ns: Option<Latency>,
}

impl Direction {
    /// Computes rates and latencies.
    pub fn new(latency: &Histogram<u64>, bytes: u64, elapsed_ns: u64) -> Self {
        let ios = latency.len();
        let seconds = elapsed_ns.max(1) as f64 / 1e9;
        Self {
            ios,
            bytes,
            iops: ios as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency_ns: Latency::new(latency),
        }
    }
}

/// Latencies of an I/O's parts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Breakdown {
    pub submit: Option<Latency>,
    pub device: Option<Latency>,
    pub reap: Option<Latency>,
}

/// Summary of latencies, in nanoseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Latency {
    pub min: u64,
    pub mean: f64,
    pub stddev: f64,
    pub p50: u64,
    pub p90: u64,
    #[serde(default)]
    pub p95: Option<u64>,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub p99_999: u64,
    pub max: u64,
    /// Percentile and latency; the last is 100.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    /// Summarizes latencies; `None` if there are none.
    pub fn new(latency: &Histogram<u64>) -> Option<Self> {
        if latency.is_empty() {
            return None;
        }
        let at = |quantile| latency.value_at_quantile(quantile);
        Some(Self {
            min: latency.min(),
            mean: latency.mean(),
            stddev: latency.stdev(),
            p50: at(0.5),
            p90: at(0.9),
            p95: Some(at(0.95)),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            p99_999: at(0.99999),
            max: latency.max(),
            curve: curve(latency),
        })
    }
}

/// Makes the curve up to the percentile of a single I/O, `1 - 1/n`.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, u64)> {
    let nines = (latency.len() as f64).log10();
    let steps = (nines * f64::from(POINTS)).floor() as u32;
    let point = |i: u32| {
        let quantile = 1.0 - 10_f64.powf(-f64::from(i) / f64::from(POINTS));
        // Enough digits to keep neighbouring points different.
        let digits = 10_f64.powi((i / POINTS) as i32 + 3);
        ((quantile * 100.0 * digits).round() / digits, latency.value_at_quantile(quantile))
    };
    (0..=steps).map(point).chain([(100.0, latency.max())]).collect()
}

impl Parameters {
    /// Copies the settings of a plan.
    pub fn new(args: &PerfArgs, plan: &Plan) -> Self {
        let ns = |time: std::time::Duration| time.as_nanos() as u64;
        let mixture = &plan.mixture;
        let spin = match plan.wait {
            upcie_nvme::Wait::Adaptive(spin) => Some(ns(spin)),
            _ => None,
        };
        Self {
            rw: mixture.rw.name().into(),
            read_percent: (mixture.rw.reads() && mixture.rw.writes()).then_some(mixture.mix),
            random: mixture.rw.is_random().then(|| mixture.random.to_string()),
            block_size: mixture.sizes.single(),
            block_sizes: mixture.sizes.shares().to_vec(),
            depth: plan.depth,
            queues: plan.queues,
            threads: plan.threads.len(),
            cores: plan.threads.iter().copied().collect(),
            rate: plan.rate,
            buffers: args.buffers.name().into(),
            sgl: args.sgl,
            placement: args.placement.clone(),
            prinfo: args.prinfo,
            fua: args.fua,
            time_ns: plan.count.is_none().then_some(ns(plan.time)),
            count: plan.count,
            warmup_ns: plan.warmup.map(ns),
            wait: plan.wait_name().into(),
            wait_reason: plan.wait_reason.clone(),
            spin_ns: spin,
            seed: plan.seed,
            verify: plan.verify,
            latency_breakdown: plan.breakdown,
            interval_ns: args.interval.map(ns),
        }
    }
}

impl Device {
    /// Describes a device; the results are empty.
    pub fn new(plan: &Plan, device: &PlannedDevice, bdf: Option<Bdf>) -> anyhow::Result<Self> {
        let PlannedDevice { controller, namespace, offset, part, .. } = device;
        let identify = controller.identify();
        Ok(Self {
            address: controller.name().into(),
            model: identify.model(),
            serial: identify.serial(),
            firmware: identify.firmware(),
            version: controller.version().to_string(),
            namespaces: controller.namespace_ids()?,
            namespace: namespace.nsid(),
            blocks: namespace.blocks(),
            block_size: namespace.block_size(),
            max_transfer: namespace.max_transfer(),
            queue_pairs: controller.max_queue_pairs(),
            queue_entries: controller.max_depth(),
            host_memory: controller.host_memory() as u64,
            irq: irq(plan, controller),
            offset: *offset,
            size: part * plan.pairs() * namespace.block_size() as u64,
            numa_node: bdf.and_then(host::numa_node),
            lost: None,
            lost_after_ns: None,
            lost_in_flight: None,
            counts: Counts::default(),
        })
    }
}

fn irq(plan: &Plan, controller: &Controller) -> Option<String> {
    let used = controller.irq_kind().filter(|_| plan.wait != upcie_nvme::Wait::Poll);
    used.map(|kind| crate::target::irq_name(kind).to_owned())
}

impl Report {
    /// Describes devices and settings; the results are empty.
    pub fn new(args: &PerfArgs, plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            schema: SCHEMA,
            parameters: Parameters::new(args, plan),
            problems: None,
            host: Some(Host::new()),
            interrupted: false,
            elapsed_ns: 0,
            counts: Counts::default(),
            cpu_ns_per_io: None,
            emulator_wait_ns: None,
            latency_breakdown_ns: None,
            devices: plan
                .devices
                .iter()
                .zip(args.targets())
                .map(|(device, target)| Device::new(plan, device, target.bdf()))
                .collect::<anyhow::Result<_>>()?,
            threads: Vec::new(),
            intervals: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_percentile_of_one_io() {
        let mut latency = super::super::latencies::histogram().unwrap();
        for value in 1..=10_000 {
            latency.record(value * 100).unwrap();
        }
        let curve = curve(&latency);
        assert_eq!(curve.len(), 42);
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
        assert_eq!((curve[10].0, curve[20].0, curve[40].0), (90.0, 99.0, 99.99));
        assert_eq!(*curve.last().unwrap(), (100.0, latency.max()));
        let mut one = super::super::latencies::histogram().unwrap();
        assert!(Latency::new(&one).is_none());
        one.record(5).unwrap();
        assert_eq!(Latency::new(&one).unwrap().curve, [(0.0, 5), (100.0, 5)]);
    }
}
