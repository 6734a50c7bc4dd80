//! The command line of `upcie perf`.

use super::{cores::Cores, random::Distribution, sizes::Sizes, workload::Workload};
use crate::{
    files,
    guard::Consent,
    target::{self, Target},
    units::{self, Bytes},
};
use clap::{Args, Command, ValueEnum, builder::ArgPredicate, error::ErrorKind};
use std::{path::PathBuf, time::Duration};
use upcie_core::memory::PageSize;
use upcie_nvme::{Address, IrqKind, Wait};

/// Intervals shorter than this are not told apart from what the threads do.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Percentage of reads in a mix.
const MIX: u8 = 70;
/// How long an adaptive wait polls.
const SPIN: Duration = Duration::from_micros(20);

/// How to wait for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitKind {
    /// poll with an idle core for each thread (and embedded controller), or without interrupts; else adaptive
    Auto,
    /// Look at the queues again and again: the shortest latency, a whole core
    Poll,
    /// Sleep until the interrupt
    Irq,
    /// Poll for --spin, then sleep; or sleep at once while polling has not paid
    Adaptive,
}

impl WaitKind {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
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

/// The pages of DMA memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Buffers {
    /// 2 MiB pages while some are free, 4 KiB pages otherwise
    Auto,
    /// 2 MiB pages (`hugepages` sets some aside)
    Hugepage,
    /// 4 KiB pages; not without an IOMMU
    #[value(name = "4k")]
    Small,
}

impl Buffers {
    /// As the driver takes it.
    pub fn pages(self) -> Option<PageSize> {
        match self {
            Self::Auto => None,
            Self::Hugepage => Some(PageSize::Huge2M),
            Self::Small => Some(PageSize::Small),
        }
    }

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hugepage => "hugepage",
            Self::Small => "4k",
        }
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate = units::parse_count(text)?;
    if (1..=1_000_000_000).contains(&rate) { Ok(rate) } else { Err("1 to 1000M I/Os per second".into()) }
}

/// Arguments of `upcie perf`.
#[derive(Debug, Args)]
pub struct PerfArgs {
    /// The devices: PCI addresses, vfio-user:SOCKET, emu, … (see below)
    #[arg(value_name = "ADDR", required = true, value_parser = target::parse_address)]
    pub addresses: Vec<Address>,

    /// What the I/Os do; those that write or trim need --destructive
    #[arg(long, value_enum, default_value = "randread", help_heading = "Workload")]
    pub rw: Workload,
    /// Percentage of reads in randrw [default: 70]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Workload")]
    pub mix: Option<u8>,
    /// Bytes of each I/O, or several sizes with their shares (4k:60,64k:40) [default: 4096, or one block if that is more]
    #[arg(long, short = 'b', visible_alias = "bs", value_name = "BYTES", help_heading = "Workload")]
    pub block_size: Option<Sizes>,
    /// Which blocks random I/Os prefer: uniform, none; zipf:THETA, the kth most popular in proportion to 1 / k^THETA
    /// [default: uniform]
    #[arg(long, value_name = "DISTRIBUTION", help_heading = "Workload")]
    pub random: Option<Distribution>,
    /// The same seed gives the same I/Os
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Workload")]
    pub seed: u64,
    /// The namespace of each device [default: the first]
    #[arg(long, short = 'n', value_name = "NSID", help_heading = "Workload")]
    pub namespace: Option<u32>,
    /// First byte of the range that is used, on each device
    #[arg(long, value_name = "BYTES", default_value = "0", help_heading = "Workload")]
    pub offset: Bytes,
    /// Bytes of the range that is used, on each device [default: to the end of the namespace; with --verify at most 256M]
    #[arg(long, short, alias = "size", value_name = "BYTES", help_heading = "Workload")]
    pub length: Option<Bytes>,

