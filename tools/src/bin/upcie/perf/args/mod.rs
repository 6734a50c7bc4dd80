//! The command line of `upcie perf`.

#[cfg(test)]
mod tests;
mod values;

pub use values::{Buffers, IrqArg, Length, WaitKind};

use super::{
    cores::{self, Cores},
    random::Distribution,
    workload::{Sizes, Workload},
};
use crate::{
    files,
    guard::Consent,
    prinfo::{ACTION, parse_prinfo},
    structures::parse,
    target::{self, Target},
    units::{self, Bytes},
};
use clap::{Args, Command, builder::ArgPredicate, error::ErrorKind};
use std::{path::PathBuf, time::Duration};
use upcie_nvme::{Address, Wait};

/// Shortest accepted interval: a shorter one would measure the scheduling of the threads.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Default percentage of reads in a mix.
const MIX: u8 = 70;
/// Default polling time of an adaptive wait.
const SPIN: Duration = Duration::from_micros(20);

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = units::parse_count(text)?;
    if (1..=1_000_000_000).contains(&rate) { Ok(rate) } else { Err("1 to 1000M I/Os per second".into()) }
}

/// Arguments of `upcie perf`.
#[derive(Debug, Args)]
pub struct PerfArgs {
    /// Devices: PCI addresses, vfio-user:SOCKET, emu, … (see below)
    #[arg(value_name = "ADDR", required = true, value_parser = target::parse_address)]
    pub addresses: Vec<Address>,

    /// Kind of I/O; writes and trims need --destructive
    #[arg(long, value_enum, default_value = "randread", help_heading = "Workload")]
    pub rw: Workload,
    /// Percentage of reads in randrw and rw [default: 70]
    #[arg(long, alias = "rwmixread", value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Workload")]
    pub mix: Option<u8>,
    /// Bytes of each I/O, or several sizes with their shares (4k:60,64k:40) [default: 4096, or one block if that is more]
    #[arg(long, short = 'b', visible_alias = "bs", aliases = ["bssplit", "iosize"], value_name = "BYTES", help_heading = "Workload")]
    pub block_size: Option<Sizes>,
    /// Blocks that random I/Os prefer: none (uniform), or few (zipf:THETA; the kth most popular one is used
    /// in proportion to 1 / k^THETA) [default: uniform]
    #[arg(long, value_name = "DISTRIBUTION", help_heading = "Workload")]
    pub random: Option<Distribution>,
    /// Seed of the random numbers: the same seed gives the same I/Os
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Workload")]
    pub seed: u64,
    /// Namespace to use on each device [default: the first]
    #[arg(long, short = 'n', value_name = "NSID", help_heading = "Workload")]
    pub namespace: Option<u32>,
    /// First byte of the tested range, on each device
    #[arg(long, value_name = "BYTES", default_value = "0", help_heading = "Workload")]
    pub offset: Bytes,
    /// Size of the tested range, on each device: bytes, or a share of the namespace (50%) [default: to the end of the
    /// namespace; with --verify at most 256M]
    #[arg(long, short, alias = "size", value_name = "BYTES", help_heading = "Workload")]
    pub length: Option<Length>,
    /// Force unit access: reads and writes go to the media, past a volatile cache
    #[arg(long, visible_alias = "force-unit-access", help_heading = "Workload")]
    pub fua: bool,

