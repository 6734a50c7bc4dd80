//! Controller properties of a memory-mapped controller: Base, "Controller Properties".

use core::fmt;
use core::time::Duration;

use bitfield_struct::bitfield;

use super::macros::named_values;

/// Byte offsets of the registers in BAR 0.
///
/// Registers of 8 bytes may be read and written as two of 4, the lower one first.
pub mod offset {
    /// Controller Capabilities, 8 bytes, read-only.
    pub const CAP: usize = 0x00;
    /// Version, 4 bytes, read-only.
    pub const VS: usize = 0x08;
    /// Interrupt Mask Set, 4 bytes. Not for MSI-X.
    pub const INTMS: usize = 0x0c;
    /// Interrupt Mask Clear, 4 bytes. Not for MSI-X.
    pub const INTMC: usize = 0x10;
    /// Controller Configuration, 4 bytes.
    pub const CC: usize = 0x14;
    /// Controller Status, 4 bytes.
    pub const CSTS: usize = 0x1c;
    /// NVM Subsystem Reset, 4 bytes: writing 4E564D65h ("NVMe") resets the whole subsystem.
    pub const NSSR: usize = 0x20;
    /// Admin Queue Attributes, 4 bytes.
    pub const AQA: usize = 0x24;
    /// Admin Submission Queue Base Address, 8 bytes.
    pub const ASQ: usize = 0x28;
    /// Admin Completion Queue Base Address, 8 bytes.
    pub const ACQ: usize = 0x30;
    /// Controller Memory Buffer Location, 4 bytes, read-only.
    pub const CMBLOC: usize = 0x38;
    /// Controller Memory Buffer Size, 4 bytes, read-only.
    pub const CMBSZ: usize = 0x3c;
    /// Boot Partition Information, 4 bytes, read-only.
    pub const BPINFO: usize = 0x40;
    /// Boot Partition Read Select, 4 bytes.
    pub const BPRSEL: usize = 0x44;
    /// Boot Partition Memory Buffer Location, 8 bytes.
    pub const BPMBL: usize = 0x48;
    /// Controller Memory Buffer Memory Space Control, 8 bytes.
    pub const CMBMSC: usize = 0x50;
    /// Controller Memory Buffer Status, 4 bytes, read-only.
    pub const CMBSTS: usize = 0x58;
    /// Controller Memory Buffer Elasticity Buffer Size, 4 bytes, read-only.
    pub const CMBEBS: usize = 0x5c;
    /// Controller Memory Buffer Sustained Write Throughput, 4 bytes, read-only.
    pub const CMBSWTP: usize = 0x60;
    /// NVM Subsystem Shutdown, 4 bytes.
    pub const NSSD: usize = 0x64;
    /// Controller Ready Timeouts, 4 bytes, read-only.
    pub const CRTO: usize = 0x68;
    /// Persistent Memory Region Capabilities, 4 bytes, read-only.
    pub const PMRCAP: usize = 0xe00;
    /// Persistent Memory Region Control, 4 bytes.
    pub const PMRCTL: usize = 0xe04;
    /// Persistent Memory Region Status, 4 bytes, read-only.
    pub const PMRSTS: usize = 0xe08;
    /// Persistent Memory Region Elasticity Buffer Size, 4 bytes, read-only.
    pub const PMREBS: usize = 0xe0c;
    /// Persistent Memory Region Sustained Write Throughput, 4 bytes, read-only.
    pub const PMRSWTP: usize = 0xe10;
    /// Persistent Memory Region Controller Memory Space Control, lower 4 bytes.
    pub const PMRMSCL: usize = 0xe14;
    /// Persistent Memory Region Controller Memory Space Control, upper 4 bytes.
    pub const PMRMSCU: usize = 0xe18;
    /// Submission Queue 0 Tail Doorbell, the first of the doorbells; see [`doorbell_offset`](super::doorbell_offset).
    pub const DOORBELLS: usize = 0x1000;
}

/// The byte offset in BAR 0 of a queue's doorbell: the submission queue's tail or, with `completion`, the
/// completion queue's head. `dstrd` is CAP.DSTRD, of which the low four bits count.
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
    /// Arbitration mechanisms beside round robin: bit 0 weighted round robin with urgent class, bit 1 vendor's.
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
    /// Controller ready modes: bit 0 ready with media, bit 1 ready independent of media. Not 0: CRTO is valid.
    #[bits(2)]
    pub crms: u8,
    /// NVM subsystem shutdown enhancements are supported (2.1).
    pub nsses: bool,
    #[bits(2)]
    __: u8,
}