    /// I/Os in flight on each queue pair [default: 32]
    #[arg(long, short = 'd', visible_alias = "iodepth", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65535), help_heading = "Load")]
    pub depth: Option<u32>,
    /// Queue pairs that each thread has on each device; each has its own part of the range
    #[arg(long, short = 'q', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Load")]
    pub queues: u16,
    /// Threads; every thread drives every device
    #[arg(long, short = 'j', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "cores", help_heading = "Load")]
    pub threads: u16,
    /// One thread on each of these cores (0,2-3), pinned
    #[arg(long, value_name = "LIST", help_heading = "Load")]
    pub cores: Option<Cores>,
    /// Start so many I/Os per second, of all queue pairs together, at even distances and whatever the devices do
    /// [default: as many as they take]
    #[arg(long, value_name = "IOPS", value_parser = parse_rate, help_heading = "Load")]
    pub rate: Option<u64>,
    /// Pages of DMA memory: buffers and rings
    #[arg(long, value_enum, default_value = "auto", help_heading = "Load")]
    pub buffers: Buffers,

    /// How long to run: seconds, or with a unit (500ms, 2m) [default: 5]
    #[arg(long, short = 't', visible_alias = "runtime", value_name = "TIME", value_parser = units::parse_time, conflicts_with = "count", help_heading = "Length")]
    pub time: Option<Duration>,
    /// Run this many I/Os (of all queue pairs together) instead of for a time
    #[arg(long, short = 'c', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Length")]
    pub count: Option<u64>,
    /// Run for so long before, and measure nothing of it
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Length")]
    pub warmup: Option<Duration>,
    /// Give a device up when it completes nothing for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time, help_heading = "Length")]
    pub timeout: Duration,

    /// How to wait for completions; with --irq alone: irq
    #[arg(
        long,
        short = 'w',
        value_enum,
        default_value = "auto",
        default_value_if("irq", ArgPredicate::IsPresent, "irq"),
        help_heading = "Waiting"
    )]
    pub wait: WaitKind,
    /// The interrupts that --wait irq and adaptive sleep for [default: auto]
    #[arg(long, value_enum, value_name = "KIND", help_heading = "Waiting")]
    pub irq: Option<IrqArg>,
    /// How long --wait adaptive polls before it sleeps [default: 20us]
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Waiting")]
    pub spin: Option<Duration>,

    /// Write data that says where it belongs, and check every read against what was written last. Before a workload with
    /// reads the range is written once, after one with writes it is read once; neither is measured
    #[arg(long, help_heading = "Data")]
    pub verify: bool,
    #[command(flatten, next_help_heading = "Data")]
    pub consent: Consent,

    /// Print one JSON object on stdout, and nothing else
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Print IOPS, MiB/s and latencies of each interval, in place of the progress bar
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, help_heading = "Output")]
    pub interval: Option<Duration>,
    /// Measure where the time goes: submit, device, reap. Costs three readings of the clock per I/O
    #[arg(long, help_heading = "Output")]
    pub latency_breakdown: bool,
    /// Write the latencies of each interval as an HdrHistogram log (V2, compressed)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub histogram: Option<PathBuf>,
    /// Draw latency by percentile, and IOPS and p99 over time, as an SVG image
    #[arg(long, value_name = "FILE.svg", help_heading = "Output")]
    pub plot: Option<PathBuf>,
}

impl PerfArgs {
    /// Ends the program, as for any wrong usage, when arguments don't go together that are known to do so only now.
    pub fn check(&self) {
        if let Some(message) = self.conflict() {
            Self::augment_args(Command::new("upcie perf")).error(ErrorKind::ArgumentConflict, message).exit();
        }
    }