    /// I/Os in flight on each queue pair [default: 32]
    #[arg(long, short = 'd', visible_alias = "iodepth", alias = "qdepth", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65535), help_heading = "Load")]
    pub depth: Option<u32>,
    /// Queue pairs of each thread on each device; each one has a part of the range to itself
    #[arg(long, short = 'q', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Load")]
    pub queues: u16,
    /// Number of threads; every thread drives every device
    #[arg(long, short = 'j', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with_all = ["cores", "cpumask"], help_heading = "Load")]
    pub threads: u16,
    /// Cores to pin threads to, one thread on each (0,2-3)
    #[arg(long, value_name = "LIST", help_heading = "Load")]
    pub cores: Option<Cores>,
    /// Cores to pin threads to, as a mask (0x5: cores 0 and 2), instead of --cores
    #[arg(long, value_name = "MASK", value_parser = cores::parse_mask, conflicts_with = "cores", help_heading = "Load")]
    pub cpumask: Option<Cores>,
    /// Start N I/Os per second in total, evenly spaced, even if the devices are late [default: as many as the
    /// devices complete]
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Load")]
    pub rate: Option<u64>,
    /// Pages for DMA memory (buffers and queues)
    #[arg(long, value_enum, default_value = "auto", help_heading = "Load")]
    pub buffers: Buffers,
    /// Describe all data by scatter gather lists (SGLs) in place of PRPs; the devices must take them
    #[arg(long, help_heading = "Load")]
    pub sgl: bool,
    /// Placement identifiers that writes use in turn (flexible data placement); `upcie fdp status` lists them
    #[arg(long, value_name = "PIDS", value_delimiter = ',', value_parser = parse::<u16>, help_heading = "Workload")]
    pub placement: Vec<u16>,
    /// Protection information that the controller makes and strips: 8, and the sum of 4, 2, 1 for what it checks of reads:
    /// guard, application tag, reference tag [default: 8 where blocks have some apart from their data]
    #[arg(long, value_name = "BITS", value_parser = parse_prinfo, help_heading = "Workload")]
    pub prinfo: Option<u8>,
    /// Lend each device up to SIZE bytes of memory for tables of its own (HMB), if it wishes some
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, help_heading = "Load")]
    pub host_memory: Option<u64>,

    /// Running time: seconds, or with a unit (500ms, 2m) [default: 5]
    #[arg(long, short = 't', visible_alias = "runtime", value_name = "TIME", value_parser = units::parse_time, conflicts_with = "count", help_heading = "Length")]
    pub time: Option<Duration>,
    /// Run N I/Os in total instead of for a time
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Length")]
    pub count: Option<u64>,
    /// Run this long before the measurement starts
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Length")]
    pub warmup: Option<Duration>,
    /// Give a device up if it completes nothing for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time, help_heading = "Length")]
    pub timeout: Duration,

    /// How to wait for completions; --irq without --wait means irq
    #[arg(
        long,
        short = 'w',
        value_enum,
        default_value = "auto",
        default_value_if("irq", ArgPredicate::IsPresent, "irq"),
        help_heading = "Waiting"
    )]
    pub wait: WaitKind,
    /// Kind of interrupt to wait for, with --wait irq or adaptive [default: auto]
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Waiting")]
    pub irq: Option<IrqArg>,
    /// How long --wait adaptive polls before it sleeps [default: 20us]
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Waiting")]
    pub spin: Option<Duration>,

    /// Check all data that is read: blocks are written with their own address, and each read is compared with the last
    /// write. The whole range is written before a workload with reads, and read back after a workload with writes; neither
    /// pass is measured
    #[arg(long, help_heading = "Data")]
    pub verify: bool,
    #[command(flatten, next_help_heading = "Data")]
    pub consent: Consent,

    /// Print the results as one JSON object on stdout
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Print IOPS, MiB/s and latencies of each interval instead of the progress bar; with --json on stderr, unless that is
    /// a terminal, which has the bar
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Output")]
    pub interval: Option<Duration>,
    /// Measure the parts of the latency: submit, device, reap. Reads the clock three more times per I/O
    #[arg(long, help_heading = "Output")]
    pub latency_breakdown: bool,
    /// Write the latencies of each interval to an HdrHistogram log (V2, compressed)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub histogram: Option<PathBuf>,
    /// Draw latency by percentile, and IOPS and p99 over time, as an SVG image
    #[arg(long, value_name = "FILE.svg", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}

impl PerfArgs {
    /// Exits with a usage error if arguments conflict in a way that clap can't declare.
    pub fn check(&self) {
        if let Some(message) = self.conflict() {
            Self::augment_args(Command::new("upcie perf")).error(ErrorKind::ArgumentConflict, message).exit();
        }
    }

