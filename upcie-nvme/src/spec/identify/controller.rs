//! Base, "Identify Controller data structure".

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::fields::{ascii, utf8};
use super::super::macros::assert_size;
use super::super::registers::Version;
use super::nvm_controller::{OptionalCommands, pages};
use super::power_state::PowerState;

/// Identify Controller (CNS 01h), 4096 bytes.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor ID.
    pub vid: u16,
    /// PCI subsystem vendor ID.
    pub ssvid: u16,
    /// Serial number, ASCII; see [`Self::serial`].
    pub sn: [u8; 20],
    /// Model number, ASCII; see [`Self::model`].
    pub mn: [u8; 40],
    /// Firmware revision, ASCII; see [`Self::firmware`].
    pub fr: [u8; 8],
    /// Recommended arbitration burst, 2 ^ RAB commands.
    pub rab: u8,
    /// IEEE OUI of the vendor, little endian.
    pub ieee: [u8; 3],
    /// Multi-path and namespace sharing: bit 0 several ports, 1 several controllers, 2 virtual function, 3
    /// ANA.
    pub cmic: u8,
    /// Maximum data transfer size: 2 ^ MDTS pages of CAP.MPSMIN, 0 unlimited; see [`Self::max_transfer`].
    pub mdts: u8,
    /// Controller identifier, unique in the subsystem.
    pub cntlid: u16,
    /// Version, as the register VS; 0 before 1.2. See [`Self::version`].
    pub ver: u32,
    /// Time to resume from runtime D3, in µs; 0 not reported.
    pub rtd3r: u32,
    /// Time to enter runtime D3, a normal shutdown included, in µs; 0 not reported.
    pub rtd3e: u32,
    /// Optional asynchronous events supported.
    pub oaes: u32,
    /// Controller attributes.
    pub ctratt: u32,
    /// Read recovery levels supported, one bit each.
    pub rrls: u16,
    /// Boot partition capabilities (2.1).
    pub bpcap: u8,
    /// Reserved.
    pub reserved103: u8,
    /// NVM subsystem shutdown latency, in µs (2.1).
    pub nssl: u32,
    /// Reserved.
    pub reserved108: [u8; 2],
    /// Power loss signaling information (2.1).
    pub plsi: u8,
    /// Controller type: 0 not reported, 1 I/O, 2 discovery, 3 administrative.
    pub cntrltype: u8,
    /// FRU globally unique identifier, big endian.
    pub fguid: [u8; 16],
    /// Command retry delays 1 to 3, in 100 ms units, for a status with CRD.
    pub crdt: [u16; 3],
    /// Controller reachability capabilities (2.1).
    pub crcap: u8,
    /// Reserved.
    pub reserved135: [u8; 105],
    /// Reserved for NVMe-MI.
    pub reserved240: [u8; 13],
    /// NVM subsystem report: bit 0 storage device, bit 1 enclosure.
    pub nvmsr: u8,
    /// VPD write cycle information.
    pub vwci: u8,
    /// Management endpoint capabilities.
    pub mec: u8,
    /// Optional admin commands: bit 0 Security, 1 Format NVM, 2 firmware, 3 Namespace Management, 4
    /// self-test, …
    pub oacs: u16,
    /// Abort command limit, 0's based.
    pub acl: u8,
    /// Asynchronous Event Request limit, 0's based.
    pub aerl: u8,
    /// Firmware updates: bit 0 slot 1 read-only, bits 3:1 slots, bit 4 activation without reset, …
    pub frmw: u8,
    /// Log page attributes: bit 0 SMART per namespace, 1 commands supported, 2 extended data, 3 telemetry, …
    pub lpa: u8,
    /// Error log page entries, 0's based.
    pub elpe: u8,
    /// Power states supported, 0's based.
    pub npss: u8,
    /// Vendor-specific admin commands use the standard format (bit 0).
    pub avscc: u8,
    /// Autonomous power state transitions supported (bit 0).
    pub apsta: u8,
    /// Warning composite temperature, in kelvins; 0 not reported.
    pub wctemp: u16,
    /// Critical composite temperature, in kelvins; 0 not reported.
    pub cctemp: u16,
    /// Maximum time for firmware activation, in 100 ms units.
    pub mtfa: u16,
    /// Host memory buffer preferred size, in 4 KiB units.
    pub hmpre: u32,
    /// Host memory buffer minimum size, in 4 KiB units.
    pub hmmin: u32,
    /// Total NVM capacity, bytes, little endian; see [`Self::total_capacity`].
    pub tnvmcap: [u8; 16],
    /// Unallocated NVM capacity, bytes, little endian; see [`Self::unallocated_capacity`].
    pub unvmcap: [u8; 16],
    /// Replay protected memory block support.
    pub rpmbs: u32,
    /// Extended device self-test time, in minutes.
    pub edstt: u16,
    /// Device self-test options.
    pub dsto: u8,
    /// Firmware update granularity, in 4 KiB units; 0 not reported, FFh none.
    pub fwug: u8,
    /// Keep alive granularity, in 100 ms units; 0 not supported.
    pub kas: u16,
    /// Host controlled thermal management supported (bit 0).
    pub hctma: u16,
    /// Minimum thermal management temperature, in kelvins.
    pub mntmt: u16,
    /// Maximum thermal management temperature, in kelvins.
    pub mxtmt: u16,
    /// Sanitize capabilities: bit 0 crypto erase, 1 block erase, 2 overwrite, …
    pub sanicap: u32,
    /// Host memory buffer minimum descriptor entry size, in 4 KiB units.
    pub hmminds: u32,
    /// Host memory buffer maximum descriptor entries.
    pub hmmaxd: u16,
    /// Largest NVM set identifier.
    pub nsetidmax: u16,
    /// Largest endurance group identifier.
    pub endgidmax: u16,
    /// ANA transition time, in seconds.
    pub anatt: u8,
    /// ANA capabilities.
    pub anacap: u8,
    /// Largest ANA group identifier.
    pub anagrpmax: u32,
    /// Number of ANA groups.
    pub nanagrpid: u32,
    /// Persistent event log size, in 64 KiB units.
    pub pels: u32,
    /// Domain identifier.
    pub domain_id: u16,
    /// Key per I/O capabilities (2.1).
    pub kpioc: u8,
    /// Reserved.
    pub reserved359: u8,
    /// Maximum processing time of a firmware activation without reset, in 100 ms units; 0 not reported (2.1).
    pub mptfawr: u16,
    /// Reserved.
    pub reserved362: [u8; 6],
    /// Largest endurance group capacity, bytes, little endian.
    pub megcap: [u8; 16],
    /// Temperature threshold hysteresis attributes (2.1).
    pub tmpthha: u8,
    /// Reserved.
    pub reserved385: u8,
    /// Command quiesce time, in ms; 0 not reported (2.1).
    pub cqt: u16,
    /// Reserved.
    pub reserved388: [u8; 124],
    /// Submission queue entry size as powers of two: bits 3:0 required, 7:4 largest.
    pub sqes: u8,
    /// Completion queue entry size as powers of two: bits 3:0 required, 7:4 largest.
    pub cqes: u8,
    /// Most commands at a time for one queue; 0 not reported.
    pub maxcmd: u16,
    /// Number of namespaces: the largest valid NSID.
    pub nn: u32,
    /// Optional NVM commands; see [`Self::optional_commands`].
    pub oncs: u16,
    /// Fused operations: bit 0 Compare and Write.
    pub fuses: u16,
    /// Format NVM attributes: bits 0 and 1 all namespaces are formatted or erased, bit 2 crypto erase.
    pub fna: u8,
    /// Volatile write cache: bit 0 present, bits 2:1 whether Flush takes all namespaces.
    pub vwc: u8,
    /// Atomic write unit normal, in blocks, 0's based.
    pub awun: u16,
    /// Atomic write unit at power fail, in blocks, 0's based.
    pub awupf: u16,
    /// Vendor-specific I/O commands use the standard format (bit 0).
    pub icsvscc: u8,
    /// Namespace write protection capabilities.
    pub nwpc: u8,
    /// Atomic compare and write unit, in blocks, 0's based.
    pub acwu: u16,
    /// Copy descriptor formats supported, one bit each.
    pub cdfs: u16,
    /// SGL support: bits 1:0 not 0 for the NVM command set (2: dword alignment), 16 bit bucket, …
    pub sgls: u32,
    /// Most namespaces that may exist; 0: at most NN.
    pub mnan: u32,
    /// Most attached namespaces of a domain, little endian.
    pub maxdna: [u8; 16],
    /// Most namespaces attached to an I/O controller.
    pub maxcna: u32,
    /// Most I/O commands of all queues that may be outstanding for good performance; 0 not reported (2.1).
    pub oaqd: u32,
    /// Recommended interval of host-initiated refreshes without power, in days; 0 not reported (2.1).
    pub rhiri: u8,
    /// Usual time of a host-initiated refresh, in minutes; 0 not reported (2.1).
    pub hirt: u8,
    /// Most memory ranges that the controller tracks (2.1).
    pub cmmrtd: u16,
    /// Most memory ranges that the NVM subsystem tracks (2.1).
    pub nmmrtd: u16,
    /// Least granularity of a tracked memory range (2.1).
    pub minmrtg: u8,
    /// Largest granularity of a tracked memory range (2.1).
    pub maxmrtg: u8,
    /// Tracking attributes: bit 0 host memory, 1 user data; bit 2 lengths of ranges are powers of two (2.1).
    pub trattr: u8,
    /// Reserved.
    pub reserved577: u8,
    /// Most user data migration queues of the controller (2.1).
    pub mcudmq: u16,
    /// Most user data migration queues of the NVM subsystem (2.1).
    pub mnsudmq: u16,
    /// Most memory ranges of one controller data queue; 0 not reported (2.1).
    pub mcmr: u16,
    /// Most memory ranges of all controller data queues of the NVM subsystem; 0 not reported (2.1).
    pub nmcmr: u16,
    /// Most entries of the PRP list of a controller data queue; 0 not reported (2.1).
    pub mcdqpc: u16,
    /// Reserved.
    pub reserved588: [u8; 180],
    /// NVM subsystem's qualified name, UTF-8 ended by a zero; see [`Self::subsystem_name`].
    pub subnqn: [u8; 256],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// Fabrics: command capsule size, in 16-byte units.
    pub ioccsz: u32,
    /// Fabrics: response capsule size, in 16-byte units.
    pub iorcsz: u32,
    /// Fabrics: in-capsule data offset, in 16-byte units.
    pub icdoff: u16,
    /// Fabrics: controller attributes.
    pub fcatt: u8,
    /// Fabrics: most SGL data block descriptors.
    pub msdbd: u8,
    /// Fabrics: optional commands.
    pub ofcs: u16,
    /// Fabrics: discovery controller type.
    pub dctype: u8,
    /// Reserved.
    pub reserved1807: [u8; 241],
    /// Power state descriptors, of which NPSS + 1 are valid; see [`Self::power_states`].
    pub psd: [PowerState; 32],
    /// Vendor specific.
    pub vendor: [u8; 1024],
}
assert_size!(IdentifyController, 4096);

