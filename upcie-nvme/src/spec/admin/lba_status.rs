//! NVM, "Get LBA Status command".

use zerocopy::FromBytes;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::{named_values, structure};
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The blocks that a Get LBA Status reports (ATYPE).
    LbaStatusAction(u8) {
        ALLOCATED = 0x02, "allocated blocks";
        SCAN = 0x10, "scan for blocks that may be unreadable";
        TRACKED = 0x11, "known blocks that may be unreadable";
    }
}

/// Get LBA Status: reports which blocks of a range are allocated or may be unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetLbaStatus {
    /// The namespace.
    pub nsid: u32,
    /// The first block (SLBA).
    pub slba: u64,
    /// Blocks of the range (RL); 0 for up to the end of the namespace.
    pub blocks: u16,
    /// The kind of status to report.
    pub action: LbaStatusAction,
    /// The most descriptors to return.
    pub descriptors: u32,
}

structure! {
    /// Blocks of one status, 16 bytes.
    LbaStatusDescriptor[16], "LBA Status Descriptor" {
        /// The first block (DSLBA).
        0 slba: u64 => number;
        /// Blocks (NLB).
        8 blocks: u32 => number;
        12 reserved12: u8;
        /// Status (2.1).
        13 status: u8 => hex;
        14 reserved14: [u8; 2];
    }
}

/// The answer to [`GetLbaStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LbaStatusList {
    /// Why the list ended (CMPC): 1 incomplete, for the room or the time was not enough; 2 complete.
    pub completion: u8,
    /// The blocks.
    pub descriptors: Vec<LbaStatusDescriptor>,
}

/// Bytes before the descriptors.
const HEADER: usize = 8;

impl AdminCommand for GetLbaStatus {
    const OPCODE: AdminOpcode = AdminOpcode::GET_LBA_STATUS;
    type Answer = LbaStatusList;

    fn command(&self) -> Command {
        Command {
            cdw10: self.slba as u32,
            cdw11: (self.slba >> 32) as u32,
            cdw12: (self.returns() / 4 - 1) as u32,
            cdw13: u32::from(self.blocks) | u32::from(self.action.0) << 24,
            ..Command::admin(Self::OPCODE, self.nsid)
        }
    }

    fn returns(&self) -> usize {
        HEADER + self.descriptors as usize * size_of::<LbaStatusDescriptor>()
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::LBA_STATUS.lacking(controller)
    }

    fn answer(&self, _: u32, data: Vec<u8>) -> Option<LbaStatusList> {
        let (header, rest) = data.split_at_checked(HEADER)?;
        let count = u32::from_le_bytes(*header.first_chunk()?) as usize;
        let chunks = rest.chunks_exact(size_of::<LbaStatusDescriptor>());
        let all = chunks.take(count).map(LbaStatusDescriptor::read_from_bytes);
        Some(LbaStatusList { completion: header[4], descriptors: all.collect::<Result<_, _>>().ok()? })
    }
}
