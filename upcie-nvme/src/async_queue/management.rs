//! Futures of commands that manage a namespace or the queue: zones, reservations, reclaim unit handles, Cancel.

use super::{
    command::Command,
    handle::{AsyncHandle, RemoteSubmission},
    queue::AsyncQueue,
    submission::Submission,
};
use crate::{
    Result,
    engine::{Cancel, Extent, ReservationCommand, ZoneSelect},
    spec::{CancelResult, ZoneAction, ZoneFilter},
};
use upcie_core::dma::DmaBuf;

impl AsyncQueue {
    /// Opens, closes, finishes, resets or takes offline a zone, or all zones that the action applies to
    /// ([`Turn::manage_zones`](crate::Turn::manage_zones)). The future's buffer is empty.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// use upcie_nvme::{ZoneSelect, spec::{ZoneAction, ZoneDescriptor, ZoneFilter}};
    ///
    /// let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let zone = namespace.zones()?.start_of(3);
    /// queue.manage_zones(&namespace, ZoneAction::OPEN, ZoneSelect::At(zone), false).await.0?;
    /// let opened = ZoneFilter::EXPLICITLY_OPENED;
    /// let (result, report) = queue.report_zones(&namespace, 0, opened, controller.alloc(4096)?).await;
    /// result?;
    /// let zones = ZoneDescriptor::list(&report.to_vec(), 0);
    /// assert_eq!((zones.len(), zones[0].0.start), (1, zone));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn manage_zones(
        &self,
        namespace: &impl AsRef<Extent>,
        action: ZoneAction,
        zones: ZoneSelect,
        random_writes: bool,
    ) -> Submission {
        self.command(manage_zones(namespace, action, zones, random_writes), DmaBuf::empty())
    }

    /// Fills all of `buffer` with a report of the zones that match `filter`, from the zone of block `slba` on
    /// ([`Turn::report_zones`](crate::Turn::report_zones)).
    pub fn report_zones(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
    ) -> Submission {
        self.command(report_zones(namespace, slba, filter, false), buffer)
    }

    /// Reports zones like [`report_zones`](Self::report_zones), each with its descriptor extension
    /// ([`Turn::report_extended`](crate::Turn::report_extended)).
    pub fn report_extended(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
    ) -> Submission {
        self.command(report_zones(namespace, slba, filter, true), buffer)
    }

    /// Sets the descriptor extension of the empty zone that begins with block `zone` to all of `buffer`
    /// ([`Turn::set_zone_extension`](crate::Turn::set_zone_extension)).
    pub fn set_zone_extension(
        &self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
    ) -> Submission {
        self.command(Command::SetZoneExtension { extent: *namespace.as_ref(), zone }, buffer)
    }

    /// Executes a reservation command with `buffer` for its data: at least 16 bytes, or those of a report
    /// ([`Turn::submit_reservation`](crate::Turn::submit_reservation)).
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// use upcie_nvme::{ReservationCommand, ReservationReport, spec::ReservationType};
    ///
    /// let controller = Controller::open("emu:size=1M")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let kind = ReservationType::WRITE_EXCLUSIVE;
    /// let register = ReservationCommand::register(&namespace, 0xabc);
    /// let (result, buffer) = queue.submit_reservation(register, controller.alloc(4096)?).await;
    /// result?;
    /// let acquire = ReservationCommand::acquire(&namespace, 0xabc, kind);
    /// let (result, buffer) = queue.submit_reservation(acquire, buffer).await;
    /// result?;
    /// let report = ReservationCommand::report(&namespace, false);
    /// let (result, buffer) = queue.submit_reservation(report, buffer).await;
    /// result?;
    /// let report = ReservationReport::from_bytes(&buffer.to_vec(), false).expect("all of it");
    /// assert_eq!(report.kind, Some(kind));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_reservation(&self, command: ReservationCommand<'_>, buffer: DmaBuf) -> Submission {
        self.command(command.into(), buffer)
    }

    /// Fills all of `buffer` with the status of the namespace's placement handles
    /// ([`Turn::handle_status`](crate::Turn::handle_status)).
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// use upcie_nvme::{Io, spec::HandleStatus};
    ///
    /// let controller = Controller::open("emu:size=1M,fdp=true,fdp-handles=4,fdp-unit=64K")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let third = namespace.placement()?.identifier(0, 2);
    /// let write = Io::write(&namespace, 0).placement(third);
    /// let (result, buffer) = queue.submit(write, controller.alloc(4096)?).await;
    /// result?;
    /// let (result, buffer) = queue.handle_status(&namespace, buffer).await;
    /// result?;
    /// let (_, handles) = HandleStatus::list(&buffer.to_vec());
    /// assert_eq!(handles[2].available_media_writes, 128 - 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn handle_status(&self, namespace: &impl AsRef<Extent>, buffer: DmaBuf) -> Submission {
        self.command(Command::HandleStatus { extent: *namespace.as_ref() }, buffer)
    }

    /// Lets the reclaim unit handles that the first `count` placement identifiers in `identifiers` name refer to empty reclaim
    /// units ([`Turn::update_handles`](crate::Turn::update_handles)).
    pub fn update_handles(
        &self,
        namespace: &impl AsRef<Extent>,
        identifiers: DmaBuf,
        count: usize,
    ) -> Submission {
        self.command(Command::UpdateHandles { extent: *namespace.as_ref(), count }, identifiers)
    }

    /// Ends the commands that are in flight on this queue, or those of a namespace, as far as the controller can
    /// ([`Turn::cancel`](crate::Turn::cancel)): those of dropped futures, too, whose buffers are free then. Their own futures
    /// resolve to [`Status::ABORT_REQUESTED`](crate::spec::Status::ABORT_REQUESTED), or as if nothing had happened.
    ///
    /// The Cancel takes a place in the queue, and waits for one in its turn: leave one free where all others may hang. A queue's
    /// commands have no slots that a program knows, so a Cancel [of one](Cancel::of_slot) is refused
    /// ([`Refusal::NotInFlight`](crate::Refusal::NotInFlight)). The future's buffer is empty.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, spec::Status};
    /// let controller = Controller::open("emu:size=1M,latency=10s")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// let cancel = controller.cancel()?; // an error if the controller does not have the command
    /// # smol::block_on(async {
    /// let slow = queue.read(&namespace, 0, controller.alloc(4096)?);
    /// let ((slow, _), (ended, _)) = smol::future::zip(slow, queue.cancel(cancel)).await;
    /// assert_eq!(slow.unwrap_err().status(), Some(Status::ABORT_REQUESTED));
    /// assert_eq!(ended?.aborted(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self, cancel: Cancel<'_>) -> Submission<(Result<CancelResult>, DmaBuf)> {
        self.command(cancel.into(), DmaBuf::empty())
    }
}

