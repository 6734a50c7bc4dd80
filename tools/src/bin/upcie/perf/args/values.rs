//! Values of options: how to wait, by which interrupts, in which pages, and over which range.

use crate::units::Bytes;
use clap::ValueEnum;
use std::{fmt, str::FromStr};
use upcie_core::memory::PageSize;
use upcie_nvme::IrqKind;

/// Value of `--length`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Length {
    /// A number of bytes.
    Bytes(Bytes),
    /// A percentage of the namespace.
    Percent(u8),
}

impl Length {
    /// Returns the bytes, of a namespace of `total` bytes.
    pub fn of(&self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.bytes,
            Self::Percent(percent) => (u128::from(total) * u128::from(*percent) / 100) as u64,
        }
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else { return text.parse().map(Self::Bytes) };
        let percent = percent.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent));
        percent.map(Self::Percent).ok_or_else(|| format!("{text:?} is no share: use 1% to 100%"))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Value of `--wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitKind {
    /// Poll if every thread (and embedded controller) has an idle core, or there are no interrupts; else adaptive
    Auto,
    /// Poll the queues all the time: shortest latency, uses a whole core
    Poll,
    /// Sleep until an interrupt arrives
    Irq,
    /// Poll for --spin, then sleep; sleep at once while polling does not pay off
    Adaptive,
}

impl WaitKind {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Poll => "poll",
            Self::Irq => "irq",
            Self::Adaptive => "adaptive",
        }
    }
}

/// Value of `--irq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IrqArg {
    /// The best that the device has: msix, then msi, then intx
    Auto,
    /// Pin interrupts: one vector for all queues
    Intx,
    /// Message signalled interrupts
    Msi,
    /// Extended message signalled interrupts: a vector for each queue
    Msix,
}

impl IrqArg {
    /// Returns the driver's value; `None` for its own choice.
    pub fn kind(self) -> Option<IrqKind> {
        match self {
            Self::Auto => None,
            Self::Intx => Some(IrqKind::Intx),
            Self::Msi => Some(IrqKind::Msi),
            Self::Msix => Some(IrqKind::Msix),
        }
    }
}

/// Value of `--buffers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Buffers {
    /// 2 MiB pages while some are free, then 4 KiB pages
    Auto,
    /// 2 MiB pages (reserve some with `hugepages setup`)
    Hugepage,
    /// 4 KiB pages; need an IOMMU
    #[value(name = "4k")]
    Small,
}

impl Buffers {
    /// Returns the driver's value; `None` for its own choice.
    pub fn pages(self) -> Option<PageSize> {
        match self {
            Self::Auto => None,
            Self::Hugepage => Some(PageSize::Huge2M),
            Self::Small => Some(PageSize::Small),
        }
    }

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hugepage => "hugepage",
            Self::Small => "4k",
        }
    }
}