impl IdentifyController {
    /// Returns the model number, safe to print.
    #[must_use]
    pub fn model(&self) -> String {
        ascii(&self.mn)
    }

    /// Returns the serial number, safe to print.
    #[must_use]
    pub fn serial(&self) -> String {
        ascii(&self.sn)
    }

    /// Returns the firmware revision, safe to print.
    #[must_use]
    pub fn firmware(&self) -> String {
        ascii(&self.fr)
    }

    /// Returns the NVM subsystem's qualified name, safe to print.
    #[must_use]
    pub fn subsystem_name(&self) -> String {
        utf8(&self.subnqn)
    }

    /// Returns the version of the specification; 0.0 from a controller older than 1.2.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version::from_bits(self.ver)
    }

    /// Returns the most data of a command in bytes, for a page of
    /// [`Capabilities::page_size_min`](crate::spec::Capabilities); `None` if there is no limit, or it exceeds
    /// 64 bits.
    #[must_use]
    pub const fn max_transfer(&self, page_size_min: u64) -> Option<u64> {
        pages(self.mdts, page_size_min)
    }

    /// Returns the NVM capacity of the subsystem or domain in bytes; 0 if it isn't reported.
    #[must_use]
    pub const fn total_capacity(&self) -> u128 {
        u128::from_le_bytes(self.tnvmcap)
    }

    /// Returns the NVM capacity in no namespace, in bytes.
    #[must_use]
    pub const fn unallocated_capacity(&self) -> u128 {
        u128::from_le_bytes(self.unvmcap)
    }

    /// Returns the controller's power states, the one with the most power first: 1 to 32.
    #[must_use]
    pub fn power_states(&self) -> &[PowerState] {
        let count = (usize::from(self.npss) + 1).min(self.psd.len());
        &self.psd[..count]
    }

    /// Returns the optional NVM commands that the controller has.
    #[must_use]
    pub const fn optional_commands(&self) -> OptionalCommands {
        OptionalCommands::from_bits_retain(self.oncs)
    }

    /// Returns `true` if data may need a Flush to be on the media.
    #[must_use]
    pub const fn has_volatile_cache(&self) -> bool {
        self.vwc & 1 != 0
    }

    /// Returns `true` if the controller has the fused operation Compare and Write (FUSES bit 0).
    #[must_use]
    pub const fn has_compare_and_write(&self) -> bool {
        self.fuses & 1 != 0
    }

    /// Returns `true` if host identifiers may have 128 bits (CTRATT bit 0).
    #[must_use]
    pub const fn has_extended_host_identifiers(&self) -> bool {
        self.ctratt & 1 != 0
    }

    /// Returns `true` if blocks may have formats with 32- and 64-bit guards, or with storage tags (CTRATT bit 15).
    #[must_use]
    pub const fn has_extended_formats(&self) -> bool {
        self.ctratt & 1 << 15 != 0
    }

    /// Returns `true` if endurance groups may have flexible data placement (CTRATT bit 19, FDPS).
    #[must_use]
    pub const fn has_placement(&self) -> bool {
        self.ctratt & 1 << 19 != 0
    }

    /// Returns `true` if I/O commands may use SGLs, at dword alignment at least.
    #[must_use]
    pub const fn supports_sgls(&self) -> bool {
        matches!(self.sgls & 3, 1 | 2)
    }
}

/// Shows the fields that tell one controller from another; the other fields are public.
impl fmt::Debug for IdentifyController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyController")
            .field("vid", &format_args!("{:#06x}", self.vid))
            .field("model", &self.model())
            .field("serial", &self.serial())
            .field("firmware", &self.firmware())
            .field("version", &self.version())
            .field("cntlid", &self.cntlid)
            .field("mdts", &self.mdts)
            .field("nn", &self.nn)
            .finish_non_exhaustive()
    }
}
