//! I/O commands that the caller builds.

use crate::{
    Controller, Error, Result, Wait,
    controller::Limit,
    spec::{ALL_NAMESPACES, Cns, Command, Csi, DataDirection, IdentifyNamespace, KeyValueOpcode, NvmOpcode},
};
use std::time::Duration;
use zerocopy::FromBytes;

/// The data of an I/O command.
#[derive(Debug, Clone, Copy)]
enum Data {
    None,
    /// Blocks, whose number is in dword 12, 0's based.
    Blocks,
    /// So many bytes.
    Bytes(u64),
    /// Blocks or, of a key value namespace, as many bytes as dword 10 says.
    BlocksOrValue,
    /// Bytes, whose number is in dword 10; for a key value namespace alone.
    Keys,
    /// None, of a key value namespace alone.
    NoKeys,
}

fn dwords(count: u32) -> Data {
    Data::Bytes((u64::from(count) + 1) * 4)
}

/// Returns the data of a command whose length is known: I/O commands of Base, of NVM, and of the zoned and the key value
/// command set.
fn data_of(command: &Command) -> Option<Data> {
    Some(match command.opcode {
        // Flush, Write Uncorrectable, Write Zeroes, Verify.
        0x00 | 0x04 | 0x08 | 0x0c => Data::None,
        // Write, Read; Store, Retrieve.
        0x01 | 0x02 => Data::BlocksOrValue,
        // Compare, Zone Append.
        0x05 | 0x7d => Data::Blocks,
        // List; Delete, Exist.
        0x06 => Data::Keys,
        0x10 | 0x14 => Data::NoKeys,
        // Dataset Management: ranges, 0's based.
        0x09 => Data::Bytes((u64::from(command.cdw10 & 0xff) + 1) * 16),
        // Reservation Register, Acquire and Release; Report.
        0x0d | 0x11 => Data::Bytes(16),
        0x15 => Data::Bytes(8),
        0x0e => dwords(command.cdw10),
        // I/O Management Receive; Send of No Action and of Reclaim Unit Handle Update, whose placement identifiers are 0's based.
        0x12 => dwords(command.cdw11),
        0x1d => match command.cdw10 & 0xff {
            0 => Data::None,
            1 => Data::Bytes((u64::from(command.cdw10 >> 16) + 1) * 2),
            _ => return None,
        },
        // Copy: ranges, 0's based, of a descriptor format.
        0x19 => {
            let bytes = match command.cdw12 >> 8 & 0xf {
                0 | 2 => 32,
                1 | 3 => 40,
                _ => return None,
            };
            Data::Bytes((u64::from(command.cdw12 & 0xff) + 1) * bytes)
        }
        // Zone Management Send, but for Set Zone Descriptor Extension; Receive.
        0x79 if command.cdw13 & 0xff != 0x10 => Data::None,
        0x7a => dwords(command.cdw12),
        _ => return None,
    })
}

