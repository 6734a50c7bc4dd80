//! Copy at a namespace whose blocks have metadata, or of blocks of other namespaces: source ranges of all formats, checks of what is
//! read and of what is written.

use super::{
    buffers::{Blocks, INVALID_FIELD},
    copying::{Copying, Source},
};
use crate::{
    emu::{
        HostMemory,
        checks::Protection,
        data::Data,
        io::{Io, PIECE},
        media::Media,
        namespace::Namespace,
        optional::{COPY_RANGES, TOO_MUCH, names_namespaces},
        rest::Left,
    },
    spec::{
        Command, CopyDword12, CopyRange, NvmOpcode, ProtectionControl, ProtectionFormat, Status,
        WideCopyRange,
    },
};
use zerocopy::FromBytes;

impl<M: Media> Io<M> {
    /// Copies blocks with their metadata, if they have some. Nothing is written unless all that is read passes its checks.
    pub(in crate::emu) fn copy_blocks(
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
        if !self.media.moves_data() {
            self.copied = 0;
            return Ok(0);
        }
        let mut ranges = Vec::with_capacity(sources.len());
        for source in &sources {
            ranges.push((self.source_namespace(namespace, source)?, source.slba, source.blocks));
        }
        self.check_copy(command, namespace, ranges.into_iter())?;
        let copying = Copying { sources, at: (0, 0), done: 0, writes: false };
        self.go_on_copying(command, Box::new(copying))
    }

    /// Checks or copies the next piece of a Copy of blocks with metadata.
    pub(in crate::emu) fn go_on_copying(
        &mut self,
        command: &Command,
        mut copying: Box<Copying>,
    ) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        self.writable()?;
        let (most, mut moved) = (PIECE >> namespace.shift, 0);
        loop {
            let (index, begun) = copying.at;
            let Some(source) = copying.sources.get(index) else {
                if copying.writes {
                    break;
                }
                (copying.at, copying.done, copying.writes) = ((0, 0), 0, true);
                continue;
            };
            if moved >= most {
                return Ok(self.put_off(*command, Left::Protected(copying), moved << namespace.shift));
            }
            let part = (source.blocks - begun).min(most - moved);
            let blocks = self.read_source(&namespace, command, source, (begun, part, copying.done))?;
            copying.at = if begun + part < source.blocks { (index, begun + part) } else { (index + 1, 0) };
            if copying.writes {
                self.store(&namespace, command.slba() + copying.done, blocks)?;
                moved += part;
            }
            copying.done += part;
            moved += part;
        }
        self.copied = copying.done;
        let (target, len) = namespace.range(command.slba(), copying.done)?;
        let through = self.write_through(command.cdw12)?;
        self.written(target, len);
        Ok((moved << namespace.shift) + through)
    }

    /// Reads and checks blocks of a source range: `part` behind its first `begun` ones, of which the first is the block `first` of
    /// the command. Makes their new protection information, or checks it.
    fn read_source(
        &mut self,
        namespace: &Namespace,
        command: &Command,
        source: &Source,
        (begun, part, first): (u64, u64, u64),
    ) -> Result<Blocks, Status> {
        let read = ProtectionControl::of_copy_source(CopyDword12::from_bits(command.cdw12));
        let protection = source.protection(namespace, read)?;
        // It may have changed since the last piece.
        let from = self.source_namespace(namespace, source)?;
        let (offset, len) = from.range(source.slba + begun, part)?;
        self.readable(offset, len)?;
        let mut blocks = self.load(&from, source.slba + begun, part)?;
        self.check(&mut blocks, protection.as_ref(), source.slba, begun)?;
        match Protection::of(namespace.layout, command)? {
            Some(write) if write.is_action() => blocks.insert(&write, first),
            write => {
                let checked = blocks.each(|data, metadata, index| match &write {
                    Some(write) => write.check(data, metadata, first + index),
                    None => Ok(()),
                });
                if let Err((index, status)) = checked {
                    self.failing = Some(command.slba() + index);
                    return Err(status);
                }
            }
        }
        Ok(blocks)
    }

    /// Returns the namespace of a source range of a Copy to `namespace`.
    ///
    /// # Errors
    /// It takes no commands, a reservation keeps the host from reading it, or its blocks have another format.
    fn source_namespace(&self, namespace: &Namespace, source: &Source) -> Result<Namespace, Status> {
        self.check_command(NvmOpcode::READ, source.nsid)?;
        let from = *self.namespace(source.nsid)?;
        match from.layout == namespace.layout {
            true => Ok(from),
            false => Err(Status::INCOMPATIBLE_NAMESPACE_OR_FORMAT.with_do_not_retry()),
        }
    }

    /// Reads the source ranges of a command: of format 1 or 3 with guards of 32 and 64 bits, of format 0 or 2 otherwise. Formats 2 and
    /// 3 name a namespace, and are taken if the host has turned them on.
    fn sources(
        &mut self,
        host: &mut impl HostMemory,
        namespace: &Namespace,
        command: &Command,
        dword: CopyDword12,
    ) -> Result<Vec<Source>, Status> {
        let (layout, count) = (namespace.layout, usize::from(dword.nr()) + 1);
        let is_wide = layout.protection != 0 && layout.format().form != ProtectionFormat::GUARD_16;
        let names = names_namespaces(dword);
        if dword.desfmt() != u8::from(is_wide) | u8::from(names) << 1
            || names && self.copy_formats >> dword.desfmt() & 1 == 0
        {
            return Err(INVALID_FIELD);
        }
        if count > COPY_RANGES {
            return Err(TOO_MUCH);
        }
        let size = if is_wide { size_of::<WideCopyRange>() } else { size_of::<CopyRange>() };
        let mut bytes = vec![0; count * size];
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        if !self.media.moves_data() {
            data.check(self.page, (bytes.len() as u64, false))?;
            return Ok(Vec::new());
        }
        data.fetch(host, self.page, &mut bytes)?;
        let each = bytes.chunks_exact(size);
        let mut sources: Vec<Source> = if is_wide {
            each.filter_map(|range| WideCopyRange::read_from_bytes(range).ok()).map(Source::from).collect()
        } else {
            each.filter_map(|range| CopyRange::read_from_bytes(range).ok()).map(Source::from).collect()
        };
        if !names {
            sources.iter_mut().for_each(|source| source.nsid = command.nsid);
        }
        Ok(sources)
    }
}
