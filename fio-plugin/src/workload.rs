//! The workload of a job: fio's options and the engine's, checked as far as possible without a device.

use crate::{errors::Failure, ffi, options::BlockOptions};
use std::{fmt, time::Duration};
use upcie_nvme::{Wait, spec::QueuePriority, upcie_core::memory::PageSize};

/// Time that `upcie_wait=adaptive` polls.
const SPIN: Duration = Duration::from_micros(50);
/// fio's directions, in its order.
const DIRECTIONS: [&str; 3] = ["read", "write", "trim"];

/// The options of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) nsid: u32,
    pub(crate) wait: Wait,
    pub(crate) pages: Option<PageSize>,
    /// Number of commands; 0 means as many as needed.
    pub(crate) queue_depth: u32,
    pub(crate) priority: Option<QueuePriority>,
    pub(crate) timeout: Duration,
    /// Number of I/O units.
    pub(crate) depth: u32,
    /// Bytes of the longest read or write, known at the start: a trim is one command of any size.
    pub(crate) longest: u64,
    pub(crate) trims: bool,
    /// Options about blocks and commands.
    pub(crate) blocks: BlockOptions,
    pub(crate) directive: Directive,
    workload: ffi::Workload,
}

/// The directive of a job's writes: fio's `fdp=1` and `dataplacement=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directive {
    None,
    Placement,
    Streams,
}

/// The bytes of a block in fio's buffers, for messages with what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockBytes {
    pub(crate) bytes: u64,
    /// Bytes of them that are metadata.
    pub(crate) metadata: u64,
}

impl fmt::Display for BlockBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, metadata } = self;
        match metadata {
            0 => write!(f, "{bytes} bytes"),
            _ => write!(f, "{bytes} bytes ({} of data and {metadata} of metadata)", bytes - metadata),
        }
    }
}

impl Plan {
    /// Checks the options; `checks` is the text of `pi_chk=`.
    pub(crate) fn new(
        options: &ffi::Options,
        checks: &str,
        workload: &ffi::Workload,
    ) -> Result<Self, Failure> {
        if workload.threads == 0 {
            return Err(Failure::refused(
                "thread=1 is needed: jobs share the controllers of one process, which forked jobs can't",
            ));
        }
        if workload.named == 0 {
            return Err(Failure::refused(
                "filename= is missing: it names the device (0000.01.00.0, emu, vfio-user\\:/path)",
            ));
        }
        if workload.memory != 0 {
            return Err(Failure::refused(
                "mem= is not for this engine: data is in DMA memory (upcie_hugepage= sets its page size)",
            ));
        }
        let wait = match options.wait {
            0 => Wait::Poll,
            1 => Wait::Interrupt,
            _ => Wait::Adaptive(SPIN),
        };
        let pages = match options.hugepage {
            0 => None,
            1 => Some(PageSize::Small),
            2 => Some(PageSize::Huge2M),
            _ => Some(PageSize::Huge1G),
        };
        let priority = match options.priority {
            0 => None,
            1 => Some(QueuePriority::URGENT),
            2 => Some(QueuePriority::HIGH),
            3 => Some(QueuePriority::MEDIUM),
            _ => Some(QueuePriority::LOW),
        };
        let timeout = Duration::from_micros(options.timeout_us);
        if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(24 * 3600) {
            return Err(Failure::refused("upcie_timeout is from 1ms to 24h"));
        }
        if workload.unaligned != 0 {
            return Err(Failure::refused(
                "bs_unaligned=1: a controller transfers whole blocks only; leave it out",
            ));
        }
        let depth = u32::try_from(workload.depth).ok().filter(|&depth| depth < 65536);
        let depth = depth.ok_or_else(|| {
            Failure::refused(format!(
                "iodepth={}: a queue pair has room for 65535 commands at most",
                workload.depth
            ))
        })?;
        Ok(Self {
            nsid: options.nsid,
            wait,
            pages,
            queue_depth: options.queue_depth,
            priority,
            timeout,
            depth,
            longest: 0,
            trims: workload.uses[2] != 0,
            blocks: BlockOptions::new(options, checks)?,
            directive: match workload.directive {
                0 => Directive::None,
                1 => Directive::Placement,
                _ => Directive::Streams,
            },
            workload: *workload,
        })
    }

    /// Returns `true` if the job writes.
    pub(crate) fn writes(&self) -> bool {
        self.workload.uses[1] != 0
    }

    /// Returns `true` if the job verifies data.
    pub(crate) fn verifies(&self) -> bool {
        self.workload.verifies != 0
    }

    /// Returns `true` if all data that is verified is a pattern.
    pub(crate) fn has_pattern(&self) -> bool {
        self.workload.pattern != 0
    }

    /// Checks that a namespace suits fio's zone mode.
    pub(crate) fn check_zones(&self, name: &str, has_zones: bool) -> Result<(), Failure> {
        if self.workload.zoned == 0 || has_zones {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{name}: zonemode=zbd is for zoned namespaces, and namespace {} is none (zonemode=strided is for all others)",
            self.nsid
        )))
    }

    fn used(&self) -> impl Iterator<Item = usize> {
        (0..3).filter(|&direction| self.workload.uses[direction] != 0)
    }

    /// Checks that a namespace of `size` bytes is large enough for an I/O at `offset`.
    pub(crate) fn check_start(
        &self,
        name: &str,
        block: &BlockBytes,
        size: u64,
        offset: u64,
    ) -> Result<(), Failure> {
        let least = self.used().map(|direction| self.workload.least_block[direction]).min().unwrap_or(0);
        // fio would do nothing, and report success.
        if size.saturating_sub(offset) < least.max(1) {
            return Err(Failure::refused(format!(
                "{name}: an offset of {offset} bytes (each job of numjobs= adds its offset_increment=) leaves no \
                 room for a bs of {least} bytes in the namespace's {size} bytes"
            )));
        }
        check_block(name, block, "offset", offset)
    }

    /// Checks that all sizes are multiples of the namespace's blocks.
    pub(crate) fn check_blocks(&self, name: &str, block: &BlockBytes) -> Result<(), Failure> {
        for direction in self.used() {
            let kind = DIRECTIONS[direction];
            check_block(name, block, &format!("bs ({kind}s)"), self.workload.least_block[direction])?;
            check_block(name, block, &format!("blockalign ({kind}s)"), self.workload.alignment[direction])?;
        }
        check_block(name, block, "the largest bs", self.workload.max_block)
    }
}

/// Checks that the size named by `what` is a multiple of the namespace's blocks.
pub(crate) fn check_block(name: &str, block: &BlockBytes, what: &str, size: u64) -> Result<(), Failure> {
    if size.is_multiple_of(block.bytes) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{name}: {what} of {size} bytes is not a multiple of the namespace's blocks of {block}"
    )))
}
