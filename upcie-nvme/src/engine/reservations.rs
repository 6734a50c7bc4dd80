//! Reservation commands that a turn submits.

use super::{Extent, Refusal, Refused, Turn, common::two_dwords, prp::DataPointer};
use crate::spec::{
    Command, NvmOpcode, OptionalCommands, PersistenceChange, ReservationAcquireAction,
    ReservationAcquireData, ReservationAcquireDword10, ReservationRegisterAction, ReservationRegisterData,
    ReservationRegisterDword10, ReservationReleaseAction, ReservationReleaseData, ReservationReleaseDword10,
    ReservationStatus, ReservationType,
};
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

/// A reservation command without its buffer, for [`Turn::submit_reservation`]. [`Reservations`](crate::Reservations) has the
/// rules, and the blocking calls.
///
/// # Examples
/// ```
/// # use upcie_nvme::{Controller, Wait};
/// use upcie_nvme::{ReservationCommand, ReservationReport, spec::ReservationType};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// let mut buffer = controller.alloc(4096)?;
/// for command in [
///     ReservationCommand::register(&namespace, 0xabc),
///     ReservationCommand::acquire(&namespace, 0xabc, ReservationType::WRITE_EXCLUSIVE),
///     ReservationCommand::report(&namespace, false),
/// ] {
///     queue.turn()?.submit_reservation(command, buffer, 0)?;
///     # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
///     let (_, result, back) = queue.turn()?.next().unwrap().into_parts();
///     result?;
///     buffer = back;
/// }
/// let report = ReservationReport::from_bytes(&buffer.to_vec(), false).expect("all of it");
/// assert_eq!((report.kind, report.registrants[0].key), (Some(ReservationType::WRITE_EXCLUSIVE), 0xabc));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a command is sent by a turn's `submit_reservation`"]
pub struct ReservationCommand<'n> {
    pub(crate) extent: &'n Extent,
    pub(crate) kind: ReservationAction,
}

/// The action of a reservation command, with its keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReservationAction {
    Register(ReservationRegisterDword10, ReservationRegisterData),
    Acquire(ReservationAcquireDword10, ReservationAcquireData),
    Release(ReservationReleaseDword10, ReservationReleaseData),
    Report { extended: bool },
}

impl<'n> ReservationCommand<'n> {
    /// Describes a Reservation Register: this host is a registrant with `key` then, and holds nothing yet.
    pub fn register(namespace: &'n impl AsRef<Extent>, key: u64) -> Self {
        Self::register_with(namespace, key, PersistenceChange::NONE)
    }

    /// Describes a registration like [`register`](Self::register), which also changes whether registrations and reservations of
    /// the namespace outlast a loss of power (CPTPL).
    pub fn register_with(
        namespace: &'n impl AsRef<Extent>,
        key: u64,
        persistence: PersistenceChange,
    ) -> Self {
        let dword = ReservationRegisterDword10::new().with_persistence(persistence);
        Self::registration(namespace, dword, [0, key])
    }

    /// Describes the replacement of this host's key: of the `current` one or, without it, of any.
    pub fn replace(namespace: &'n impl AsRef<Extent>, current: Option<u64>, new: u64) -> Self {
        let dword = ReservationRegisterDword10::new()
            .with_action(ReservationRegisterAction::REPLACE)
            .with_ignore_existing_key(current.is_none());
        Self::registration(namespace, dword, [current.unwrap_or(0), new])
    }

    /// Describes the end of this host's registration, with its `current` key or, without it, with any.
    pub fn unregister(namespace: &'n impl AsRef<Extent>, current: Option<u64>) -> Self {
        let dword = ReservationRegisterDword10::new()
            .with_action(ReservationRegisterAction::UNREGISTER)
            .with_ignore_existing_key(current.is_none());
        Self::registration(namespace, dword, [current.unwrap_or(0), 0])
    }

    fn registration(
        namespace: &'n impl AsRef<Extent>,
        dword: ReservationRegisterDword10,
        [current_key, new_key]: [u64; 2],
    ) -> Self {
        let kind = ReservationAction::Register(dword, ReservationRegisterData { current_key, new_key });
        Self { extent: namespace.as_ref(), kind }
    }

    /// Describes a Reservation Acquire of the type `kind`, for this host, whose key is `key`.
    pub fn acquire(namespace: &'n impl AsRef<Extent>, key: u64, kind: ReservationType) -> Self {
        Self::acquisition(namespace, ReservationAcquireAction::ACQUIRE, [key, 0], kind)
    }

    /// Describes a preemption: all hosts with the key `preempted` are unregistered, and the reservation is taken over, as one of
    /// the type `kind`, if one of them holds it.
    pub fn preempt(
        namespace: &'n impl AsRef<Extent>,
        key: u64,
        preempted: u64,
        kind: ReservationType,
    ) -> Self {
        Self::acquisition(namespace, ReservationAcquireAction::PREEMPT, [key, preempted], kind)
    }

    /// Describes a preemption like [`preempt`](Self::preempt), which also aborts the commands of the hosts that are unregistered.
    pub fn preempt_and_abort(
        namespace: &'n impl AsRef<Extent>,
        key: u64,
        preempted: u64,
        kind: ReservationType,
    ) -> Self {
        Self::acquisition(namespace, ReservationAcquireAction::PREEMPT_AND_ABORT, [key, preempted], kind)
    }

    fn acquisition(
        namespace: &'n impl AsRef<Extent>,
        action: ReservationAcquireAction,
        [current_key, preempted_key]: [u64; 2],
        kind: ReservationType,
    ) -> Self {
        let dword = ReservationAcquireDword10::new().with_action(action).with_reservation_type(kind);
        let data = ReservationAcquireData { current_key, preempted_key };
        Self { extent: namespace.as_ref(), kind: ReservationAction::Acquire(dword, data) }
    }

