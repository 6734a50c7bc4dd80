//! Admin commands of the caller's own.

use super::Controller;
use crate::{
    Error, Result,
    spec::{AdminOpcode, Command, DataDirection},
};
use upcie_core::dma::DmaBuf;

impl Controller {
    /// Runs an admin command with `data`, which it reads or fills as its opcode says, and gives dword 0 of the completion.
    /// The data goes through a buffer of whole pages, so a controller that is wrong about its length hurts nobody.
    ///
    /// The data pointer, the metadata pointer and the flags of `command` are set here.
    ///
    /// A command that changes namespaces (Format NVM, Sanitize, namespace management and attachment) makes all namespace
    /// handles stale, whether it succeeds or not. A turn that is open meanwhile, in another thread, still takes commands
    /// with the old ones: do no I/O to a namespace while it is formatted.
    ///
    /// # Errors
    /// [`Error::Argument`] for a command whose length of data is not known here or is not that of `data`, or that belongs
    /// to the driver itself (queues, events, aborts): [`admin_raw`](Self::admin_raw) takes the former. Otherwise the
    /// controller's status, or a timeout.
    pub fn admin(&self, command: &Command, data: &mut [u8]) -> Result<u32> {
        let opcode = AdminOpcode(command.opcode);
        let refuse = |reason: String| Error::Argument { device: self.name().into(), reason };
        let len = data_len(command).map_err(|why| refuse(format!("{opcode}: {why}")))?;
        if data.len() as u64 != len {
            return Err(refuse(format!(
                "{opcode} transfers {len} bytes here, the buffer has {}",
                data.len()
            )));
        }
        let mut command = *command;
        command.flags = 0;
        command.set_metadata_pointer(0);
        command.set_data_pointer(0, 0);
        let what = opcode.to_string();
        let buffer = if data.is_empty() {
            DmaBuf::empty()
        } else {
            if data.len() > self.max_transfer() {
                let most = self.max_transfer();
                return Err(refuse(format!(
                    "{opcode} of {} bytes: the controller takes {most} at once",
                    data.len()
                )));
            }
            let page = self.page_size();
            let mut buffer = self.inner.heap.alloc_aligned(data.len().next_multiple_of(page), page)?;
            buffer.zero();
            if opcode.direction() == DataDirection::ToController {
                buffer.write_at(0, data);
            }
            buffer
        };
        let changes = matches!(
            opcode,
            AdminOpcode::FORMAT_NVM
                | AdminOpcode::NAMESPACE_MANAGEMENT
                | AdminOpcode::NAMESPACE_ATTACHMENT
                | AdminOpcode::SANITIZE
        );
        // Before, so that nothing goes to blocks that are changing; and after, since handles may have been made meanwhile.
        // Also when it fails, or is not answered: it may have changed blocks all the same.
        if changes {
            self.rescan();
        }
        let outcome = self.inner.admin_data(&command, buffer, &what);
        if changes {
            self.rescan();
        }
        let (result, buffer) = outcome?;
        if opcode.direction() == DataDirection::FromController {
            buffer.read_at(0, data);
        }
        Ok(result)
    }

    /// Runs any admin command as it is, but for its command id, with whatever data pointer it has. `buffer` stays with
    /// it until it completes, and is given back with dword 0 of the completion.
    ///
    /// # Safety
    /// The controller does what the command says: the memory that its pointers name must be the caller's to be read and
    /// written (in `buffer`, say), and what it changes on the controller must not be the driver's (queues, the admin
    /// queue, shadow doorbells).
    ///
    /// # Errors
    /// The controller's status, or a timeout, after which the controller keeps the buffer.
    pub unsafe fn admin_raw(&self, command: &Command, buffer: DmaBuf) -> Result<(u32, DmaBuf)> {
        let result = self.inner.admin_exact(
            command,
            buffer,
            &AdminOpcode(command.opcode).to_string(),
            self.inner.options.timeout,
        );
        self.inner.live.restamp();
        result
    }
}

/// Bytes that a command transfers, where that follows from the command.
fn data_len(command: &Command) -> Result<u64, &'static str> {
    let dwords = |count: u32| Ok((u64::from(count) + 1) * 4);
    match AdminOpcode(command.opcode) {
        AdminOpcode::IDENTIFY => Ok(4096),
        AdminOpcode::GET_LOG_PAGE => Ok(command.log_page_bytes()),
        AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD => dwords(command.cdw10),
        AdminOpcode::SECURITY_SEND | AdminOpcode::SECURITY_RECEIVE => Ok(u64::from(command.cdw11)),
        AdminOpcode::FORMAT_NVM
        | AdminOpcode::SANITIZE
        | AdminOpcode::FIRMWARE_COMMIT
        | AdminOpcode::DEVICE_SELF_TEST => Ok(0),
        // Select (Create) and Attach bring a page, Delete none.
        AdminOpcode::NAMESPACE_MANAGEMENT => Ok(if command.cdw10 & 15 == 0 { 4096 } else { 0 }),
        AdminOpcode::NAMESPACE_ATTACHMENT => Ok(4096),
        AdminOpcode::GET_FEATURES | AdminOpcode::SET_FEATURES => feature_len(command),
        AdminOpcode::CREATE_SQ
        | AdminOpcode::CREATE_CQ
        | AdminOpcode::DELETE_SQ
        | AdminOpcode::DELETE_CQ
        | AdminOpcode::ABORT
        | AdminOpcode::ASYNC_EVENT_REQUEST
        | AdminOpcode::DOORBELL_BUFFER_CONFIG => Err("the driver's own: it can't be passed through"),
        _ => Err("how much it transfers is not known here: use `admin_raw`"),
    }
}

/// Bytes that go with a feature.
fn feature_len(command: &Command) -> Result<u64, &'static str> {
    // Get Features with Select = supported capabilities transfers nothing.
    if AdminOpcode(command.opcode) == AdminOpcode::GET_FEATURES && command.cdw10 >> 8 & 7 == 3 {
        return Ok(0);
    }
    match command.cdw10 & 0xff {
        // Number of Queues: set at bring-up, and not to be changed after queues were made.
        0x07 if AdminOpcode(command.opcode) == AdminOpcode::SET_FEATURES => {
            Err("the number of queues is the driver's own")
        }
        // Host Memory Buffer: gives the controller memory, for good.
        0x0d => Err("a host memory buffer needs `admin_raw`"),
        0x01 | 0x02 | 0x04..=0x0b => Ok(0),
        // LBA Range Type.
        0x03 => Ok(4096),
        // Autonomous Power State Transition.
        0x0c => Ok(256),
        // Timestamp.
        0x0e => Ok(8),
        // Keep Alive Timer, Host Controlled Thermal Management, Non-Operational Power State Config.
        0x0f..=0x11 => Ok(0),
        // Software Progress Marker.
        0x80 => Ok(0),
        _ => Err("how much the feature transfers is not known here: use `admin_raw`"),
    }
}