impl AsyncHandle {
    /// Changes zones like [`AsyncQueue::manage_zones`].
    pub fn manage_zones(
        &self,
        namespace: &impl AsRef<Extent>,
        action: ZoneAction,
        zones: ZoneSelect,
        random_writes: bool,
    ) -> RemoteSubmission {
        self.command(manage_zones(namespace, action, zones, random_writes), DmaBuf::empty())
    }

    /// Reports zones like [`AsyncQueue::report_zones`].
    pub fn report_zones(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
    ) -> RemoteSubmission {
        self.command(report_zones(namespace, slba, filter, false), buffer)
    }

    /// Reports zones with their extensions like [`AsyncQueue::report_extended`].
    pub fn report_extended(
        &self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
    ) -> RemoteSubmission {
        self.command(report_zones(namespace, slba, filter, true), buffer)
    }

    /// Sets a zone's descriptor extension like [`AsyncQueue::set_zone_extension`].
    pub fn set_zone_extension(
        &self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
    ) -> RemoteSubmission {
        self.command(Command::SetZoneExtension { extent: *namespace.as_ref(), zone }, buffer)
    }

    /// Executes a reservation command like [`AsyncQueue::submit_reservation`].
    pub fn submit_reservation(&self, command: ReservationCommand<'_>, buffer: DmaBuf) -> RemoteSubmission {
        self.command(command.into(), buffer)
    }

    /// Returns the status of placement handles like [`AsyncQueue::handle_status`].
    pub fn handle_status(&self, namespace: &impl AsRef<Extent>, buffer: DmaBuf) -> RemoteSubmission {
        self.command(Command::HandleStatus { extent: *namespace.as_ref() }, buffer)
    }

    /// Updates reclaim unit handles like [`AsyncQueue::update_handles`].
    pub fn update_handles(
        &self,
        namespace: &impl AsRef<Extent>,
        identifiers: DmaBuf,
        count: usize,
    ) -> RemoteSubmission {
        self.command(Command::UpdateHandles { extent: *namespace.as_ref(), count }, identifiers)
    }

    /// Ends commands in flight like [`AsyncQueue::cancel`]: those of the queue and of all its handles.
    pub fn cancel(&self, cancel: Cancel<'_>) -> RemoteSubmission<(Result<CancelResult>, DmaBuf)> {
        self.command(cancel.into(), DmaBuf::empty())
    }
}

fn manage_zones(
    namespace: &impl AsRef<Extent>,
    action: ZoneAction,
    zones: ZoneSelect,
    random_writes: bool,
) -> Command {
    Command::ManageZones { extent: *namespace.as_ref(), action, zones, random_writes }
}

fn report_zones(namespace: &impl AsRef<Extent>, slba: u64, filter: ZoneFilter, is_extended: bool) -> Command {
    Command::ReportZones { extent: *namespace.as_ref(), slba, filter, is_extended }
}