    /// Describes a Reservation Release of the reservation, of the type `kind`, that this host holds; the registration stays.
    pub fn release(namespace: &'n impl AsRef<Extent>, key: u64, kind: ReservationType) -> Self {
        Self::end(namespace, ReservationReleaseAction::RELEASE, key, kind)
    }

    /// Describes the end of any reservation, and of the registration of every host: of this registrant, whose key is `key`, too.
    pub fn clear(namespace: &'n impl AsRef<Extent>, key: u64) -> Self {
        Self::end(namespace, ReservationReleaseAction::CLEAR, key, ReservationType(0))
    }

    fn end(
        namespace: &'n impl AsRef<Extent>,
        action: ReservationReleaseAction,
        current_key: u64,
        kind: ReservationType,
    ) -> Self {
        let dword = ReservationReleaseDword10::new().with_action(action).with_reservation_type(kind);
        let kind = ReservationAction::Release(dword, ReservationReleaseData { current_key });
        Self { extent: namespace.as_ref(), kind }
    }

    /// Describes a Reservation Report, which fills its buffer, in the `extended` form (host identifiers of 128 bits) or in the
    /// other; the controller refuses the one that its host identifier is not of.
    /// [`ReservationReport::from_bytes`](crate::ReservationReport::from_bytes) reads the data.
    pub fn report(namespace: &'n impl AsRef<Extent>, extended: bool) -> Self {
        Self { extent: namespace.as_ref(), kind: ReservationAction::Report { extended } }
    }

    /// Returns the data that the command sends; none for a report.
    pub(crate) fn data(&self) -> &[u8] {
        match &self.kind {
            ReservationAction::Register(_, data) => data.as_bytes(),
            ReservationAction::Acquire(_, data) => data.as_bytes(),
            ReservationAction::Release(_, data) => data.as_bytes(),
            ReservationAction::Report { .. } => &[],
        }
    }

    /// Returns `true` for a report, which fills its buffer.
    pub(crate) fn is_report(&self) -> bool {
        matches!(self.kind, ReservationAction::Report { .. })
    }

    /// Names the command for messages.
    #[cold]
    pub(crate) fn describe(&self) -> String {
        let (opcode, action) = match self.kind {
            ReservationAction::Register(dword, _) => (NvmOpcode::RESERVATION_REGISTER, dword.action().name()),
            ReservationAction::Acquire(dword, _) => (NvmOpcode::RESERVATION_ACQUIRE, dword.action().name()),
            ReservationAction::Release(dword, _) => (NvmOpcode::RESERVATION_RELEASE, dword.action().name()),
            ReservationAction::Report { .. } => {
                return format!("{} of namespace {}", NvmOpcode::RESERVATION_REPORT, self.extent.nsid());
            }
        };
        let name = opcode.name().unwrap_or("a reservation command");
        let (action, nsid) = (action.unwrap_or("an unknown action"), self.extent.nsid());
        format!("{name} ({:02X}h, {action}) of namespace {nsid}", opcode.0)
    }

    /// Returns the command, with a report of `bytes` bytes.
    fn build(&self, bytes: u32) -> Command {
        let nsid = self.extent.nsid();
        match self.kind {
            ReservationAction::Register(dword, _) => Command::reservation_register(nsid, dword),
            ReservationAction::Acquire(dword, _) => Command::reservation_acquire(nsid, dword),
            ReservationAction::Release(dword, _) => Command::reservation_release(nsid, dword),
            ReservationAction::Report { extended } => Command::reservation_report(nsid, bytes, extended),
        }
    }
}

impl<T> Turn<'_, T> {
    /// Submits a reservation command. `buffer` is memory for its data: a report fills all of it, the keys of the others are
    /// written to its first 16 bytes.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NoCommand`] if the controller does
    /// not have reservations, [`Refusal::Length`] for a buffer that is too short, longer than a transfer, or ends within a dword.
    pub fn submit_reservation(
        &mut self,
        command: ReservationCommand<'_>,
        mut buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let data = command.data();
        // The keys lie in one segment.
        let fits = data.len() <= buffer.len();
        let len = if command.is_report() { buffer.total_len() } else { data.len() };
        let made = if fits { self.reservation_words(&command, &buffer, len) } else { Err(Refusal::Length) };
        if made.is_ok() && !data.is_empty() {
            buffer.write_at(0, data);
        }
        self.push_owned(made, buffer, tag)
    }

    /// Submits a reservation command with the first `len` bytes of `held` as its data, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held). The controller moves no more than `len` bytes for such a
    /// command.
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent.
    pub(crate) unsafe fn submit_reservation_held(
        &mut self,
        command: ReservationCommand<'_>,
        held: &DmaBuf,
        len: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.reservation_words(&command, held, len);
        self.push_held(made, tag)
    }

    /// Makes the words of a command with `len` bytes of data, and their pointer.
    fn reservation_words(
        &mut self,
        command: &ReservationCommand<'_>,
        held: &DmaBuf,
        len: usize,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let extent = command.extent;
        self.has(extent, OptionalCommands::RESERVATIONS)?;
        let least = if command.is_report() { size_of::<ReservationStatus>() } else { command.data().len() };
        if len < least || len % 4 != 0 || len > extent.max_transfer() {
            return Err(Refusal::Length);
        }
        let command = command.build(len as u32);
        let pointer = self.pointer(NvmOpcode(command.opcode), held, 0, len)?;
        Ok((two_dwords(&command, extent), pointer))
    }
}
