//! Base, "Boot Partition" and "Rotational Media Information"; NVM, "LBA Status Information".

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value};
use super::super::identify::IdentifyController;
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, fixed_pages, list};

bits! {
    /// Size and number of boot partitions.
    BootPartitionInformation(u32), "Boot Partition Information" {
        /// Size of a partition, in 128 KiB units (BPSZ).
        size: u16[15] => unit("× 128 KiB");
        __: u16[16];
        /// The active partition (ABPID).
        active: u8[1] => number;
    }
}

structure! {
    /// The header of the Boot Partition page (15h). Bit 0 of the log-specific parameter chooses the partition.
    BootPartitionHeader[16], "Boot Partition" {
        /// The identifier of the page.
        0 log_page_id: u8 => hex;
        1 reserved1: [u8; 3];
        /// The active partition, and the size of both.
        4 information: BootPartitionInformation => fields;
        8 reserved8: [u8; 8];
    }
}

/// The Boot Partition page with the partition's bytes in `rest`.
pub type BootPartitionLog = VariableLog<BootPartitionHeader>;

impl LogHeader for BootPartitionHeader {
    const ID: LogPageId = LogPageId::BOOT_PARTITION;

    fn rest_len(&self, _: &[u8]) -> u64 {
        u64::from(self.information.size()) * (128 << 10)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        vec![Field::new("data", Value::Bytes(rest.to_vec()))]
    }
}

structure! {
    /// Rotational Media Information (16h) of the endurance group that the log-specific identifier names.
    RotationalMediaLog[512], "Rotational Media Information" {
        /// The endurance group (ENDGID).
        0 endurance_group_id: u16 => number;
        /// Actuators (NUMA).
        2 actuators: u16 => number;
        /// Nominal speed in turns per minute; 0 not reported, 1 no rotating media (NRS).
        4 nominal_rotational_speed: u16 => unit("rpm");
        6 reserved6: [u8; 2];
        /// Spin-ups (SPINC).
        8 spinup_count: u32 => number;
        /// Failed spin-ups (FSPINC).
        12 failed_spinup_count: u32 => number;
        /// Loads of the heads (LDC).
        16 load_count: u32 => number;
        /// Failed loads (FLDC).
        20 failed_load_count: u32 => number;
        24 reserved24: [u8; 488];
    }
}

fixed_pages! { RotationalMediaLog: ROTATIONAL_MEDIA; }

structure! {
    /// The header of the LBA Status Information page (0Eh).
    LbaStatusHeader[16], "LBA Status Information" {
        /// Length of the page in bytes, this header included (LSLPLEN).
        0 length: u32 => unit("bytes");
        /// Namespaces in the page (NLSLNE).
        4 elements: u32 => number;
        /// Estimate of blocks that can't be read (ESTULB).
        8 unrecoverable_blocks_estimate: u32 => number;
        12 reserved12: [u8; 2];
        /// Generation of the page (LSGC).
        14 generation: u16 => number;
    }
}

structure! {
    /// A namespace in the LBA Status Information page, before its ranges.
    LbaStatusElement[16], "LBA Status Log Namespace Element" {
        /// The namespace (NEID).
        0 namespace_id: u32 => number;
        /// Ranges of the namespace; FFFFFFFFh: all blocks may be affected (NLRD).
        4 ranges: u32 => number;
        /// Recommended action of Get LBA Status on the ranges (RATYPE).
        8 recommended_action: u8 => names(&[(0x10, "scan untracked blocks"), (0x11, "report tracked blocks")]);
        9 reserved9: [u8; 7];
    }
}

structure! {
    /// A range of blocks that may be unreadable, 16 bytes.
    LbaStatusRange[16], "LBA Range Descriptor" {
        /// The first block (RSLBA).
        0 starting_lba: u64 => number;
        /// Blocks (RNLB).
        8 blocks: u32 => number;
        12 reserved12: [u8; 4];
    }
}

/// The LBA Status Information page with its namespaces and ranges.
pub type LbaStatusLog = VariableLog<LbaStatusHeader>;

impl VariableLog<LbaStatusHeader> {
    /// Returns each namespace with its ranges, as far as the page has them.
    pub fn elements(&self) -> impl Iterator<Item = (LbaStatusElement, Vec<LbaStatusRange>)> + '_ {
        elements(self.header.elements, &self.rest)
    }
}

fn elements(
    count: u32,
    mut rest: &[u8],
) -> impl Iterator<Item = (LbaStatusElement, Vec<LbaStatusRange>)> + '_ {
    (0..count).map_while(move |_| {
        let (element, after) = LbaStatusElement::read_from_prefix(rest).ok()?;
        let ranges = if element.ranges == u32::MAX { 0 } else { element.ranges };
        let bytes = (ranges as usize).checked_mul(size_of::<LbaStatusRange>())?;
        let (ranges, after) = after.split_at_checked(bytes)?;
        rest = after;
        Some((element, entries(ranges, u64::MAX)))
    })
}

impl LogHeader for LbaStatusHeader {
    const ID: LogPageId = LogPageId::LBA_STATUS;

    fn rest_len(&self, _: &[u8]) -> u64 {
        u64::from(self.length).saturating_sub(size_of::<Self>() as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = elements(self.elements, rest).map(|(element, ranges)| {
            let mut fields = element.fields();
            fields.push(Field::new("range_list", list(&ranges)));
            Value::Fields(fields)
        });
        vec![Field::new("namespaces", Value::List(shown.collect()))]
    }
}