    /// Finds the first conflict between arguments; returns its message.
    fn conflict(&self) -> Option<String> {
        let rw = self.rw.name();
        let own = |address: &&Address| !matches!(address, Address::Emulated(_));
        let twice =
            self.addresses.iter().enumerate().find_map(|(i, address)| {
                self.addresses[..i].contains(address).then_some(address).filter(own)
            });
        let zipf = matches!(self.random, Some(Distribution::Zipf(_)));
        let mixed = self.block_size.as_ref().is_some_and(|sizes| sizes.single().is_none());
        let nulls = self.addresses.iter().find(|address| target::moves_no_data(address));
        let checks = [
            (
                self.irq.is_some() && self.wait == WaitKind::Poll,
                "--irq needs --wait irq or --wait adaptive: polling uses no interrupts".into(),
            ),
            (
                self.spin.is_some() && !matches!(self.wait, WaitKind::Auto | WaitKind::Adaptive),
                format!("--spin needs --wait adaptive: --wait {} does not poll for a time", self.wait.name()),
            ),
            (
                self.mix.is_some() && !(self.rw.reads() && self.rw.writes()),
                format!("--mix needs --rw randrw or rw: --rw {rw} has one kind of I/O"),
            ),
            (
                self.fua && self.rw.trims(),
                format!("--fua needs reads or writes: --rw {rw} moves no blocks"),
            ),
            (
                self.random.is_some() && !self.rw.is_random(),
                format!("--random needs a random workload: --rw {rw} takes the blocks in order"),
            ),
            (
                !self.placement.is_empty() && !self.rw.writes() && !self.verify,
                format!("--placement needs a workload that writes: --rw {rw} does not"),
            ),
            (
                self.prinfo.is_some_and(|bits| bits & ACTION == 0),
                "--prinfo needs the 8: a run keeps no protection information, the controller makes and strips it".into(),
            ),
            (
                self.prinfo.is_some() && self.rw.trims(),
                format!("--prinfo needs reads or writes: --rw {rw} moves no blocks"),
            ),
            (
                self.verify && nulls.is_some(),
                nulls.map_or_else(String::new, |address| {
                    format!("--verify needs a device that keeps data: {address} moves none (null=true)")
                }),
            ),
            (
                self.verify && mixed,
                "--verify needs one --block-size: it keeps a record of I/Os of one size".into(),
            ),
            (
                self.verify && zipf,
                "--verify needs --random uniform: an I/O on a block that is in flight moves on to the next one, and \
                 hot ones always are"
                    .into(),
            ),
            (
                self.verify && self.latency_breakdown,
                "--latency-breakdown can't be used with --verify: the latencies would include filling and checking data".into(),
            ),
            (
                self.verify && self.rw.trims(),
                format!("--verify needs reads or writes: a device may return any data after --rw {rw}"),
            ),
            (
                self.consent.destructive && self.overwrites().is_none(),
                format!("--destructive needs --verify, or a workload that writes: --rw {rw} does not"),
            ),
            (
                self.interval.is_some_and(|interval| interval < SHORTEST_INTERVAL),
                format!("--interval: the shortest is {SHORTEST_INTERVAL:?}"),
            ),
            (
                self.plot.as_deref().is_some_and(|path| files::check_is_svg("--plot", path).is_err()),
                self.plot
                    .as_deref()
                    .and_then(|path| files::check_is_svg("--plot", path).err())
                    .map_or_else(String::new, |error| error.to_string()),
            ),
            (
                twice.is_some(),
                twice.map_or_else(String::new, |address| format!("{address} is given twice")),
            ),
        ];
        checks.into_iter().find_map(|(is_wrong, message)| is_wrong.then_some(message))
    }

    /// Returns the option that destroys data, with its verb, for messages; `None` if all data stays.
    pub fn overwrites(&self) -> Option<String> {
        let rw = self.rw.name();
        match () {
            () if self.rw.trims() => Some(format!("--rw {rw} empties")),
            () if self.rw.writes() => Some(format!("--rw {rw} overwrites")),
            () if self.verify => Some(format!("--verify of --rw {rw} first overwrites")),
            () => None,
        }
    }

    /// Returns the devices as targets.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.addresses.iter().map(|address| Target { address: address.clone() })
    }

    /// Returns the percentage of reads in a mix.
    pub fn mix(&self) -> u8 {
        self.mix.unwrap_or(MIX)
    }

    /// Returns the cores that the user has named, by a list or a mask.
    pub fn pinned(&self) -> Option<&Cores> {
        self.cores.as_ref().or(self.cpumask.as_ref())
    }

    /// Returns the core of each thread; `None` for a thread that is not pinned.
    pub fn threads(&self) -> Vec<Option<usize>> {
        match self.pinned() {
            Some(cores) => cores.0.iter().copied().map(Some).collect(),
            None => vec![None; self.threads.into()],
        }
    }

    /// Returns the wait mode for controllers that have interrupts.
    pub fn waiting(&self) -> Wait {
        match self.wait {
            WaitKind::Poll => Wait::Poll,
            WaitKind::Irq => Wait::Interrupt,
            WaitKind::Auto | WaitKind::Adaptive => Wait::Adaptive(self.spin.unwrap_or(SPIN)),
        }
    }
}