impl Capabilities {
    /// Whether the read gave all ones: the device is gone, and no bit means anything.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        self.into_bits() == u64::MAX
    }

    /// The most entries that an I/O queue may have, 1 to 65536.
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        self.mqes() as u32 + 1
    }

    /// How long CSTS.RDY may take, as CAP.TO has it: may be 0, and CRTO takes its place if `crms` isn't 0.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        half_seconds(self.to() as u64)
    }

    /// The smallest memory page, in bytes: 4 KiB to 128 MiB. It is the unit of MDTS, too.
    #[must_use]
    pub const fn page_size_min(self) -> u64 {
        page_size(self.mpsmin())
    }

    /// The largest memory page, in bytes: 4 KiB to 128 MiB. A device may claim less than the smallest.
    #[must_use]
    pub const fn page_size_max(self) -> u64 {
        page_size(self.mpsmax())
    }

    /// The distance of two doorbells, in bytes: 4 to 128 KiB.
    #[must_use]
    pub const fn doorbell_stride(self) -> usize {
        4 << self.dstrd()
    }

    /// Whether CC.CSS may select the NVM command set alone.
    #[must_use]
    pub const fn supports_nvm(self) -> bool {
        self.css() & 1 != 0
    }

    /// Whether CC.CSS may select all supported command sets, and Identify tells which they are.
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
    /// Version `major.minor.tertiary`.
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
    /// CSTS.SHST, how far a shutdown is.
    ShutdownStatus(u8) {
        NORMAL = 0, "normal operation";
        OCCURRING = 1, "shutdown processing";
        COMPLETE = 2, "shutdown complete";
    }
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
    /// The memory page size selected, in bytes.
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
    /// Whether the read gave all ones: the device is gone, and no bit means anything. Ask this first.
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

/// CMBLOC, Controller Memory Buffer Location.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmbLocation {
    /// The BAR that holds the buffer: 0, 2, 3, 4 or 5.
    #[bits(3)]
    pub bir: u8,
    /// Queues may lie partly in the buffer, partly in host memory.
    pub cqmms: bool,
    /// A queue in the buffer may be physically discontiguous.
    pub cqpds: bool,
    /// Lists in the buffer may point to host memory and the other way round.
    pub cdpmls: bool,
    /// Data and metadata of a command may be in different places than its lists.
    pub cdpcils: bool,
    /// One command's data may be partly in the buffer, partly in host memory.
    pub cdmmms: bool,
    /// Queues in the buffer need dword-aligned addresses only.
    pub cqda: bool,
    #[bits(3)]
    __: u8,
    /// Offset in the BAR, in units of CMBSZ.SZU.
    #[bits(20)]
    pub ofst: u32,
}

/// CMBSZ, Controller Memory Buffer Size. All zero: there is none, or CMBMSC.CRE isn't set.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmbSize {
    /// Submission queues may be in the buffer.
    pub sqs: bool,
    /// Completion queues may be in the buffer.
    pub cqs: bool,
    /// PRP and SGL lists may be in the buffer.
    pub lists: bool,
    /// Data that the controller reads from the host may be in the buffer ("Read Data Support").
    pub rds: bool,
    /// Data that the controller writes to the host may be in the buffer ("Write Data Support").
    pub wds: bool,
    #[bits(3)]
    __: u8,
    /// Unit of sizes and offsets: 4 KiB × 16 ^ SZU.
    #[bits(4)]
    pub szu: u8,
    /// Size, in units.
    #[bits(20)]
    pub sz: u32,
}

impl CmbSize {
    /// The unit of `sz` and CMBLOC.OFST in bytes, 4 KiB to 64 GiB; `None` for a reserved SZU.
    #[must_use]
    pub const fn unit(self) -> Option<u64> {
        if self.szu() <= 6 { Some(4096 << (4 * self.szu())) } else { None }
    }

    /// The buffer's size in bytes; `None` for a reserved SZU.
    #[must_use]
    pub const fn bytes(self) -> Option<u64> {
        match self.unit() {
            Some(unit) => Some(unit * self.sz() as u64),
            None => None,
        }
    }
}

/// CMBMSC, Controller Memory Buffer Memory Space Control.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CmbMemorySpaceControl {
    /// Capabilities registers enabled: CMBLOC and CMBSZ are valid.
    pub cre: bool,
    /// Controller memory space enabled: the controller decodes its own buffer's addresses.
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// Bits 63:12 of the address by which commands refer to the buffer.
    #[bits(52)]
    pub cba: u64,
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
    /// How long the controller may take to be ready, with its media.
    #[must_use]
    pub const fn with_media(self) -> Duration {
        half_seconds(self.crwmt() as u64)
    }

    /// How long the controller may take to be ready, its media not counted.
    #[must_use]
    pub const fn independent_of_media(self) -> Duration {
        half_seconds(self.crimt() as u64)
    }
}

/// PMRCAP, Persistent Memory Region Capabilities.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PmrCapabilities {
    #[bits(3)]
    __: u8,
    /// Data that the controller reads from the host may be in the region.
    pub rds: bool,
    /// Data that the controller writes to the host may be in the region.
    pub wds: bool,
    /// The BAR that holds the region.
    #[bits(3)]
    pub bir: u8,
    /// Unit of `pmrto`: 0 is 500 ms, 1 is minutes.
    #[bits(2)]
    pub pmrtu: u8,
    /// Write barriers: bit 0 a read of the region, bit 1 a read of PMRSTS.
    #[bits(4)]
    pub pmrwbm: u8,
    #[bits(2)]
    __: u8,
    /// Time for PMRSTS.NRDY to follow PMRCTL.EN, in units of `pmrtu`.
    pub pmrto: u8,
    /// The region can be given controller memory addresses (PMRMSCL, PMRMSCU).
    pub cmss: bool,
    #[bits(7)]
    __: u8,
}
