//! Admin commands of the caller's own.

use super::{Controller, admin::Late, policy};
use crate::{
    Error, Result,
    spec::{AdminOpcode, Command, DataDirection, FeatureId},
};
use upcie_core::dma::DmaBuf;

impl Controller {
    /// Runs an admin command with `data`, which it reads or fills as its opcode says, and gives dword 0 of the completion.
    /// The data goes through a buffer of whole pages, so a controller that is wrong about its length hurts nobody.
    ///
    /// The data pointer, the metadata pointer and the flags of `command` are set here.
    ///
    /// A command that changes namespaces or queues (Format NVM, Sanitize, namespace management and attachment,
    /// Virtualization Management, Capacity Management, a Firmware Commit that activates an image, some features) is sent only
    /// while no queue pair exists in this process: none of this controller, and none of another controller of the same NVM
    /// subsystem. It makes all namespace handles of the subsystem stale, whether it succeeds or not, and no new ones can be
    /// had before it is answered. The blocking calls need not be waited for: their own queue does not count.
    ///
    /// # Errors
    /// [`Error::InUse`] while a queue pair exists that such a change could be seen by (the error names those to be closed).
    /// [`Error::Argument`] for a command whose length of data is not known here or is not that of `data`, that gives the
    /// controller memory of its own, or that belongs to the driver itself (queues, events, aborts):
    /// [`admin_raw`](Self::admin_raw) takes the former. Otherwise the controller's status, or a timeout.
    pub fn admin(&self, command: &Command, data: &mut [u8]) -> Result<u32> {
        let opcode = AdminOpcode(command.opcode);
        let what = name_of(command);
        let refuse = |reason: String| Error::Argument { device: self.name().into(), reason };
        let plan = policy::plan(command).map_err(|why| refuse(format!("{what}: {why}")))?;
        if data.len() as u64 != plan.len {
            return Err(refuse(format!(
                "{what} transfers {} bytes here, the buffer has {}",
                plan.len,
                data.len()
            )));
        }
        let mut command = *command;
        command.flags = 0;
        command.set_metadata_pointer(0);
        command.set_data_pointer(0, 0);
        let buffer = if data.is_empty() {
            DmaBuf::empty()
        } else {
            if data.len() > self.max_transfer() {
                let most = self.max_transfer();
                return Err(refuse(format!(
                    "{what} of {} bytes: the controller takes {most} at once",
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
        let change = plan.alone.map(|why| self.inner.change_alone(&what, why)).transpose()?;
        // The change ends with the answer, whether that is good or not, and whenever it comes.
        let late = change.map_or(Late::Nothing, Late::Change);
        let (result, buffer) = self.inner.admin_late(&command, buffer, &what, late)?;
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
    /// queue, shadow doorbells). It must not change a namespace while a queue of this process, of any controller of the NVM
    /// subsystem, has commands in flight or a turn open: all namespace handles are stale only once it has completed.
    ///
    /// # Errors
    /// The controller's status, or a timeout, after which the controller keeps the buffer.
    pub unsafe fn admin_raw(&self, command: &Command, buffer: DmaBuf) -> Result<(u32, DmaBuf)> {
        let what = AdminOpcode(command.opcode).to_string();
        let result = self.inner.exchange(command, buffer, &what, self.inner.options.timeout, Late::Raw);
        self.inner.subsystem.make_stale();
        result.map_err(|(error, _)| error)
    }
}

/// The command's name for messages, with the feature that it reads or sets.
fn name_of(command: &Command) -> String {
    let opcode = AdminOpcode(command.opcode);
    match opcode {
        AdminOpcode::GET_FEATURES | AdminOpcode::SET_FEATURES => {
            format!("{opcode} of {}", FeatureId(command.cdw10 as u8))
        }
        _ => opcode.to_string(),
    }
}