    /// What can't be had together.
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
                self.mix.is_some() && self.rw != Workload::RandRw,
                format!("--mix needs --rw randrw: --rw {rw} has one kind of I/O"),
            ),
            (
                self.random.is_some() && !self.rw.is_random(),
                format!("--random needs a random workload: --rw {rw} takes the blocks in order"),
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
                "--latency-breakdown can't go with --verify: filling and checking data would be part of it".into(),
            ),
            (
                self.verify && self.rw.trims(),
                format!("--verify needs reads or writes: what --rw {rw} leaves behind is the device's choice"),
            ),
            (
                self.consent.destructive && self.overwrites().is_none(),
                format!("--destructive needs --verify, or a workload that writes: --rw {rw} does not"),
            ),
            (
                self.interval.is_some_and(|interval| interval < SHORTEST_INTERVAL),
                format!("--interval: at least {SHORTEST_INTERVAL:?} is needed"),
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

    /// What happens to the data that is on the devices, for messages; `None` if it stays.
    pub fn overwrites(&self) -> Option<String> {
        let rw = self.rw.name();
        match () {
            () if self.rw.trims() => Some(format!("--rw {rw} empties")),
            () if self.rw.writes() => Some(format!("--rw {rw} overwrites")),
            () if self.verify => Some(format!("--verify of --rw {rw} first overwrites")),
            () => None,
        }
    }

    /// The devices.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        self.addresses.iter().map(|address| Target { address: address.clone() })
    }

    /// Percentage of reads in a mix.
    pub fn mix(&self) -> u8 {
        self.mix.unwrap_or(MIX)
    }

    /// The core of each thread.
    pub fn threads(&self) -> Vec<Option<usize>> {
        match &self.cores {
            Some(cores) => cores.0.iter().copied().map(Some).collect(),
            None => vec![None; self.threads.into()],
        }
    }

    /// How to wait, where there are interrupts.
    pub fn waiting(&self) -> Wait {
        match self.wait {
            WaitKind::Poll => Wait::Poll,
            WaitKind::Irq => Wait::Interrupt,
            WaitKind::Auto | WaitKind::Adaptive => Wait::Adaptive(self.spin.unwrap_or(SPIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn parse(text: &str) -> Result<PerfArgs, clap::Error> {
        let words = std::iter::once("perf").chain(text.split_whitespace());
        let matches = PerfArgs::augment_args(Command::new("perf")).try_get_matches_from(words)?;
        PerfArgs::from_arg_matches(&matches)
    }

    #[test]
    fn what_can_t_go_together_is_named() {
        for (text, part) in [
            ("emu --irq msix --wait poll", "--irq needs"),
            ("emu --spin 5us --wait irq", "--wait irq does not poll"),
            ("emu emu:null=true --verify", "emu:null=true moves none"),
            ("emu --rw read --mix 50", "--mix needs --rw randrw"),
            ("emu --rw write --random zipf:1.1", "--rw write takes the blocks in order"),
            ("emu --verify --block-size 4k:50,8k:50", "one --block-size"),
            ("emu --verify --random zipf:1.1", "--random uniform"),
            ("emu --verify --latency-breakdown", "can't go with --verify"),
            ("emu --verify --rw trim", "--rw trim leaves behind"),
            ("emu --destructive", "--rw randread does not"),
            ("emu --plot x.png", "SVG"),
            ("emu --interval 1ms", "at least 10ms"),
            ("emu vfio-user:/x emu vfio-user:/x", "vfio-user:/x is given twice"),
        ] {
            let conflict = parse(text).unwrap().conflict().unwrap_or_default();
            assert!(conflict.contains(part), "{text}: {conflict}");
        }
        for text in [
            "emu emu",
            "emu --irq msi",
            "emu --rw write --yes",
            "emu --verify --destructive",
            "emu --rw randrw --mix 3 --random zipf:1 --rate 5 --warmup 1",
        ] {
            assert_eq!(parse(text).unwrap().conflict(), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused_at_once() {
        for text in [
            "",
            "emu --rate 0",
            "emu --cores 0 --threads 2",
            "emu --threads 0",
            "emu --block-size 4k:50",
            "emu --random often",
            "emu --warmup 0",
            "emu --time 1 --count 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fio_s_names_are_taken() {
        let fio = parse("emu --bs 512 --iodepth 7 --runtime 3").unwrap();
        let ours = parse("emu --block-size 512 --depth 7 --time 3").unwrap();
        assert_eq!(format!("{fio:?}"), format!("{ours:?}"));
        assert_eq!((fio.depth, fio.time), (Some(7), Some(Duration::from_secs(3))));
    }

    #[test]
    fn threads_are_pinned_if_cores_are_given() {
        assert_eq!(parse("emu --threads 2").unwrap().threads(), [None, None]);
        assert_eq!(parse("emu --cores 3,1").unwrap().threads(), [Some(3), Some(1)]);
    }
}
