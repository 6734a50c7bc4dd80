//! Controller properties of a memory-mapped controller: Base, "Controller Properties".

use core::fmt;
use core::time::Duration;

use bitfield_struct::bitfield;

use super::macros::named_values;
use super::offset;

/// The value of register NSSR that resets the NVM subsystem: "NVMe" (Base, "NVM Subsystem Reset").
pub const NSSR_SIGNATURE: u32 = 0x4e56_4d65;

/// Returns the byte offset in BAR 0 of a queue's doorbell: the submission queue's tail or, with `completion`,
/// the completion queue's head. `dstrd` is CAP.DSTRD; only its low four bits count.
///
/// NVM Express over PCIe Transport Specification, "Submission Queue y Tail Doorbell".
#[must_use]
pub const fn doorbell_offset(qid: u16, completion: bool, dstrd: u8) -> usize {
    offset::DOORBELLS + ((qid as usize) * 2 + completion as usize) * (4 << (dstrd & 0xf))
}

const fn page_size(mps: u8) -> u64 {
    1 << (12 + (mps & 0xf))
}

const fn half_seconds(count: u64) -> Duration {
    Duration::from_millis(500 * count)
}

/// CAP, Controller Capabilities.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Capabilities {
    /// Maximum entries of an I/O queue, 0's based.
    pub mqes: u16,
    /// I/O queues must be physically contiguous.
    pub cqr: bool,
    /// Arbitration mechanisms beside round robin: bit 0 weighted round robin with urgent class, bit 1
    /// vendor's.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    __: u8,
    /// Worst-case time for CSTS.RDY to follow CC.EN, in 500 ms units.
    pub to: u8,
    /// Doorbell stride: 2 ^ (2 + DSTRD) bytes.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM subsystem reset (NSSR) is supported.
    pub nssrs: bool,
    /// Command sets: bit 0 NVM, bit 6 one or more chosen by profile, bit 7 none but admin commands.
    pub css: u8,
    /// Boot partitions are supported.
    pub bps: bool,
    /// Controller power scope: 0 not reported, 1 controller, 2 domain, 3 subsystem.
    #[bits(2)]
    pub cps: u8,
    /// Smallest memory page: 2 ^ (12 + MPSMIN) bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// Largest memory page: 2 ^ (12 + MPSMAX) bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// A persistent memory region exists.
    pub pmrs: bool,
    /// A controller memory buffer exists; its registers may have to be enabled by CMBMSC.CRE.
    pub cmbs: bool,
    /// NVM subsystem shutdown (NSSD) is supported.
    pub nsss: bool,
    /// Controller ready modes: bit 0 ready with media, bit 1 ready independent of media. Not 0: CRTO is
    /// valid.
    #[bits(2)]
    pub crms: u8,
    /// NVM subsystem shutdown enhancements are supported (2.1).
    pub nsses: bool,
    #[bits(2)]
    __: u8,
}

impl Capabilities {
    /// Returns `true` if the read gave all ones: the device is gone, and no bit means anything.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u64::MAX
    }

    /// Returns the most entries that an I/O queue may have, 1 to 65536.
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        self.mqes() as u32 + 1
    }

    /// Returns the time that CSTS.RDY may take by CAP.TO. It may be 0, and CRTO replaces it if `crms` isn't
    /// 0.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        half_seconds(self.to() as u64)
    }

    /// Returns the smallest memory page, in bytes: 4 KiB to 128 MiB. It is also the unit of MDTS.
    #[must_use]
    pub const fn page_size_min(self) -> u64 {
        page_size(self.mpsmin())
    }

    /// Returns the largest memory page, in bytes: 4 KiB to 128 MiB. A device may report less than the
    /// smallest.
    #[must_use]
    pub const fn page_size_max(self) -> u64 {
        page_size(self.mpsmax())
    }

    /// Returns the distance between two doorbells, in bytes: 4 to 128 KiB.
    #[must_use]
    pub const fn doorbell_stride(self) -> usize {
        4 << self.dstrd()
    }

    /// Returns `true` if CC.AMS may select weighted round robin with urgent priority class.
    #[must_use]
    pub const fn supports_weighted_round_robin(self) -> bool {
        self.ams() & 1 != 0
    }

    /// Returns `true` if CC.CSS may select the NVM command set alone.
    #[must_use]
    pub const fn supports_nvm(self) -> bool {
        self.css() & 1 != 0
    }

    /// Returns `true` if CC.CSS may select all supported command sets; Identify then lists them.
    #[must_use]
    pub const fn supports_command_set_profiles(self) -> bool {
        self.css() & (1 << 6) != 0
    }
}

/// VS, the version of the Base specification that the controller implements. Ordered by age.
#[bitfield(u32, debug = false)]
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Tertiary version.
    pub tertiary: u8,
    /// Minor version.
    pub minor: u8,
    /// Major version.
    pub major: u16,
}

impl Version {
    /// Makes the version `major.minor.tertiary`.
    #[must_use]
    pub const fn of(major: u16, minor: u8, tertiary: u8) -> Self {
        Self::new().with_major(major).with_minor(minor).with_tertiary(tertiary)
    }
}

/// `2.0` or `1.2.1`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())?;
        if self.tertiary() != 0 { write!(f, ".{}", self.tertiary()) } else { Ok(()) }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

