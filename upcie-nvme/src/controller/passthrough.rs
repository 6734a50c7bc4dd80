//! Admin commands that the caller builds.

use super::{Controller, Limit, effects::alone as alone_by_effects, late::Late, policy};
use crate::{
    Error, Result,
    spec::{AdminOpcode, Command, CompletionEntry, DataDirection, FeatureId},
};
use std::time::Duration;
use upcie_core::dma::DmaBuf;

impl Controller {
    /// Runs an admin command with `data`, which the controller reads or fills as the opcode says, and returns
    /// dword 0 of the completion. The data is copied through a buffer of whole pages, so a controller that
    /// transfers too much does no harm.
    ///
    /// Sets the data pointer, the metadata pointer and the flags of `command`.
    ///
    /// A command that changes namespaces or queues (Format NVM, Sanitize, namespace management and
    /// attachment, Virtualization Management, Capacity Management, a Firmware Commit that activates an image,
    /// some features) is sent only while no queue pair exists in this process: none of this controller, and
    /// none of another controller of the same NVM subsystem. It makes all namespace handles of the subsystem
    /// stale, whether it succeeds or not, and no new handle can be made before the answer. The blocking
    /// calls' own queue does not count.
    ///
    /// The controller's log page Commands Supported and Effects (05h) is heeded, for commands that a controller need not have: one
    /// that it lacks is refused, and one that may change namespaces (NCC, NIC) or has to be executed alone (CSE) is sent as those
    /// above are. After one that may change what the controller can do (CCC) its Identify data is read again; if the driver relies
    /// on something that has changed, the controller is [`Failure::Down`](crate::Failure::Down) and can be opened again. A page
    /// that denies a mandatory command is not believed.
    ///
    /// # Errors
    /// - [`Failure::InUse`](crate::Failure::InUse) while a queue pair exists that would see such a change; the error names the queue
    ///   pairs to close.
    /// - [`Failure::Argument`](crate::Failure::Argument) for a command whose data length is not known here or differs from `data`, or
    ///   that gives the controller memory of its own: run these with [`admin_raw`](Self::admin_raw). Also for
    ///   a command that is the driver's own business (queues, events, aborts), or that the controller lacks by its own word.
    /// - [`Failure::Reset`](crate::Failure::Reset): the controller was reset meanwhile. It is not known whether the command was
    ///   executed, and a feature that it has set may have its default value.
    /// - The controller's status, or a timeout: of everything that the command takes, the first read of that log page and the
    ///   Identify after it included. After a timeout the command may have been carried out.
    pub fn admin(&self, command: &Command, data: &mut [u8]) -> Result<u32> {
        self.admin_within(command, data, self.inner.timeout())
    }

    /// Runs an admin command like [`admin`](Self::admin), with a deadline of its own: a Format NVM, a self-test or a
    /// Sanitize may take minutes. Commands of other threads, and calls that need some (a new queue pair, a namespace
    /// handle), run beside it.
    ///
    /// # Errors
    /// Those of [`admin`](Self::admin).
    pub fn admin_within(&self, command: &Command, data: &mut [u8], timeout: Duration) -> Result<u32> {
        self.admin_limited(command, data, &mut self.inner.limit_of(timeout))
    }

    /// Runs an admin command like [`admin`](Self::admin), as a part of a call.
    pub(super) fn admin_limited(
        &self,
        command: &Command,
        data: &mut [u8],
        limit: &mut Limit<'_>,
    ) -> Result<u32> {
        let opcode = AdminOpcode(command.opcode);
        let what = name_of(command);
        self.inner.check_owner(&what)?;
        let refuse = |reason: String| Error::argument(self.name(), reason);
        let plan = policy::plan(command).map_err(|why| Error::argument_of(self.name(), &*what, why))?;
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
        if data.len() > self.max_transfer() {
            let most = self.max_transfer();
            return Err(refuse(format!(
                "{what} of {} bytes: the controller takes {most} at once",
                data.len()
            )));
        }
        let effects = self.inner.admin_effects(opcode, limit)?;
        let mut buffer = self.inner.whole_pages(data.len(), limit)?;
        if opcode.direction() == DataDirection::ToController {
            buffer.write_at(0, data);
        }
        let alone = |why| self.inner.subsystem.change_alone(&*self.inner, limit, &what, why);
        let change = plan.alone.or_else(|| alone_by_effects(opcode, effects?)).map(alone).transpose()?;
        // A reset under way ends before the command is sent; a later one may clear what it sets.
        self.inner.wait_for_reset(limit, &|| what.clone())?;
        // The answer ends the change, whatever its status and however late it comes.
        let late = change.map_or(Late::Nothing, Late::Change);
        let resets = self.inner.resets.count();
        let (result, buffer) = self.inner.admin_late(&command, buffer, &what, limit, late)?;
        if opcode.direction() == DataDirection::FromController {
            buffer.read_at(0, data);
        }
        self.note_feature(&command, data, resets, &what)?;
        self.inner.heed(opcode, effects, limit)?;
        Ok(result)
    }

    /// Notes a Set Features that the controller has carried out, for resets to send again. `resets` is their count before it was
    /// sent.
    ///
    /// # Errors
    /// The controller was reset meanwhile, and may have forgotten the value.
    fn note_feature(&self, command: &Command, data: &[u8], resets: u64, what: &str) -> Result<()> {
        // Noted first: a reset that begins after the count sets the feature again.
        if self.inner.features.note(command, data) && self.inner.resets.count() != resets {
            return Err(Error::reset_call(self.name(), what));
        }
        Ok(())
    }

