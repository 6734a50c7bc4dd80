//! The reservations of a namespace: registrations, the reservation that a host holds, and the report of both.

use super::{
    Namespace,
    blocking::{Order, run},
    retries::Tries,
};
use crate::{
    Error, Result,
    controller::Limit,
    engine::ReservationCommand,
    spec::{
        OptionalCommands, PersistenceChange, ReservationCapabilities, ReservationReport, ReservationType,
        Status,
    },
};
use upcie_core::dma::DmaBuf;

/// Bytes that the first command of a report asks for.
const PIECE: usize = 4096;
/// Commands of a report whose controllers become more between two of them.
const READS: usize = 8;

/// The reservations of a namespace (Base, "Reservations"): a host *registers* a key of its own choice, and may then *acquire*
/// the reservation, which keeps others from writing, or from reading as well.
///
/// A host is a host identifier, which each controller that it uses is told once after a reset, before it registers:
/// [`HostIdentifier`](crate::spec::HostIdentifier) or [`ExtendedHostIdentifier`](crate::spec::ExtendedHostIdentifier).
/// With identifier 0 a registration ends with the next reset of the controller. A command that a reservation prohibits fails
/// with [`Status::RESERVATION_CONFLICT`].
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, spec::{HostIdentifier, HostIdentifierData, ReservationType}};
///
/// let controller = Controller::open("emu:size=1M")?;
/// controller.set_feature(&HostIdentifier { data: HostIdentifierData { identifier: 7 } })?;
/// let reservations = controller.namespace(1)?.reservations()?;
/// reservations.register(0xabc)?;
/// reservations.acquire(0xabc, ReservationType::WRITE_EXCLUSIVE)?;
/// let report = reservations.report()?;
/// assert_eq!(report.kind, Some(ReservationType::WRITE_EXCLUSIVE));
/// assert_eq!((report.registrants[0].key, report.registrants[0].holds), (0xabc, true));
/// reservations.release(0xabc, ReservationType::WRITE_EXCLUSIVE)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reservations {
    namespace: Namespace,
}

impl Namespace {
    /// Returns the namespace's reservations.
    ///
    /// # Errors
    /// The namespace is not [usable](Self::check_usable), or its controller says that there are no reservations (ONCS bit 5,
    /// RESCAP).
    pub fn reservations(&self) -> Result<Reservations> {
        self.check_usable()?;
        let has = self.extent.optional.contains(OptionalCommands::RESERVATIONS);
        let reason = match self.identify.reservation_capabilities().bits() & !1 {
            _ if !has => "the controller has no reservation commands (Identify, ONCS bit 5)",
            0 => "it can have no reservation of any type (Identify, RESCAP)",
            _ => return Ok(Reservations { namespace: self.clone() }),
        };
        let reason = format!("namespace {} has no reservations: {reason}", self.nsid());
        Err(Error::unsupported(self.controller.name(), reason))
    }
}

impl Reservations {
    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the reservations that the namespace can have.
    pub fn capabilities(&self) -> ReservationCapabilities {
        self.namespace.identify.reservation_capabilities()
    }

    /// Registers this host with `key`: it is a registrant then, and holds nothing yet.
    ///
    /// # Errors
    /// Those of [`Namespace::read`]: [`Status::RESERVATION_CONFLICT`] if the host is registered with another key. A command that
    /// changes registrations or reservations is sent once: after a timeout it may have had its effect.
    pub fn register(&self, key: u64) -> Result<()> {
        self.register_with(key, PersistenceChange::NONE)
    }

    /// Registers like [`register`](Self::register), and changes whether registrations and reservations of the namespace
    /// outlast a loss of power (CPTPL).
    ///
    /// # Errors
    /// Those of [`register`](Self::register); refused if the namespace can't keep them.
    pub fn register_with(&self, key: u64, persistence: PersistenceChange) -> Result<()> {
        let keeps = self.capabilities().contains(ReservationCapabilities::PERSISTENCE);
        if persistence == PersistenceChange::SET && !keeps {
            return Err(self.lacks("no reservation of it outlasts a loss of power (Identify, RESCAP bit 0)"));
        }
        self.change(ReservationCommand::register_with(&self.namespace, key, persistence))
    }

    /// Replaces this host's key: the `current` one or, without it, any.
    ///
    /// # Errors
    /// Those of [`register`](Self::register): [`Status::RESERVATION_CONFLICT`] if the host is no registrant, or has another key.
    pub fn replace(&self, current: Option<u64>, new: u64) -> Result<()> {
        self.change(ReservationCommand::replace(&self.namespace, current, new))
    }

    /// Ends this host's registration, with its `current` key or, without it, with any. A reservation that the host alone holds
    /// is released.
    ///
    /// # Errors
    /// Those of [`replace`](Self::replace).
    pub fn unregister(&self, current: Option<u64>) -> Result<()> {
        self.change(ReservationCommand::unregister(&self.namespace, current))
    }

    /// Acquires the reservation, of the type `kind`, for this host, whose key is `key`. A holder of a reservation of this type
    /// keeps it.
    ///
    /// # Errors
    /// Those of [`register`](Self::register): [`Status::RESERVATION_CONFLICT`] if the host is no registrant with this key, or
    /// another reservation is held. A type that the namespace can't have is refused.
    pub fn acquire(&self, key: u64, kind: ReservationType) -> Result<()> {
        self.check_kind(kind)?;
        self.change(ReservationCommand::acquire(&self.namespace, key, kind))
    }