named_values! {
    /// CC.CSS, the command set selected.
    CommandSet(u8) {
        NVM = 0, "NVM command set";
        ALL = 6, "all supported I/O command sets";
        ADMIN_ONLY = 7, "admin command set only";
    }
}

named_values! {
    /// CC.AMS, the arbitration mechanism selected.
    ArbitrationMechanism(u8) {
        ROUND_ROBIN = 0, "round robin";
        WEIGHTED = 1, "weighted round robin with urgent priority class";
        VENDOR = 7, "vendor specific";
    }
}

named_values! {
    /// CC.SHN, the host's request to shut down.
    ShutdownNotification(u8) {
        NONE = 0, "no notification";
        NORMAL = 1, "normal shutdown";
        ABRUPT = 2, "abrupt shutdown";
    }
}

named_values! {
    /// CSTS.SHST, the progress of a shutdown.
    ShutdownStatus(u8) {
        NORMAL = 0, "normal operation";
        OCCURRING = 1, "shutdown processing";
        COMPLETE = 2, "shutdown complete";
    }
}

/// BPINFO, Boot Partition Information.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct BootPartitionProperty {
    /// Size of each boot partition, in units of 128 KiB.
    #[bits(15)]
    pub bpsz: u16,
    #[bits(9)]
    __: u16,
    /// State of the last read.
    #[bits(2)]
    pub brs: BootReadStatus,
    #[bits(5)]
    __: u8,
    /// The active partition.
    pub abpid: bool,
}

named_values! {
    /// BPINFO.BRS, the state of a read of a boot partition.
    BootReadStatus(u8) {
        NONE = 0, "no read";
        IN_PROGRESS = 1, "in progress";
        COMPLETED = 2, "completed";
        FAILED = 3, "failed";
    }
}

/// BPRSEL, Boot Partition Read Select: a write begins a read.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct BootPartitionSelect {
    /// Bytes to read, in units of 4 KiB.
    #[bits(10)]
    pub bprsz: u16,
    /// First byte, in units of 4 KiB.
    #[bits(20)]
    pub bprof: u32,
    #[bits(1)]
    __: u8,
    /// The partition.
    pub bpid: bool,
}

/// CC, Controller Configuration.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Configuration {
    /// Enable. From 1 to 0 is a controller reset.
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// Command set. Changes only while `en` is 0.
    #[bits(3)]
    pub css: CommandSet,
    /// Memory page size: 2 ^ (12 + MPS) bytes. Changes only while `en` is 0.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration mechanism. Changes only while `en` is 0.
    #[bits(3)]
    pub ams: ArbitrationMechanism,
    /// Shutdown notification.
    #[bits(2)]
    pub shn: ShutdownNotification,
    /// I/O submission queue entry size: 2 ^ IOSQES bytes, 6 for the NVM command set.
    #[bits(4)]
    pub iosqes: u8,
    /// I/O completion queue entry size: 2 ^ IOCQES bytes, 4 for the NVM command set.
    #[bits(4)]
    pub iocqes: u8,
    /// Controller ready independent of media, where CAP.CRMS allows it.
    pub crime: bool,
    #[bits(7)]
    __: u8,
}

impl Configuration {
    /// Returns the memory page size selected, in bytes.
    #[must_use]
    pub const fn page_size(self) -> u64 {
        page_size(self.mps())
    }
}

/// CSTS, Controller Status.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ControllerStatus {
    /// Ready to process commands.
    pub rdy: bool,
    /// A fatal error that the controller couldn't report as a completion.
    pub cfs: bool,
    /// Shutdown status.
    #[bits(2)]
    pub shst: ShutdownStatus,
    /// An NVM subsystem reset occurred. Writing 1 clears it.
    pub nssro: bool,
    /// Processing is paused: commands stall until the controller lifts it.
    pub pp: bool,
    /// The shutdown that `shst` reports is the subsystem's, not the controller's.
    pub st: bool,
    #[bits(25)]
    __: u32,
}

impl ControllerStatus {
    /// Returns `true` if the read gave all ones: the device is gone, and no bit means anything. Check this
    /// first.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u32::MAX
    }
}

/// AQA, Admin Queue Attributes.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AdminQueueAttributes {
    /// Entries of the admin submission queue, 0's based: 2 to 4096 entries.
    #[bits(12)]
    pub asqs: u16,
    #[bits(4)]
    __: u8,
    /// Entries of the admin completion queue, 0's based: 2 to 4096 entries.
    #[bits(12)]
    pub acqs: u16,
    #[bits(4)]
    __: u8,
}

/// CRTO, Controller Ready Timeouts. Valid if CAP.CRMS isn't 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReadyTimeouts {
    /// Time to be ready with media, in 500 ms units.
    pub crwmt: u16,
    /// Time to be ready independent of media, in 500 ms units.
    pub crimt: u16,
}

impl ReadyTimeouts {
    /// Returns the time that the controller may take to be ready, with its media.
    #[must_use]
    pub const fn with_media(self) -> Duration {
        half_seconds(self.crwmt() as u64)
    }

    /// Returns the time that the controller may take to be ready, independent of its media.
    #[must_use]
    pub const fn independent_of_media(self) -> Duration {
        half_seconds(self.crimt() as u64)
    }
}
