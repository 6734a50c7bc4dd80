//! Copy at a namespace whose blocks have metadata: source ranges of both formats, checks of what is read and of what is written.

use super::buffers::{Blocks, INVALID_FIELD};
use crate::{
    emu::{
        HostMemory,
        checks::Protection,
        data::Data,
        io::Io,
        media::Media,
        namespace::Namespace,
        optional::{COPY_BLOCKS, COPY_RANGE_BLOCKS, COPY_RANGES},
    },
    spec::{
        ApplicationTagDword15, BlockTagDwords, Command, CopyDword12, CopyRange, NvmOpcode, ProtectionControl,
        ProtectionFormat, Status, WideCopyRange,
    },
};
use zerocopy::FromBytes;

/// A source range: its blocks, and the tags that they are checked for.
struct Source {
    slba: u64,
    blocks: u64,
    tags: u128,
    application: ApplicationTagDword15,
}

impl From<CopyRange> for Source {
    fn from(range: CopyRange) -> Self {
        let (slba, blocks, tags) = (range.slba, u64::from(range.nlb) + 1, range.eilbrt.into());
        let application = ApplicationTagDword15::new().with_lbat(range.elbat).with_lbatm(range.elbatm);
        Self { slba, blocks, tags, application }
    }
}

impl From<WideCopyRange> for Source {
    fn from(range: WideCopyRange) -> Self {
        let (slba, blocks, tags) = (range.slba, u64::from(range.nlb) + 1, range.tags());
        let application = ApplicationTagDword15::new().with_lbat(range.elbat).with_lbatm(range.elbatm);
        Self { slba, blocks, tags, application }
    }
}

impl Source {
    /// Returns the protection that a read of the range has.
    fn protection(&self, namespace: &Namespace, control: u32) -> Result<Option<Protection>, Status> {
        let BlockTagDwords { dword2, dword3, dword14 } = BlockTagDwords::new(self.tags);
        let read = Command {
            cdw2: dword2,
            cdw3: dword3,
            cdw10: self.slba as u32,
            cdw11: (self.slba >> 32) as u32,
            cdw12: control,
            cdw14: dword14,
            cdw15: self.application.into_bits(),
            ..Command::io(NvmOpcode::READ, 0)
        };
        Protection::of(namespace.layout, &read)
    }
}

impl<M: Media> Io<M> {
    /// Copies blocks of the namespace with their metadata. Nothing is written unless all that is read passes its checks.
    pub(super) fn copy_blocks(
        &mut self,
        host: &mut impl HostMemory,
        namespace: &Namespace,
        command: &Command,
    ) -> Result<u64, Status> {
        let dword = CopyDword12::from_bits(command.cdw12);
        let read = ProtectionControl::of_copy_source(dword);
        let write = Protection::of(namespace.layout, command)?;
        let acts = write.as_ref().is_some_and(Protection::is_action);
        if write.is_some() && acts != read.contains(ProtectionControl::ACTION) {
            return Err(INVALID_FIELD);
        }
        let sources = self.sources(host, namespace, command, dword)?;
        // Everything is checked before the first block is written.
        let (mut loaded, mut total) = (Vec::with_capacity(sources.len()), 0);
        for source in &sources {
            if source.blocks > COPY_RANGE_BLOCKS.into() {
                return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry());
            }
            let (offset, len) = namespace.range(source.slba, source.blocks)?;
            self.readable(offset, len)?;
            total += source.blocks;
        }
        if total > COPY_BLOCKS.into() {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry());
        }
        let to = command.slba();
        let (target, len) = namespace.range(to, total)?;
        self.writable()?;
        let mut first = 0;
        for source in &sources {
            let protection = source.protection(namespace, read.dword12())?;
            let mut blocks = self.load(namespace, source.slba, source.blocks)?;
            self.check(&mut blocks, protection.as_ref(), source.slba, 0)?;
            match &write {
                Some(write) if acts => insert(&mut blocks, write, first),
                write => {
                    let checked = blocks.each(|data, metadata, index| match write {
                        Some(write) => write.check(data, metadata, first + index),
                        None => Ok(()),
                    });
                    if let Err((index, status)) = checked {
                        self.failing = Some(to + index);
                        return Err(status);
                    }
                }
            }
            first += source.blocks;
            loaded.push(blocks);
        }
        let mut at = to;
        for (blocks, source) in loaded.into_iter().zip(&sources) {
            self.store(namespace, at, blocks)?;
            at += source.blocks;
        }
        let through = self.write_through(command.cdw12)?;
        self.written(target, len);
        Ok(2 * len + through)
    }

    /// Reads the source ranges of a command: of format 1 with guards of 32 and 64 bits, of format 0 otherwise.
    fn sources(
        &mut self,
        host: &mut impl HostMemory,
        namespace: &Namespace,
        command: &Command,
        dword: CopyDword12,
    ) -> Result<Vec<Source>, Status> {
        let (layout, count) = (namespace.layout, usize::from(dword.nr()) + 1);
        let is_wide = layout.protection != 0 && layout.format().form != ProtectionFormat::GUARD_16;
        if dword.desfmt() != u8::from(is_wide) {
            return Err(INVALID_FIELD);
        }
        if count > COPY_RANGES {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry());
        }
        let size = if is_wide { size_of::<WideCopyRange>() } else { size_of::<CopyRange>() };
        let mut bytes = vec![0; count * size];
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        data.fetch(host, self.page, &mut bytes)?;
        let each = bytes.chunks_exact(size);
        Ok(if is_wide {
            each.filter_map(|range| WideCopyRange::read_from_bytes(range).ok()).map(Source::from).collect()
        } else {
            each.filter_map(|range| CopyRange::read_from_bytes(range).ok()).map(Source::from).collect()
        })
    }
}

/// Makes the protection information of blocks, of which the first is the block `first` of the command.
fn insert(blocks: &mut Blocks, protection: &Protection, first: u64) {
    let _: Result<(), ()> = blocks.each(|data, metadata, index| {
        protection.insert(data, metadata, first + index);
        Ok(())
    });
}