    /// Runs any admin command as it is, except for its command id, with the data pointer that it has.
    /// `buffer` stays with the command until it completes, and is returned with dword 0 of the completion.
    ///
    /// A [`reset`](Self::reset) sets again what a Set Features has set that [`admin`](Self::admin) would take, too. Its data is
    /// known if the first PRP entry is the address of `buffer`.
    ///
    /// # Safety
    /// The memory that the command's pointers name must be the caller's to be read and written (in `buffer`,
    /// say). The command must not change what the driver owns on the controller (I/O queues, the admin queue,
    /// shadow doorbells). It must not change a namespace while a queue of this process, on any controller of
    /// the NVM subsystem, has commands in flight or a turn open: namespace handles are marked stale only once
    /// the command has completed.
    ///
    /// # Errors
    /// The controller's status, or a timeout, after which the controller keeps the buffer; or it was reset meanwhile.
    pub unsafe fn admin_raw(&self, command: &Command, buffer: DmaBuf) -> Result<(u32, DmaBuf)> {
        // SAFETY: the caller's promise.
        let (entry, buffer) = unsafe { self.admin_entry(command, buffer) }?;
        if entry.is_success() {
            return Ok((entry.dw0, buffer));
        }
        let (device, what) = (self.inner.name().to_string(), AdminOpcode(command.opcode).to_string());
        Err(Error::of_status(device, &what, entry.status()))
    }

    /// Runs an admin command like [`admin_raw`](Self::admin_raw), and returns the controller's whole completion entry (16
    /// bytes, Base, "Completion Queue Entry"), whatever its status.
    ///
    /// # Safety
    /// The obligations are those of [`admin_raw`](Self::admin_raw).
    ///
    /// # Errors
    /// The controller did not answer. After a timeout it keeps the buffer.
    pub unsafe fn admin_entry(&self, command: &Command, buffer: DmaBuf) -> Result<(CompletionEntry, DmaBuf)> {
        // SAFETY: the caller's promise.
        unsafe { self.admin_entry_within(command, buffer, self.inner.timeout()) }
    }

    /// Runs an admin command like [`admin_entry`](Self::admin_entry), with a deadline of its own.
    ///
    /// # Safety
    /// The obligations are those of [`admin_raw`](Self::admin_raw).
    ///
    /// # Errors
    /// Those of [`admin_entry`](Self::admin_entry).
    pub unsafe fn admin_entry_within(
        &self,
        command: &Command,
        buffer: DmaBuf,
        timeout: Duration,
    ) -> Result<(CompletionEntry, DmaBuf)> {
        let what = AdminOpcode(command.opcode).to_string();
        self.inner.check_owner(&what)?;
        let mut limit = self.inner.limit_of(timeout);
        // Read before the command is sent: the program may share the buffer with others.
        let feature = feature_of(command, &buffer);
        self.inner.wait_for_reset(&limit, &|| what.clone())?;
        let resets = self.inner.resets.count();
        let result = self.inner.exchange_whole(command, buffer, &what, &mut limit, Late::Raw);
        self.inner.subsystem.make_stale();
        self.inner.effects.forget();
        let (entry, buffer) = result.map_err(|(error, _)| error)?;
        if let Some((command, data)) = feature.filter(|_| entry.is_success()) {
            self.note_feature(&command, &data, resets, &what)?;
        }
        Ok((entry, buffer))
    }
}

/// Returns a raw Set Features as [`Controller::admin`] sends it, without pointers, and its data. `None` for another command, a
/// feature that safe code can't set, and data that is not at the beginning of `buffer`.
fn feature_of(command: &Command, buffer: &DmaBuf) -> Option<(Command, Vec<u8>)> {
    if AdminOpcode(command.opcode) != AdminOpcode::SET_FEATURES {
        return None;
    }
    let len = policy::plan(command).ok()?.len as usize;
    let mut data = vec![0; len];
    if len > 0 {
        // Without PSDT the data pointer is two PRP entries.
        if command.flags != 0 || buffer.len() < len || command.prp1() != buffer.iova(0) {
            return None;
        }
        buffer.read_at(0, &mut data);
    }
    let mut command = *command;
    command.flags = 0;
    command.set_metadata_pointer(0);
    command.set_data_pointer(0, 0);
    Some((command, data))
}

/// Names the command for messages, with the feature that it reads or sets.
fn name_of(command: &Command) -> String {
    let opcode = AdminOpcode(command.opcode);
    match opcode {
        AdminOpcode::GET_FEATURES | AdminOpcode::SET_FEATURES => {
            format!("{opcode} of {}", FeatureId(command.cdw10 as u8))
        }
        _ => opcode.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, spec::FeatureSelect};
    use std::sync::atomic::{AtomicBool, Ordering};
    use tracing::{Event, Metadata, Subscriber, span, subscriber::with_default};

    /// Resets a controller when the first admin command has ended.
    struct Resets(Controller, AtomicBool);

    impl Subscriber for Resets {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "upcie_nvme::controller::commands"
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            if !self.1.swap(true, Ordering::Relaxed) {
                self.0.reset().unwrap();
            }
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    /// A reset between the answer to a Set Features and its note cleared the feature, and nobody knew.
    #[test]
    fn a_feature_that_a_reset_has_cleared_is_an_error() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let set = Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, 350);
        let resets = Resets(controller.clone(), AtomicBool::new(false));
        let done = with_default(resets, || controller.admin(&set, &mut []));
        assert!(matches!(done.unwrap_err().failure(), Failure::Reset { .. }));
        controller.admin(&set, &mut []).unwrap();
        controller.reset().unwrap();
        let get = Command::get_features(FeatureId::TEMPERATURE_THRESHOLD, FeatureSelect::CURRENT);
        assert_eq!(controller.admin(&get, &mut []).unwrap() & 0xffff, 350);
    }
}
