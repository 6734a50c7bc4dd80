//! A Copy of blocks with metadata, or of other namespaces, that is under way.

use crate::{
    emu::{checks::Protection, namespace::Namespace},
    spec::{
        ApplicationTagDword15, BlockTagDwords, Command, CopyRange, NvmOpcode, ProtectionControl, Status,
        WideCopyRange,
    },
};

/// A source range: its blocks, and the tags that they are checked for.
#[derive(Debug)]
pub(super) struct Source {
    /// The namespace of the blocks.
    pub(super) nsid: u32,
    pub(super) slba: u64,
    pub(super) blocks: u64,
    tags: u128,
    application: ApplicationTagDword15,
}

impl From<CopyRange> for Source {
    fn from(range: CopyRange) -> Self {
        let (slba, blocks, tags) = (range.slba, u64::from(range.nlb) + 1, range.eilbrt.into());
        let application = ApplicationTagDword15::new().with_lbat(range.elbat).with_lbatm(range.elbatm);
        Self { nsid: range.nsid, slba, blocks, tags, application }
    }
}

impl From<WideCopyRange> for Source {
    fn from(range: WideCopyRange) -> Self {
        let (slba, blocks, tags) = (range.slba, u64::from(range.nlb) + 1, range.tags());
        let application = ApplicationTagDword15::new().with_lbat(range.elbat).with_lbatm(range.elbatm);
        Self { nsid: range.nsid, slba, blocks, tags, application }
    }
}

impl Source {
    /// Returns the protection that a read of the range has.
    pub(super) fn protection(
        &self,
        namespace: &Namespace,
        control: ProtectionControl,
    ) -> Result<Option<Protection>, Status> {
        let BlockTagDwords { dword2, dword3, dword14 } = BlockTagDwords::new(self.tags);
        let read = Command {
            cdw2: dword2,
            cdw3: dword3,
            cdw10: self.slba as u32,
            cdw11: (self.slba >> 32) as u32,
            cdw12: control.dword12(),
            cdw14: dword14,
            cdw15: self.application.into_bits(),
            ..Command::io(NvmOpcode::READ, 0)
        };
        Protection::of(namespace.layout, &read)
    }
}

/// A Copy whose ranges are checked. All of their blocks are read and checked before the first one is written, and read once more
/// then: kept until then, those of all queues would take much memory.
#[derive(Debug)]
pub(in crate::emu) struct Copying {
    pub(super) sources: Vec<Source>,
    /// The range that is read, and the number of its blocks that are done.
    pub(super) at: (usize, u64),
    /// The number of blocks that are done.
    pub(super) done: u64,
    /// All blocks have passed their checks, and are being copied.
    pub(super) writes: bool,
}
