//! The command line of `upcie perf`, and what it comes to on the controller that was found.

use super::{
    verify::Ledger,
    worker::{Tag, Worker},
    workload::{Source, Workload},
};
use crate::{target, target::Target, units};
use anyhow::{Context, bail, ensure};
use clap::{Args, Command, ValueEnum, builder::ArgPredicate, error::ErrorKind};
use std::{path::PathBuf, time::Duration};
use upcie_nvme::{Controller, IrqKind, Namespace, QueuePair, Wait};

const DEPTH: u32 = 32;
/// What --verify covers unless --size says otherwise: its record takes 4 bytes per I/O of this.
const VERIFY_SIZE: u64 = 256 << 20;
/// Units that one worker's record may have.
const VERIFY_UNITS: u64 = 1 << 30;

/// How to wait for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitKind {
    /// Look at the queue again and again: the shortest latency, a whole core
    Poll,
    /// Sleep until the interrupt
    Irq,
    /// Poll for --spin, then sleep
    Adaptive,
}

impl WaitKind {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Irq => "irq",
            Self::Adaptive => "adaptive",
        }
    }
}

/// The kind of interrupts to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IrqArg {
    /// The best that there is: msix, then msi, then intx
    Auto,
    /// The pin: one vector for all queues
    Intx,
    /// Message signalled
    Msi,
    /// Message signalled, extended: a vector for each queue
    Msix,
}

impl IrqArg {
    /// As the driver takes it.
    pub fn kind(self) -> Option<IrqKind> {
        match self {
            Self::Auto => None,
            Self::Intx => Some(IrqKind::Intx),
            Self::Msi => Some(IrqKind::Msi),
            Self::Msix => Some(IrqKind::Msix),
        }
    }
}

/// Arguments of `upcie perf`.
#[derive(Debug, Args)]
pub struct PerfArgs {
    #[command(flatten)]
    pub target: Target,
    /// What the I/Os do; those that write overwrite data
    #[arg(long, value_enum, default_value = "randread")]
    pub rw: Workload,
    /// Percentage of reads in randrw
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub mix: u8,
    /// Bytes of each I/O [default: 4096, or one block if that is more]
    #[arg(long, short = 'b', value_name = "BYTES", value_parser = units::parse_bytes)]
    pub block_size: Option<u64>,
    /// I/Os in flight on each queue pair [default: 32]
    #[arg(long, short = 'd', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub depth: Option<u32>,
    /// Queue pairs, each on a thread of its own with its own part of the namespace
    #[arg(long, short = 'q', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queues: u16,
    /// How long to run: seconds, or with a unit (500ms, 2m) [default: 5]
    #[arg(long, short = 't', value_name = "TIME", value_parser = units::parse_time, conflicts_with = "count")]
    pub time: Option<Duration>,
    /// Run this many I/Os (of all queue pairs together) instead of for a time
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How to wait for completions; with --irq alone: irq
    #[arg(
        long,
        short = 'w',
        value_enum,
        default_value = "poll",
        default_value_if("irq", ArgPredicate::IsPresent, "irq")
    )]
    pub wait: WaitKind,
    /// The interrupts that --wait irq and adaptive sleep for [default: auto]
    #[arg(long, value_enum, value_name = "KIND")]
    pub irq: Option<IrqArg>,
    /// How long --wait adaptive polls before it sleeps
    #[arg(long, value_name = "TIME", default_value = "20us", value_parser = units::parse_time)]
    pub spin: Duration,
    /// The same seed gives the same I/Os
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The namespace [default: the first]
    #[arg(long, short = 'n', value_name = "NSID")]
    pub namespace: Option<u32>,
    /// First byte of the range that is used
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = units::parse_bytes)]
    pub offset: u64,
    /// Bytes of the range that is used [default: to the end of the namespace; with --verify at most 256M]
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    pub size: Option<u64>,
    /// Write data that says where it belongs, and check every read against what was written last. Before a workload with
    /// reads the range is written once, after one with writes it is read once; neither is measured
    #[arg(long)]
    pub verify: bool,
    /// Allow --verify of a workload of reads to overwrite the range first (not needed for emu without file=)
    #[arg(long)]
    pub destructive: bool,
    /// Give up when the device completes nothing for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    pub timeout: Duration,
    /// Print one JSON object on stdout, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Draw the latencies' distribution and the IOPS over time as an SVG image
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