    /// Unregisters all hosts with the key `preempted`, and takes over the reservation, as one of the type `kind`, if one of
    /// them holds it. Of a reservation that all registrants hold, the key 0 stands for all other hosts.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire): [`Status::RESERVATION_CONFLICT`] if no host has the key `preempted`.
    pub fn preempt(&self, key: u64, preempted: u64, kind: ReservationType) -> Result<()> {
        self.check_kind(kind)?;
        self.change(ReservationCommand::preempt(&self.namespace, key, preempted, kind))
    }

    /// Preempts like [`preempt`](Self::preempt), and aborts the commands of the hosts that are unregistered.
    ///
    /// # Errors
    /// Those of [`preempt`](Self::preempt).
    pub fn preempt_and_abort(&self, key: u64, preempted: u64, kind: ReservationType) -> Result<()> {
        self.check_kind(kind)?;
        self.change(ReservationCommand::preempt_and_abort(&self.namespace, key, preempted, kind))
    }

    /// Releases the reservation, of the type `kind`, that this host holds; the registration stays. A registrant that holds none
    /// changes nothing.
    ///
    /// # Errors
    /// Those of [`register`](Self::register): [`Status::RESERVATION_CONFLICT`] if the host is no registrant with this key,
    /// [`Status::INVALID_FIELD`] if the reservation has another type.
    pub fn release(&self, key: u64, kind: ReservationType) -> Result<()> {
        self.change(ReservationCommand::release(&self.namespace, key, kind))
    }

    /// Releases any reservation, and ends the registration of every host: of this registrant, whose key is `key`, too.
    ///
    /// # Errors
    /// Those of [`release`](Self::release).
    pub fn clear(&self, key: u64) -> Result<()> {
        self.change(ReservationCommand::clear(&self.namespace, key))
    }

    /// Reports the reservation and the registrants, in the form of the host identifiers in use.
    ///
    /// # Errors
    /// Those of [`Namespace::read`], the timeout being that of all commands together;
    /// [`Failure::Protocol`](crate::Failure::Protocol) for a report that contradicts itself.
    pub fn report(&self) -> Result<ReservationReport> {
        let mut limit = self.namespace.controller.limit();
        let first = self.report_as(false, &mut limit);
        let is_other = |error: &Error| error.status() == Some(Status::HOST_ID_INCONSISTENT);
        if first.as_ref().err().is_some_and(is_other) { self.report_as(true, &mut limit) } else { first }
    }

    fn report_as(&self, extended: bool, limit: &mut Limit<'_>) -> Result<ReservationReport> {
        let controller = &self.namespace.controller;
        let command = ReservationCommand::report(&self.namespace, extended);
        self.namespace.check_usable()?;
        let most = self.namespace.extent.max_transfer() / 4 * 4;
        let mut len = PIECE.min(most);
        for _ in 0..READS {
            let mut bytes = vec![0; len];
            self.run(command, &bytes, Tries::of(controller), limit)?.read_at(0, &mut bytes);
            match ReservationReport::from_bytes(&bytes, extended) {
                Ok(report) => return Ok(report),
                Err(needs) if needs > most => break,
                Err(needs) => len = needs.next_multiple_of(PIECE).min(most),
            }
        }
        let reason =
            "it says that there are more registered controllers than it has, or than a command can return";
        Err(Error::protocol(controller.name(), command.describe(), reason))
    }

    /// Refuses a type of reservation that the namespace can't have.
    fn check_kind(&self, kind: ReservationType) -> Result<()> {
        if self.capabilities().has(kind) {
            return Ok(());
        }
        Err(self.lacks(&format!("it can't have a reservation of the type {kind} (Identify, RESCAP)")))
    }

    /// Sends a command that changes something, once.
    fn change(&self, command: ReservationCommand<'_>) -> Result<()> {
        self.namespace.check_usable()?;
        let mut limit = self.namespace.controller.limit();
        self.run(command, command.data(), Tries::NONE, &mut limit).map(drop)
    }

    /// Runs a command with a buffer that begins with `data`, which the controller reads or replaces; returns the buffer.
    fn run(
        &self,
        command: ReservationCommand<'_>,
        data: &[u8],
        tries: Tries,
        limit: &mut Limit<'_>,
    ) -> Result<DmaBuf> {
        let (controller, len) = (&self.namespace.controller, data.len());
        let mut buffer = controller.pages_with(data, limit)?;
        let what = || command.describe();
        run(controller, &mut buffer, &what, limit, (tries, Order::Any), |turn, held, _| {
            // SAFETY: `held` has `len` bytes. It outlives the command: `run` gives it back or frees it only when nothing is in
            // flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.submit_reservation_held(command, held, len, 0) }.map(|()| false)
        })?;
        Ok(buffer)
    }

    fn lacks(&self, reason: &str) -> Error {
        let reason = format!("namespace {}: {reason}", self.namespace.nsid());
        Error::unsupported(self.namespace.controller.name(), reason)
    }
}