impl Controller {
    /// Runs an I/O command with `data`, which the controller reads or fills as the opcode says, on a queue pair of its own,
    /// and returns dword 0 of the completion. The data is copied through a buffer of whole pages. For tests and tools:
    /// each call creates and deletes queues.
    ///
    /// Sets the data pointer, the metadata pointer and the flags of `command`.
    ///
    /// # Errors
    /// - [`Failure::Argument`](crate::Failure::Argument) for a command whose data length is not known here or differs from `data`:
    ///   submit these with [`Turn::submit_raw`](crate::Turn::submit_raw). Also for blocks with metadata in a buffer of its
    ///   own, and for a command that the controller lacks by its log page Commands Supported and Effects.
    /// - [`Failure::InUse`](crate::Failure::InUse) while a command that changes namespaces is not answered.
    /// - No queue pair is free; the controller's status.
    /// - [`Failure::Timeout`](crate::Failure::Timeout) when all of that takes longer than `timeout`; then the queue pair is
    ///   deleted, which may take as long as [`QueuePair::close`](crate::QueuePair::close).
    pub fn io(&self, command: &Command, data: &mut [u8], timeout: Duration) -> Result<u32> {
        let mut limit = self.inner().limit_of(timeout);
        let mut what = NvmOpcode(command.opcode).to_string();
        let refuse = |what: &str, reason: String| Error::argument_of(self.name(), what, reason);
        let plan = data_of(command).ok_or_else(|| {
            refuse(&what, "the length of its data is not known here: use the unsafe `submit_raw`".into())
        })?;
        // While this queue pair exists, no command that changes the size of a block is sent, and none was before that is not
        // answered.
        let mut queue = self.queue_pair().depth(4).create_limited::<()>(&mut limit)?;
        self.inner().subsystem().check_settled(self.name(), &what)?;
        let plan = match plan {
            Data::BlocksOrValue | Data::Keys | Data::NoKeys => {
                // The same opcode has another length there.
                let has_keys = self.has_keys(command.nsid, &mut limit)?;
                if has_keys {
                    what = KeyValueOpcode(command.opcode).to_string();
                }
                match plan {
                    Data::NoKeys if has_keys => Data::None,
                    _ if has_keys => Data::Bytes(command.cdw10.into()),
                    Data::BlocksOrValue => Data::Blocks,
                    _ => {
                        let opcode = KeyValueOpcode(command.opcode);
                        return Err(refuse(
                            &what,
                            format!(
                                "{opcode} is for namespaces with keys, and namespace {} has none",
                                command.nsid
                            ),
                        ));
                    }
                }
            }
            plan => plan,
        };
        self.check_supported(command, &what, &mut limit)?;
        let len = match plan {
            Data::Bytes(len) => len,
            Data::Blocks => {
                let block = self.plain_block(command.nsid, &what, &mut limit)?;
                block.saturating_mul(command.block_count().into())
            }
            _ => 0,
        };
        if data.len() as u64 != len {
            return Err(refuse(
                &what,
                format!("it transfers {len} bytes here, the buffer has {}", data.len()),
            ));
        }
        if len > self.max_transfer() as u64 {
            let most = self.max_transfer();
            return Err(refuse(&what, format!("{len} bytes: the controller takes {most} at once")));
        }
        let direction = NvmOpcode(command.opcode).direction();
        let mut command = *command;
        command.flags = 0;
        command.set_metadata_pointer(0);
        command.set_data_pointer(0, 0);
        let mut buffer = self.inner().whole_pages(data.len(), &mut limit)?;
        if !data.is_empty() {
            if direction == DataDirection::ToController {
                buffer.write_at(0, data);
            }
            // Whole pages of the driver's own heap: their PRP list is prepared.
            let transfer = buffer.prepared();
            command.set_data_pointer(transfer.iova, transfer.second);
        }
        let mut turn = queue.turn()?;
        // SAFETY: the command moves `len` bytes at most, to or from `buffer`, which has as many, by pointers to it alone: its
        // opcode is one whose data is known (`data_of`), by the command set of its namespace where that decides, and namespaces keep
        // their command sets and blocks their size while this queue pair exists. None of these opcodes is about queues, other
        // commands or the format of a namespace.
        let sent = unsafe { turn.submit_raw(&command, buffer, ()) };
        sent.map_err(|refused| Error::refused(self.name(), &*what, refused.reason))?;
        drop(turn);
        if !queue.wait(Wait::Poll, limit.left())? {
            return Err(Error::timeout(self.name(), what, timeout));
        }
        let done = queue.turn()?.next();
        let Some(done) = done else { return Err(Error::timeout(self.name(), what, timeout)) };
        let dword0 = done.dword0();
        let (_, result, buffer) = done.into_parts();
        queue.close()?;
        result.map_err(|status| Error::of_status(self.name(), what, status))?;
        if direction == DataDirection::FromController {
            buffer.read_at(0, data);
        }
        Ok(dword0)
    }

    /// Refuses a command that the controller does not have by its log page Commands Supported and Effects.
    fn check_supported(&self, command: &Command, what: &str, limit: &mut Limit<'_>) -> Result<()> {
        let opcode = command.opcode;
        // Flush, Write and Read; or Flush, Store and Retrieve: mandatory, or optional for reasons that its status tells.
        if matches!(opcode, 0x00..=0x02) {
            return Ok(());
        }
        let set = match command.nsid {
            0 | ALL_NAMESPACES => Csi::NVM,
            nsid => self.inner().command_set(nsid, limit)?,
        };
        self.inner().check_io_command(set, opcode, what, limit)
    }

    /// Returns `true` for a key value namespace.
    fn has_keys(&self, nsid: u32, limit: &mut Limit<'_>) -> Result<bool> {
        let is_one = !matches!(nsid, 0 | ALL_NAMESPACES);
        Ok(is_one && self.inner().command_set(nsid, limit)? == Csi::KEY_VALUE)
    }

    /// Returns the bytes of a namespace's blocks, for the command `what`.
    fn plain_block(&self, nsid: u32, what: &str, limit: &mut Limit<'_>) -> Result<u64> {
        let command = Command::identify(Cns::NAMESPACE, nsid, 0);
        let page = self.inner().identify_page(&command, "Identify (namespace)", limit)?;
        let id = IdentifyNamespace::read_from_bytes(&page[..]).expect("one page");
        let refuse = |reason: String| Error::argument_of(self.name(), what, reason);
        match id.lba_format() {
            Some(format) if format.ms() != 0 && !id.metadata_is_extended() => {
                Err(refuse("blocks with metadata in a buffer of its own can't be passed through".into()))
            }
            // Metadata that is at the end of each block moves with it.
            format => id
                .block_size()
                .map(|size| size + format.map_or(0, |format| u64::from(format.ms())))
                .ok_or_else(|| {
                    refuse(format!("namespace {nsid} is not active, or has no block size that is known here"))
                }),
        }
    }
}
