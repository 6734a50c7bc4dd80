//! Names of commands, for messages.

use super::command::Command;
use crate::{
    engine::{Extent, KeyAction, ReservationCommand, ZoneSelect},
    spec::{KeyValueOpcode, NvmOpcode},
};
use upcie_core::dma::DmaBuf;

impl Command {
    /// Names the command for messages.
    #[cold]
    pub(super) fn describe(&self, buffer: &DmaBuf) -> String {
        let len = buffer.total_len();
        match self {
            Self::Transfer { extent, direction, slba, .. }
            | Self::WithMetadata { extent, direction, slba, .. } => {
                describe_bytes(direction.opcode(), extent, len, *slba)
            }
            Self::Compare { extent, slba } => describe_bytes(NvmOpcode::COMPARE, extent, len, *slba),
            Self::Flush { extent } => of_namespace(NvmOpcode::FLUSH, extent),
            Self::HandleStatus { extent } => of_namespace(NvmOpcode::IO_MANAGEMENT_RECEIVE, extent),
            Self::Zeroes { extent, slba, blocks, .. }
            | Self::ProtectedZeroes { extent, slba, blocks, .. } => {
                describe_blocks(NvmOpcode::WRITE_ZEROES, extent, *slba, *blocks)
            }
            Self::Verify { extent, slba, blocks, .. } => {
                describe_blocks(NvmOpcode::VERIFY, extent, *slba, *blocks)
            }
            Self::WriteUncorrectable { extent, slba, blocks } => {
                describe_blocks(NvmOpcode::WRITE_UNCORRECTABLE, extent, *slba, *blocks)
            }
            Self::Copy { extent, count, slba, .. } => format!(
                "{} of {count} ranges to block {slba} of namespace {}",
                NvmOpcode::COPY,
                extent.nsid()
            ),
            Self::CopyProtected { extent, slba, .. } => {
                format!("{} with checks to block {slba} of namespace {}", NvmOpcode::COPY, extent.nsid())
            }
            Self::Deallocate { extent, count } => {
                format!("{} of {count} ranges of namespace {}", NvmOpcode::DATASET_MANAGEMENT, extent.nsid())
            }
            Self::UpdateHandles { extent, count } => format!(
                "{} of {count} placement identifiers of namespace {}",
                NvmOpcode::IO_MANAGEMENT_SEND,
                extent.nsid()
            ),
            Self::Append { extent, zone } => format!(
                "{} of {len} bytes to the zone at block {zone} of namespace {}",
                NvmOpcode::ZONE_APPEND,
                extent.nsid()
            ),
            Self::ManageZones { extent, action, zones, .. } => {
                let which = match zones {
                    ZoneSelect::All => "all zones".into(),
                    ZoneSelect::At(block) => format!("block {block}"),
                };
                format!("{action} of {which} of namespace {}", extent.nsid())
            }
            Self::ReportZones { extent, slba, .. } => {
                let opcode = NvmOpcode::ZONE_MANAGEMENT_RECEIVE;
                format!("{opcode} from block {slba} on of namespace {}", extent.nsid())
            }
            Self::SetZoneExtension { extent, zone } => format!(
                "{} of an extension of {len} bytes for the zone at block {zone} of namespace {}",
                NvmOpcode::ZONE_MANAGEMENT_SEND,
                extent.nsid()
            ),
            Self::CompareAndWrite { extent, slba, .. } => format!(
                "Compare and Write of {} bytes at block {slba} of namespace {}",
                len / 2,
                extent.nsid()
            ),
            Self::Key { extent, action } => describe_key(extent, *action, len),
            Self::Reservation { extent, action } => ReservationCommand { extent, kind: *action }.describe(),
            Self::Cancel { extent: None, .. } => format!("{} of all commands", NvmOpcode::CANCEL),
            Self::Cancel { extent: Some(extent), .. } => {
                format!("{} of all commands for namespace {}", NvmOpcode::CANCEL, extent.nsid())
            }
        }
    }
}

#[cold]
fn of_namespace(opcode: NvmOpcode, extent: &Extent) -> String {
    format!("{opcode} of namespace {}", extent.nsid())
}

#[cold]
fn describe_bytes(opcode: NvmOpcode, extent: &Extent, len: usize, slba: u64) -> String {
    format!("{opcode} of {len} bytes at block {slba} of namespace {}", extent.nsid())
}

#[cold]
fn describe_blocks(opcode: NvmOpcode, extent: &Extent, slba: u64, blocks: u32) -> String {
    format!("{opcode} of {blocks} blocks from block {slba} on of namespace {}", extent.nsid())
}

#[cold]
fn describe_key(extent: &Extent, action: KeyAction, len: usize) -> String {
    let nsid = extent.nsid();
    let of_key = |opcode: KeyValueOpcode, key| format!("{opcode} of key {key} of namespace {nsid}");
    match action {
        KeyAction::Store(key, _) => {
            format!("{} of {len} bytes under key {key} of namespace {nsid}", KeyValueOpcode::STORE)
        }
        KeyAction::Retrieve(key, _) => of_key(KeyValueOpcode::RETRIEVE, key),
        KeyAction::Delete(key) => of_key(KeyValueOpcode::DELETE, key),
        KeyAction::Exist(key) => of_key(KeyValueOpcode::EXIST, key),
        KeyAction::List(from) => {
            let from = from.map_or_else(String::new, |key| format!(" from {key} on"));
            format!("{} of keys of namespace {nsid}{from}", KeyValueOpcode::LIST)
        }
        KeyAction::Flush => format!("{} of namespace {nsid}", KeyValueOpcode::FLUSH),
    }
}
