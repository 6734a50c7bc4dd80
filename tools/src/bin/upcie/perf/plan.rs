//! Fits the command line to the devices: queue pairs, ranges, sizes, wait mode.

use super::{
    args::{PerfArgs, WaitKind},
    choice::{self, CoreTimes},
    random::Distribution,
    workload::{Mixture, Sizes},
};
use crate::{guard, target, units};
use anyhow::{Context, bail, ensure};
use std::time::Duration;
use upcie_nvme::{
    Controller, Namespace, Wait,
    protection::{BlockFormat, ProtectionType},
};

const DEPTH: u32 = 32;
/// Bytes that --verify covers without --length: its record takes 4 bytes per I/O of this range.
const VERIFY_SIZE: u64 = 256 << 20;
/// Size of a buffer for the ranges of a deallocation: some controllers read as much as 256 ranges take.
pub const RANGES: u64 = 4096;
/// Largest number of I/Os in one queue pair's record.
const VERIFY_UNITS: u64 = 1 << 30;

/// A device and its tested range.
#[derive(Debug)]
pub struct Device {
    /// The controller.
    pub controller: Controller,
    /// The namespace.
    pub namespace: Namespace,
    /// First byte of the range.
    pub offset: u64,
    /// Number of blocks in each queue pair's part.
    pub part: u64,
}

/// Settings of a run.
#[derive(Debug)]
pub struct Plan {
    /// Devices.
    pub devices: Vec<Device>,
    /// Workload.
    pub mixture: Mixture,
    /// I/Os in flight per queue pair.
    pub depth: u32,
    /// Queue pairs per thread and device.
    pub queues: u16,
    /// The core of each thread.
    pub threads: Vec<Option<usize>>,
    /// I/Os per second, if they are limited.
    pub rate: Option<u64>,
    /// Running time, unless `count` is set.
    pub time: Duration,
    /// Number of I/Os.
    pub count: Option<u64>,
    /// Length of the warm-up.
    pub warmup: Option<Duration>,
    /// Wait mode.
    pub wait: Wait,
    /// Reason for the wait mode, if `--wait auto` chose it.
    pub wait_reason: Option<String>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// True if data is written and checked.
    pub verify: bool,
    /// Placement identifiers that writes use in turn.
    pub placement: Vec<u16>,
    /// Protection information of all commands.
    pub prinfo: Option<u8>,
    /// True if reads and writes go to the media.
    pub fua: bool,
    /// True if the parts of the latency are measured.
    pub breakdown: bool,
    /// Longest time without a completion before a device is given up.
    pub timeout: Duration,
}

impl Plan {
    /// Fits the arguments to the controllers.
    pub fn new(
        args: &PerfArgs,
        controllers: Vec<Controller>,
        core_times: Option<&CoreTimes>,
    ) -> anyhow::Result<Self> {
        let threads = args.threads();
        let found = controllers.into_iter().map(|controller| {
            let namespace = target::data_namespace(&controller, args.namespace)?;
            Ok(Device { controller, namespace, offset: args.offset.bytes, part: 0 })
        });
        let mut devices: Vec<Device> = found.collect::<anyhow::Result<_>>()?;
        let sizes = args.block_size.clone().unwrap_or_else(|| default_size(&devices));
        let most = devices.iter().map(|device| device.controller.max_depth() - 1).min().unwrap_or(DEPTH);
        let depth = args.depth.unwrap_or(DEPTH.min(most));
        let pairs = threads.len() as u64 * u64::from(args.queues);
        for device in &mut devices {
            device.part = fit(args, device, &sizes, depth, pairs)?;
        }
        let (wait, wait_reason) = if args.wait == WaitKind::Auto {
            let controllers = devices.iter().map(|device| &device.controller);
            let (wait, reason) = choice::choose(args, controllers, core_times);
            (wait, Some(reason))
        } else {
            (args.waiting(), None)
        };
        let random = args.random.unwrap_or(Distribution::Uniform);
        Ok(Self {
            devices,
            mixture: Mixture { rw: args.rw, mix: args.mix(), random, sizes },
            depth,
            queues: args.queues,
            threads,
            rate: args.rate,
            time: args.time.unwrap_or(Duration::from_secs(5)),
            count: args.count,
            warmup: args.warmup,
            wait,
            wait_reason,
            seed: args.seed,
            verify: args.verify,
            placement: args.placement.clone(),
            prinfo: args.prinfo,
            fua: args.fua,
            breakdown: args.latency_breakdown,
            timeout: args.timeout,
        })
    }

    /// Returns the wait mode's name on the command line.
    pub fn wait_name(&self) -> &'static str {
        match self.wait {
            Wait::Interrupt => WaitKind::Irq.name(),
            Wait::Adaptive(_) => WaitKind::Adaptive.name(),
            _ => WaitKind::Poll.name(),
        }
    }

    /// Counts the queue pairs of all devices.
    pub fn lanes(&self) -> u64 {
        self.pairs() * self.devices.len() as u64
    }

    /// Counts the queue pairs of each device.
    pub fn pairs(&self) -> u64 {
        self.threads.len() as u64 * u64::from(self.queues)
    }

    /// Counts the I/Os that cover the parts of all queue pairs once.
    pub fn places(&self) -> u64 {
        let places =
            |device: &Device| device.part / (self.mixture.sizes.largest() / block(&device.namespace));
        self.devices.iter().map(places).sum::<u64>() * self.pairs()
    }

    /// Returns the number of measured I/Os of queue pair `index`.
    pub fn share(&self, index: u64) -> u64 {
        self.count.map_or(u64::MAX, |count| count / self.lanes() + u64::from(index < count % self.lanes()))
    }
}