impl PerfArgs {
    /// Ends the program, as for any wrong usage, when arguments don't go together that are known to do so only now.
    pub fn check(&self) {
        if self.irq.is_some() && self.wait == WaitKind::Poll {
            let message = "--irq needs --wait irq or --wait adaptive: polling uses no interrupts";
            Self::augment_args(Command::new("upcie perf")).error(ErrorKind::ArgumentConflict, message).exit();
        }
    }
}

/// What is run.
#[derive(Debug)]
pub struct Plan {
    /// Where.
    pub namespace: Namespace,
    /// What.
    pub rw: Workload,
    /// Percentage of reads in a mix.
    pub mix: u8,
    /// Bytes of an I/O.
    pub unit: u64,
    /// I/Os in flight per worker.
    pub depth: u32,
    /// Workers.
    pub queues: u16,
    /// The time, unless it is a number of I/Os.
    pub time: Duration,
    /// The number of I/Os.
    pub count: Option<u64>,
    /// The first byte of the range.
    pub offset: u64,
    /// Units of the range.
    pub units: u64,
    /// How to wait.
    pub wait: Wait,
    /// The seed.
    pub seed: u64,
    /// Whether data is written and checked.
    pub verify: bool,
    /// The longest without a completion.
    pub timeout: Duration,
}

impl Plan {
    /// Fits the arguments to the controller.
    pub fn new(args: &PerfArgs, controller: &Controller) -> anyhow::Result<Self> {
        let namespace = target::namespace(controller, args.namespace)?;
        let name = controller.name();
        let block = namespace.block_size() as u64;
        let unit = args.block_size.unwrap_or(block.max(4096).min(namespace.max_transfer() as u64));
        ensure!(
            unit > 0 && unit.is_multiple_of(block),
            "--block-size {unit}: it must be a multiple of the namespace's blocks of {block} bytes"
        );
        ensure!(
            unit <= namespace.max_transfer() as u64,
            "--block-size {unit}: {name} takes at most {} in one command",
            units::bytes(namespace.max_transfer() as u64)
        );
        let most = controller.max_depth() - 1;
        let depth = args.depth.unwrap_or(DEPTH.min(most));
        ensure!(depth <= most, "--depth {depth}: {name} takes at most {most} commands in a queue");
        let granted = controller.max_queue_pairs();
        ensure!(args.queues <= granted, "--queues {}: {name} granted {granted}", args.queues);
        let (offset, units) = range(args, &namespace, unit)?;
        let queues = u64::from(args.queues);
        ensure!(
            units >= queues,
            "the range has room for {units} I/Os of {unit} bytes: not one for each of the {queues} queue pairs"
        );
        if args.verify {
            ensure!(
                units / queues > u64::from(depth),
                "--verify needs more room than is in flight: {units} I/Os of {unit} bytes for {queues} queue pair(s) \
                 at depth {depth} are too few; use a larger --size or a smaller --depth"
            );
            ensure!(
                units.div_ceil(queues) <= VERIFY_UNITS,
                "--verify keeps a record of 4 bytes per I/O of the range: a --size of {} is too large",
                units::bytes(units * unit)
            );
            if !args.rw.writes() && !args.destructive && !args.target.is_ephemeral() {
                bail!(
                    "--verify of --rw {} first writes {} from byte {offset} of namespace {} of {name} on, \
                     and what is there is lost: add --destructive if that is meant",
                    args.rw.name(),
                    units::bytes(units * unit),
                    namespace.nsid()
                );
            }
        }
        Ok(Self {
            namespace,
            rw: args.rw,
            mix: args.mix,
            unit,
            depth,
            queues: args.queues,
            time: args.time.unwrap_or(Duration::from_secs(5)),
            count: args.count,
            offset,
            units,
            wait: match args.wait {
                WaitKind::Poll => Wait::Poll,
                WaitKind::Irq => Wait::Interrupt,
                WaitKind::Adaptive => Wait::Adaptive(args.spin),
            },
            seed: args.seed,
            verify: args.verify,
            timeout: args.timeout,
        })
    }

