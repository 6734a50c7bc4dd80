//! Identify data of namespaces and controllers by command set: Base, "I/O Command Set Independent Identify Namespace";
//! NVM, ZNS, "I/O Command Set specific Identify Namespace".

use super::super::macros::{bits, structure};
use super::data::identify_data;
use super::{Cns, Csi};

structure! {
    /// I/O Command Set Independent Identify Namespace (CNS 08h).
    IndependentNamespace[4096], "I/O Command Set Independent Identify Namespace" {
        /// Common namespace features (NSFEAT).
        0 features: u8 => hex;
        /// Multi-path and sharing: bit 0 the namespace may be attached to several controllers (NMIC).
        1 multi_path_and_sharing: u8 => hex;
        /// Reservation capabilities (RESCAP).
        2 reservation_capabilities: u8 => hex;
        /// Format progress: bit 7 supported, bits 6:0 percent that remain (FPI).
        3 format_progress: u8 => hex;
        /// ANA group (ANAGRPID).
        4 ana_group_id: u32 => number;
        /// Attributes: bit 0 write protected (NSATTR).
        8 attributes: u8 => hex;
        9 reserved9: u8;
        /// NVM set (NVMSETID).
        10 nvm_set_id: u16 => number;
        /// Endurance group (ENDGID).
        12 endurance_group_id: u16 => number;
        /// Status: bit 0 ready (NSTAT).
        14 status: u8 => hex;
        /// Key per I/O status (KPIOS, 2.1).
        15 key_per_io_status: u8 => hex;
        /// Largest key tag (MAXKT, 2.1).
        16 max_key_tag: u16 => number;
        18 reserved18: [u8; 2];
        /// Reachability group (RGRPID, 2.1).
        20 reachability_group_id: u32 => number;
        24 reserved24: [u8; 4072];
    }
}

bits! {
    /// Protection information of a block format, beside [`LbaFormat`](super::LbaFormat).
    ExtendedLbaFormat(u32), "Extended LBA Format" {
        /// Bits of the storage tag (STS).
        storage_tag_size: u8[7] => unit("bits");
        /// The guard (PIF).
        protection_information_format: u8[2] => names(&[
            (0, "16-bit guard"),
            (1, "32-bit guard"),
            (2, "64-bit guard"),
            (3, "see the qualified format"),
        ]);
        /// The guard if PIF is 3 (QPIF).
        qualified_protection_information_format: u8[4] => number;
        __: u32[19];
    }
}

structure! {
    /// I/O Command Set specific Identify Namespace of the NVM command set (CNS 05h, CSI 00h).
    NvmNamespace[4096], "I/O Command Set specific Identify Namespace (NVM)" {
        /// Logical block storage tag mask (LBSTM).
        0 storage_tag_mask: u64 => hex;
        /// Protection information capabilities (PIC).
        8 protection_information_capabilities: u8 => hex;
        /// Protection information format attributes (PIFA, 2.1).
        9 protection_information_format_attributes: u8 => hex;
        10 reserved10: [u8; 2];
        /// Extended formats, by the index of [`IdentifyNamespace::lbaf`](super::IdentifyNamespace).
        12 extended_formats: [ExtendedLbaFormat; 64] => each;
        /// Preferred deallocate granularity, in blocks (NPDGL, 2.1).
        268 preferred_deallocate_granularity: u32 => unit("blocks");
        /// Preferred read granularity, in blocks (NPRG, 2.1).
        272 preferred_read_granularity: u32 => unit("blocks");
        /// Preferred read alignment, in blocks (NPRA, 2.1).
        276 preferred_read_alignment: u32 => unit("blocks");
        /// Optimal read size, in blocks (NORS, 2.1).
        280 optimal_read_size: u32 => unit("blocks");
        /// Preferred deallocate alignment, in blocks (NPDAL, 2.1).
        284 preferred_deallocate_alignment: u32 => unit("blocks");
        /// LBA format placement shard size (LBAPSS, 2.1).
        288 placement_shard_size: u32 => number;
        /// Tracked LBA allocation granularity (TLBAAG, 2.1).
        292 tracked_allocation_granularity: u32 => number;
        296 reserved296: [u8; 3800];
    }
}

