//! I/O Management Receive and Send, and the writes that are counted.

use super::{
    super::{HostMemory, data::Data, formats::Layout, io::Io, media::Media},
    state::Write,
};
use crate::spec::{
    Command, DirectiveType, HandleStatus, HandleStatusHeader, NvmOpcode, ReadWriteDword12, Status,
};
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// The management operations (MO): none, and that of reclaim unit handles.
const NONE: u32 = 0;
const HANDLES: u32 = 1;

/// Returns the bytes of a block with its metadata.
fn stride(layout: Layout) -> u64 {
    (1 << layout.format().shift) + layout.metadata() as u64
}

impl<M: Media> Io<M> {
    /// Counts a write that has succeeded: its blocks fill the reclaim unit that its directive names.
    pub(in super::super) fn place(&mut self, command: &Command) {
        let Some(placement) = &mut self.placement else { return };
        let index = command.nsid.wrapping_sub(1) as usize;
        let Some(namespace) = self.namespaces.get(index) else { return };
        let dword = ReadWriteDword12::from_bits(command.cdw12);
        let blocks = match NvmOpcode(command.opcode) {
            NvmOpcode::WRITE => command.block_count().into(),
            // Blocks that are deallocated are not written.
            NvmOpcode::WRITE_ZEROES if !dword.deac() => command.block_count().into(),
            NvmOpcode::COPY => self.copied,
            _ => return,
        };
        let placed = dword.dtype() == DirectiveType::DATA_PLACEMENT.0;
        let identifier = placed.then_some((command.cdw13 >> 16) as u16);
        placement.write(Write { namespace: index, identifier, blocks, stride: stride(namespace.layout) });
    }

    /// Carries out I/O Management Receive or Send; returns the bytes moved.
    pub(in super::super) fn manage_handles(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Result<u64, Status> {
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        let (index, layout) = (command.nsid.wrapping_sub(1) as usize, self.namespace(command.nsid)?.layout);
        let placement = self.placement.as_mut().ok_or(Status::INVALID_OPCODE.with_do_not_retry())?;
        placement.check_on()?;
        let receives = NvmOpcode(command.opcode) == NvmOpcode::IO_MANAGEMENT_RECEIVE;
        match command.cdw10 & 0xff {
            NONE => Ok(0),
            HANDLES if receives => {
                let len = (u64::from(command.cdw11) + 1) * 4;
                if len > self.mdts {
                    return Err(INVALID_FIELD);
                }
                let mut header = HandleStatusHeader::new_zeroed();
                header.count = placement.identifiers(index) as u16;
                let mut status = header.as_bytes().to_vec();
                let room = len as usize / size_of::<HandleStatus>();
                for (identifier, unit_handle, left) in placement.states(index).take(room) {
                    let mut descriptor = HandleStatus::new_zeroed();
                    descriptor.placement_identifier = identifier;
                    descriptor.reclaim_unit_handle = unit_handle;
                    descriptor.available_media_writes = left / stride(layout);
                    status.extend(descriptor.as_bytes());
                }
                data.store_padded(host, self.page, status, len).map(|()| len)
            }
            HANDLES => {
                let count = (command.cdw10 >> 16) as usize + 1;
                // No more than the namespace has.
                if count > placement.identifiers(index) {
                    return Err(INVALID_FIELD);
                }
                let mut identifiers = vec![0_u16; count];
                data.fetch(host, self.page, identifiers.as_mut_bytes())?;
                placement.update(index, &identifiers).map(|()| 2 * count as u64)
            }
            _ => Err(INVALID_FIELD),
        }
    }
}