    /// Makes the queue pairs, and a worker with its buffers and its part of the range for each.
    pub fn workers(&self, controller: &Controller) -> anyhow::Result<Vec<Worker>> {
        let vectors = match self.wait {
            Wait::Poll => 0,
            _ => {
                let count = controller.vectors()?;
                ensure!(count > 0, "no interrupts to wait for: use --wait poll");
                count
            }
        };
        (0..self.queues).map(|index| self.worker(controller, index, vectors)).collect()
    }

    fn worker(&self, controller: &Controller, index: u16, vectors: u16) -> anyhow::Result<Worker> {
        let mut builder = controller.queue_pair().depth(self.depth + 1);
        if vectors > 0 {
            // Vector 0 is the admin queue's too: left alone while there are others.
            builder = builder.interrupt(if vectors > 1 { 1 + index % (vectors - 1) } else { 0 });
        }
        let queue: QueuePair<Tag> = builder
            .create()
            .with_context(|| format!("making queue pair {} of {}", index + 1, self.queues))?;
        let idle = (0..self.depth).map(|_| controller.alloc(self.unit as usize)).collect::<Result<_, _>>();
        let block = self.namespace.block_size();
        let blocks_per_unit = self.unit / block as u64;
        let (first, units) = self.part(index);
        let slba = self.offset / block as u64 + first * blocks_per_unit;
        Ok(Worker {
            index: index.into(),
            queue,
            idle: idle.with_context(|| format!("{} buffers of {} bytes", self.depth, self.unit))?,
            namespace: self.namespace.clone(),
            slba,
            blocks_per_unit,
            ledger: self.verify.then(|| Ledger::new(units, self.seed, slba, blocks_per_unit, block)),
            wait: self.wait,
            timeout: self.timeout,
        })
    }

    /// The first unit and the number of units of a worker's part.
    pub fn part(&self, index: u16) -> (u64, u64) {
        let each = self.units / u64::from(self.queues);
        (each * u64::from(index), each)
    }

    /// What a worker does in the measured part.
    pub fn source(&self, index: u16) -> Source {
        let queues = u64::from(self.queues);
        let limit = self
            .count
            .map_or(u64::MAX, |count| count / queues + u64::from(u64::from(index) < count % queues));
        // Far apart in SplitMix64's one cycle.
        let seed = super::workload::mix(self.seed ^ u64::from(index).rotate_right(8));
        Source::measured(self.rw, self.mix, self.part(index).1, seed, limit)
    }
}

/// The first byte and the number of units.
fn range(args: &PerfArgs, namespace: &Namespace, unit: u64) -> anyhow::Result<(u64, u64)> {
    let block = namespace.block_size() as u64;
    let total = namespace.blocks().saturating_mul(block);
    let offset = args.offset;
    ensure!(
        offset.is_multiple_of(block),
        "--offset {offset}: it must be a multiple of the block size, {block} bytes"
    );
    ensure!(
        offset < total,
        "--offset {offset}: namespace {} ends at byte {total} ({})",
        namespace.nsid(),
        units::bytes(total)
    );
    let left = total - offset;
    let size = match args.size {
        Some(size) if size > left => bail!(
            "--size {size}: only {left} bytes ({}) of namespace {} are left from --offset {offset} on",
            units::bytes(left),
            namespace.nsid()
        ),
        Some(size) => size,
        None if args.verify => left.min(VERIFY_SIZE),
        None => left,
    };
    ensure!(size >= unit, "the range of {size} bytes is smaller than one I/O of {unit} bytes");
    Ok((offset, size / unit))
}