structure! {
    /// The zones of a block format, 16 bytes.
    ZonedLbaFormat[16], "LBA Format Extension" {
        /// Blocks of a zone (ZSZE).
        0 zone_size: u64 => unit("blocks");
        /// Zone descriptor extension, in 64-byte units (ZDES).
        8 zone_descriptor_extension_size: u8 => unit("× 64 bytes");
        9 reserved9: [u8; 7];
    }
}

structure! {
    /// I/O Command Set specific Identify Namespace of the zoned command set (CNS 05h, CSI 02h). Limits are 0's based,
    /// FFFFFFFFh is none; delays are in seconds, 0 not reported.
    ZonedNamespace[4096], "I/O Command Set specific Identify Namespace (Zoned)" {
        /// Zone operation characteristics (ZOC): bit 0 variable capacity, bit 1 the device may change zones.
        0 zone_operation_characteristics: u16 => hex;
        /// Optional zoned commands (OZCS): bit 0 reads across zones, bit 1 random write areas.
        2 optional_commands: u16 => hex;
        /// Most active zones, 0's based (MAR).
        4 max_active_resources: u32 => hex;
        /// Most open zones, 0's based (MOR).
        8 max_open_resources: u32 => hex;
        /// Reset recommended limit, in seconds (RRL).
        12 reset_recommended_limit: u32 => unit("s");
        /// Finish recommended limit, in seconds (FRL).
        16 finish_recommended_limit: u32 => unit("s");
        /// Reset recommended limits 1 to 3, in seconds.
        20 reset_recommended_limits: [u32; 3] => numbers;
        /// Finish recommended limits 1 to 3, in seconds.
        32 finish_recommended_limits: [u32; 3] => numbers;
        /// Zone random write areas (NUMZRWA).
        44 random_write_areas: u32 => number;
        /// Flush granularity of a random write area, in blocks (ZRWAFG).
        48 random_write_area_flush_granularity: u16 => unit("blocks");
        /// Size of a random write area, in blocks (ZRWASZ).
        50 random_write_area_size: u16 => unit("blocks");
        /// Capabilities of random write areas (ZRWACAP).
        52 random_write_area_capabilities: u8 => hex;
        53 reserved53: [u8; 2763];
        /// Zones by the index of the block format.
        2816 format_extensions: [ZonedLbaFormat; 64] = shown_formats;
        /// Vendor specific.
        3840 vendor_specific: [u8; 256] => bytes;
    }
}

impl ZonedLbaFormat {
    /// Returns the bytes of a zone's descriptor extension; 0 if zones have none.
    #[must_use]
    pub const fn extension_size(&self) -> u32 {
        self.zone_descriptor_extension_size as u32 * 64
    }
}

impl ZonedNamespace {
    fn shown_formats(&self) -> super::super::fields::Value {
        let used = self.format_extensions.iter().rposition(|format| format.zone_size != 0);
        super::super::fields::show::each(&self.format_extensions[..used.map_or(0, |last| last + 1)])
    }
}

structure! {
    /// I/O Command Set specific Identify Controller of the zoned command set (CNS 06h, CSI 02h).
    ZonedController[4096], "I/O Command Set specific Identify Controller (Zoned)" {
        /// Zone append size limit, as a power of two of the smallest memory pages; 0: as MDTS (ZASL).
        0 zone_append_size_limit: u8 => number;
        1 reserved1: [u8; 4095];
    }
}

identify_data! {
    IndependentNamespace: INDEPENDENT_NAMESPACE [namespace];
    NvmNamespace: COMMAND_SET_NAMESPACE, csi = NVM [namespace];
    ZonedNamespace: COMMAND_SET_NAMESPACE, csi = ZONED [namespace];
    ZonedController: COMMAND_SET_CONTROLLER, csi = ZONED;
}