/// Returns the bytes of a block.
pub fn block(namespace: &Namespace) -> u64 {
    namespace.block_size() as u64
}

/// Returns a size that all devices can do: 4096 bytes, or one block if blocks are larger.
fn default_size(devices: &[Device]) -> Sizes {
    let block = devices.iter().map(|device| block(&device.namespace)).max().unwrap_or(512);
    let most = devices.iter().map(|device| device.namespace.max_transfer() as u64).min().unwrap_or(4096);
    // Whole blocks, also where their size is no power of two.
    Sizes::one((block * (4096 / block).max(1)).min(most / block * block))
}

/// Checks that a device can run the workload; returns the blocks of each queue pair's part.
fn fit(args: &PerfArgs, device: &Device, sizes: &Sizes, depth: u32, pairs: u64) -> anyhow::Result<u64> {
    let (controller, namespace) = (&device.controller, &device.namespace);
    let (name, block) = (controller.name(), block(namespace));
    ensure!(
        !args.rw.trims() || namespace.can_deallocate(),
        "{name}: --rw {}: the device does not support the Dataset Management command",
        args.rw.name()
    );
    for (bytes, typed) in sizes.typed() {
        ensure!(
            bytes.is_multiple_of(block),
            "{name}: --block-size {typed}: not a multiple of the namespace's block size, {block} bytes"
        );
        if args.rw.trims() {
            ensure!(
                bytes / block <= u64::from(u32::MAX),
                "{name}: --block-size {typed}: one range of a deallocation has at most {} blocks",
                u32::MAX
            );
            continue;
        }
        ensure!(
            bytes <= namespace.max_transfer() as u64,
            "{name}: --block-size {typed}: the device takes at most {} in one command",
            units::bytes(namespace.max_transfer() as u64)
        );
    }
    let most = controller.max_depth() - 1;
    ensure!(depth <= most, "{name}: --depth {depth}: the device takes at most {most} commands in a queue");
    let granted = controller.max_queue_pairs();
    ensure!(
        pairs <= u64::from(granted),
        "{name}: --queues {} on {} makes {pairs} queue pairs: the device granted {granted}",
        args.queues,
        units::number(pairs / u64::from(args.queues), "thread")
    );
    let unit = sizes.largest();
    let size = range(args, namespace, unit).with_context(|| name.to_owned())?;
    let units = size / unit;
    ensure!(
        units >= pairs,
        "{name}: the range holds {units} I/Os of {unit} bytes, fewer than one for each of the {pairs} queue pairs"
    );
    if args.verify {
        ensure!(
            units / pairs > u64::from(depth),
            "{name}: --verify needs more blocks than are in flight: {units} I/Os of {unit} bytes for {} at \
             depth {depth} are too few; use a larger --length or a smaller --depth",
            units::number(pairs, "queue pair")
        );
        ensure!(
            units.div_ceil(pairs) <= VERIFY_UNITS,
            "{name}: --verify keeps a record of 4 bytes per I/O of the range: {} are too many, use a smaller --length",
            units::bytes(size)
        );
    }
    target::check_placement(namespace, &args.placement)?;
    if let Some(bits) = args.prinfo {
        check_protection(namespace.format(), bits).with_context(|| name.to_owned())?;
    }
    if args.overwrites().is_some() {
        guard::check_unprotected(name, namespace)?;
        guard::check_any_order(name, namespace, "perf")?;
    }
    Ok(units / pairs * (unit / block))
}

/// Checks that the blocks have protection information which the controller makes and strips, and can check so.
fn check_protection(format: &BlockFormat, bits: u8) -> anyhow::Result<()> {
    let Some(protection) = format.protection() else {
        bail!(
            "--prinfo {bits}: blocks of {format} have no protection information: leave it out, or format them with some"
        );
    };
    ensure!(
        format.is_separate() && format.is_stripped(),
        "--prinfo {bits}: blocks of {format} are moved with their metadata, as it is: leave it out, or format them with \
         protection information alone, apart from the data"
    );
    ensure!(
        protection.kind() != ProtectionType::Type3 || bits & 1 == 0,
        "--prinfo {bits}: with protection type 3 controllers refuse to check the reference tag: give {}",
        bits & !1
    );
    Ok(())
}

/// Returns the size of the range in bytes.
fn range(args: &PerfArgs, namespace: &Namespace, unit: u64) -> anyhow::Result<u64> {
    let block = block(namespace);
    let total = namespace.blocks().saturating_mul(block);
    let offset = &args.offset;
    ensure!(
        offset.bytes.is_multiple_of(block),
        "--offset {offset}: not a multiple of the block size, {block} bytes"
    );
    ensure!(
        offset.bytes < total,
        "--offset {offset}: namespace {} ends at byte {total} ({})",
        namespace.nsid(),
        units::bytes(total)
    );
    let left = total - offset.bytes;
    let size = match &args.length {
        Some(length) if length.of(total) > left => bail!(
            "--length {length}: only {left} bytes ({}) of namespace {} are left from --offset {offset} on",
            units::bytes(left),
            namespace.nsid()
        ),
        Some(length) => length.of(total),
        None if args.verify => left.min(VERIFY_SIZE),
        None => left,
    };
    ensure!(size >= unit, "the range of {size} bytes is smaller than one I/O of {unit} bytes");
    Ok(size)
}
