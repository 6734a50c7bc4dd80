//! A controller reset while the controller is in use: the end of one epoch and the beginning of the next.

use super::{
    Controller, Inner, Limit, Shape,
    admin::{ENTRIES, Rings},
    lock,
    stopping::{ResetKind, check_subsystem_reset},
    transitions::{disable_patience, enable},
};
use crate::{
    Error, Failure, Result,
    engine::Epoch,
    spec::{
        AdminQueueAttributes, Cns, Command, CommandSet, Csi, FeatureId, IdentifyController,
        IdentifyNamespace, NumberOfQueues,
    },
};
use std::time::Duration;
use upcie_core::{deadline::Budget, gate::Pass};
use zerocopy::FromBytes;

const OPERATION: &str = "resetting the controller";

impl Controller {
    /// Resets the controller (CC.EN to 0 and back; Base, "Controller Level Reset"), from any thread and with commands in
    /// flight, and brings it up again: admin queue, number of queues, arbitration, its own memory, the features that
    /// the program has set, by [`admin`](Self::admin) or [raw](Self::admin_raw), and the requests for [`events`](Self::events).
    ///
    /// Every queue stops: its next turn is [`Failure::Reset`], an open turn rings no more doorbell,
    /// and [`QueuePair::recover`](crate::QueuePair::recover) gives its commands back and creates it again. Blocking calls and
    /// admin commands that were in progress fail with `Failure::Reset`; the next ones work. Namespace handles stay valid,
    /// unless the size, the format, the identity (NGUID, EUI64) or the command set of a namespace has changed meanwhile: then all
    /// of them are stale.
    ///
    /// If the controller does not stop, or does not become ready again, its PCI function is reset. [`reset_by`](Self::reset_by)
    /// chooses the means.
    ///
    /// It also brings back a controller that reports a fatal status, that something else has reset, or whose PCI function has had an
    /// error ([`Failure::PciError`]). If another thread is
    /// resetting the controller, waits for that reset, which counts as this one. Takes CAP.TO for stopping, CRTO or CAP.TO
    /// for becoming ready, both again if its function has to be reset, what a [persistent memory region](Self::pmr) in use states, and one
    /// [`timeout`](crate::ControllerBuilder::timeout) for everything else, at most: admin commands of other threads, and all
    /// commands that set the controller up as it was.
    ///
    /// # Errors
    /// - [`Failure::Down`]: the controller did not come back, or is another one by its serial number, its
    ///   limits or its capabilities (CAP), as after an update of its firmware. Every handle of it says so from then on, until
    ///   [`reset_by`](Self::reset_by) of the function or the subsystem brings it back.
    /// - [`Failure::PciError`]: the PCI function has had another error since the controller had stopped.
    ///   The next reset answers it.
    /// - [`Failure::Status`]: the controller is up again, and refused the named feature, which has its
    ///   default value.
    /// - [`Failure::Timeout`]: another thread's reset has not ended in time; or the controller is up again,
    ///   and the named feature was not set in time, nor those after it.
    pub fn reset(&self) -> Result<()> {
        self.inner.reset(ResetKind::Controller, None)
    }

    /// Resets the controller like [`reset`](Self::reset), by the means that is named. A reset of the function or the subsystem may
    /// bring back a controller that did not come back from another one ([`Failure::Down`]): its handles are as after any reset then.
    ///
    /// # Errors
    /// Those of [`reset`](Self::reset), and [`Failure::Unsupported`], which changes nothing: the
    /// controller can't reset its subsystem.
    pub fn reset_by(&self, kind: ResetKind) -> Result<()> {
        self.inner.reset(kind, None)
    }
}

impl Inner {
    /// Resets the controller; if `of` is given, only if that epoch is not over.
    pub(crate) fn reset(&self, kind: ResetKind, of: Option<&Epoch>) -> Result<()> {
        self.check_owner(OPERATION)?;
        self.device.check_held()?;
        if kind == ResetKind::Subsystem {
            check_subsystem_reset(&self.link.name, self.link.registers.capabilities())?;
        }
        let seen = self.resets.count();
        let patience = self.reset_patience();
        let waiting = self.limit_of(patience);
        let _pass = self.link.enter(&self.resets.gate, &waiting, || OPERATION.into(), "a reset")?;
        if kind == ResetKind::Controller || !self.link.live.may_come_back() {
            self.link.live.check_up(&self.link.name, || OPERATION.into())?;
        }
        if self.resets.count() != seen {
            return self.link.live.check_usable(&self.link.name, || OPERATION.into());
        }
        if of.is_some_and(Epoch::is_over) {
            return Ok(());
        }
        let _resetting = self.resets.begin();
        let _budget = Budget::new(patience);
        // The limit of everything that the controller states no time for.
        let mut limit = self.limit();
        // A reset may activate firmware.
        self.effects.forget();
        let up = self.stop_and_start(kind, &mut limit);
        if let Err(error) = &up {
            // Another reset answers an error of the function.
            if !matches!(error.failure(), Failure::PciError { .. }) {
                self.link.live.set_down(format!("it did not come back from a reset ({error})"), false);
            }
        }
        // A program that sleeps until an interrupt of a queue finds out that it ended.
        self.vectors.wake_all(&self.link.name);
        self.link.live.check_up(&self.link.name, || OPERATION.into())?;
        up?;
        // Each is tried, whatever becomes of the others. What the program has set counts more than the driver's own.
        let delays = self.tell_behavior(&mut limit);
        let restored = self.restore_features(&mut limit);
        let lent = self.restore_host_buffer(&mut limit);
        delays.and(restored).and(lent).and(self.request_events(&mut limit))
    }

    /// Stops the controller for good, for `reason`: every handle says so from then on.
    pub(crate) fn give_up(&self, reason: &str) -> Result<()> {
        self.check_owner("stopping the controller")?;
        let patience = self.reset_patience();
        let waiting = self.limit_of(patience);
        let operation = "stopping the controller";
        let _pass = self.link.enter(&self.resets.gate, &waiting, || operation.into(), "a reset")?;
        self.link.live.check_up(&self.link.name, || operation.into())?;
        let _resetting = self.resets.begin();
        let _budget = Budget::new(patience);
        let mut limit = self.limit();
        self.link.live.set_down(reason.into(), true);
        self.vectors.wake_all(&self.link.name);
        let rings = self.admin.rings();
        let mut rings = self.link.enter(rings, &limit, || operation.into(), "admin commands")?;
        self.stop_epoch(&mut rings, ResetKind::Controller, &mut limit)
    }

    /// Returns the longest time that a reset takes. A register that can't be read makes the reset fail, too.
    fn reset_patience(&self) -> Duration {
        let registers = &self.link.registers;
        // Again after a reset of the function: to stop, and to become ready.
        let function = registers.quirks().ready_delay + registers.patience();
        let ready = disable_patience(registers)
            .and_then(|disable| Ok(disable + function + 2 * registers.ready_patience()?));
        ready.unwrap_or_default().saturating_add(self.timeout())
    }

    /// Waits until no other thread resets the controller, within `limit`.
    ///
    /// # Errors
    /// The controller is down, its PCI function has had an error, or that takes too long.
    pub(crate) fn wait_for_reset(&self, limit: &Limit<'_>, what: &dyn Fn() -> String) -> Result<()> {
        if self.resets.is_elsewhere() {
            let mut backoff = limit.backoff(Duration::MAX);
            while self.resets.is_elsewhere() {
                let what = || format!("{}: waiting for a reset of the controller", what());
                self.pause(&mut backoff, &what).map_err(|error| limit.tell(error))?;
            }
        }
        self.link.live.check_usable(&self.link.name, what)
    }

    /// Ends the epoch and stops the controller, which lets go of all memory of it. The caller has the admin queue.
    fn stop_epoch(&self, rings: &mut Rings, kind: ResetKind, limit: &mut Limit<'_>) -> Result<()> {
        let epoch = self.link.live.end();
        let stopped = self.halt(kind, limit);
        // A server that has closed the connection uses no memory either.
        if stopped.is_err() && !self.device.has_ended() {
            return stopped;
        }
        epoch.set_let_go();
        let mut memory = self.memory.take_retired();
        memory.extend(self.queue_ids.forget_moving());
        self.admin.forget(rings, self.affected());
        drop(memory);
        stopped
    }

    fn stop_and_start(&self, kind: ResetKind, limit: &mut Limit<'_>) -> Result<()> {
        let link = &self.link;
        // No turn opens from here on.
        link.live.end();
        let mut rings = link.enter(self.admin.rings(), limit, || OPERATION.into(), "admin commands")?;
        self.stop_epoch(&mut rings, kind, limit)?;
        // An error of the function since the stop explains a start that failed, and leaves the controller to the next reset.
        self.start(rings, kind, limit)
            .map_err(|error| self.check_pci_error(&|| OPERATION.into()).err().unwrap_or(error))
    }

    /// Brings up the controller, which has stopped by a reset of `kind`, as it was before.
    fn start(&self, mut rings: Pass<'_, Rings>, kind: ResetKind, limit: &mut Limit<'_>) -> Result<()> {
        self.enable_or_reset(&mut rings, kind, limit)?;
        rings.join(self.link.live.begin()?);
        drop(rings);
        self.configure_again(limit)
    }

    /// Enables the controller; resets its function, and tries once more, if it does not become ready after a stop by CC.EN.
    fn enable_or_reset(&self, rings: &mut Rings, kind: ResetKind, limit: &mut Limit<'_>) -> Result<()> {
        let Err(error) = self.enable_again(rings, limit) else { return Ok(()) };
        let has_failed = matches!(error.failure(), Failure::Timeout { .. } | Failure::Fatal { .. });
        if kind != ResetKind::Controller || !has_failed {
            return Err(error);
        }
        tracing::warn!(device = %self.link.name, %error, "resetting its function");
        let again = self.halt(ResetKind::Function, limit).and_then(|()| self.enable_again(rings, limit));
        again.map_err(|second| {
            tracing::error!(device = %self.link.name, error = %second, "nor does it start after a reset of its function");
            error
        })
    }

    /// Enables the controller, which has stopped, with the admin queue that it had.
    fn enable_again(&self, rings: &mut Rings, limit: &mut Limit<'_>) -> Result<()> {
        let link = &self.link;
        self.take_capabilities()?;
        let last = ENTRIES as u16 - 1;
        let aqa = AdminQueueAttributes::new().with_asqs(last).with_acqs(last);
        let (sq, cq) = rings.addresses();
        // SAFETY: `stop_epoch` has zeroed the rings, which have so many entries and stay until the controller has stopped.
        unsafe { link.registers.set_admin_queue(aqa, sq, cq) }?;
        limit.outside(|| enable(link, &self.properties))
    }

    /// Reads CAP again, which a reset that activates firmware may change, and takes it over.
    ///
    /// # Errors
    /// The change breaks what was made before, such as queues whose doorbells are elsewhere now. The controller stays stopped.
    fn take_capabilities(&self) -> Result<()> {
        let registers = &self.link.registers;
        let (before, now) = (registers.capabilities(), registers.read_capabilities()?);
        let misfit = self.queue_ids.larger_than(registers.quirks().most_entries(now));
        if let Some(change) = self.properties.breaking_change(before, now, self.is_weighted(), misfit) {
            return Err(Error::unsupported(self.name(), format!("the reset has changed it: {change}")));
        }
        registers.set_capabilities(now);
        Ok(())
    }

    /// Sets up what a controller reset has cleared, and checks that it is the controller from before.
    fn configure_again(&self, limit: &mut Limit<'_>) -> Result<()> {
        let page =
            self.identify_page(&Command::identify(Cns::CONTROLLER, 0, 0), "Identify (controller)", limit)?;
        let identify = IdentifyController::read_from_bytes(&page[..]).expect("one page");
        let before = &self.properties.identify;
        let limits = |of: &IdentifyController| (of.sn, of.mn, of.subnqn, of.mdts, of.sqes, of.cqes, of.oncs);
        if limits(&identify) != limits(before) {
            return Err(Error::protocol(
                self.name(),
                OPERATION,
                "Identify tells another serial number, model or limit than before",
            ));
        }
        if self.properties.no_io.is_none() {
            let wanted = u32::from(self.link.options.queues.max(1));
            let feature = NumberOfQueues::of(wanted, wanted);
            let command = Command::set_features(FeatureId::NUMBER_OF_QUEUES, feature.into_bits());
            let granted = self.feature(&command, &[], "Set Features (Number of Queues)", limit)?;
            let granted = NumberOfQueues::from_bits(granted);
            let pairs = granted.submission_queues().min(granted.completion_queues());
            if pairs < u32::from(self.properties.granted) {
                let reason = format!("it grants {pairs} queue pairs, {} before", self.properties.granted);
                return Err(Error::protocol(self.name(), OPERATION, reason));
            }
            if let Some(arbitration) = self.link.options.arbitration {
                let command = Command::set_features(FeatureId::ARBITRATION, arbitration.into_bits());
                self.feature(&command, &[], "Set Features (Arbitration)", limit)?;
            }
        }
        self.device_memory.restore(self.owner(), limit)?;
        self.check_shapes(limit)
    }

    /// Makes namespace handles stale if a namespace that has some is not as it was.
    fn check_shapes(&self, limit: &mut Limit<'_>) -> Result<()> {
        let stamp = self.link.live.stamp();
        let known: Vec<_> = lock(&self.shapes).iter().map(|(&nsid, &shape)| (nsid, shape)).collect();
        // Elsewhere a namespace can't get another one.
        let has_sets = self.properties.command_set == CommandSet::ALL;
        for (nsid, shape) in known.into_iter().filter(|(_, shape)| shape.stamp == stamp) {
            let asks = has_sets || shape.command_set != Csi::NVM;
            let command_set = if asks { self.command_set(nsid, limit)? } else { Csi::NVM };
            let now = if command_set == Csi::KEY_VALUE {
                Some(Shape::of_keys(stamp))
            } else {
                let command = Command::identify(Cns::NAMESPACE, nsid, 0);
                match self.identify_page(&command, "Identify (namespace)", limit) {
                    Ok(page) => {
                        let identify = IdentifyNamespace::read_from_bytes(&page[..]).expect("one page");
                        Some(Shape::of(&identify, command_set, stamp))
                    }
                    Err(error) if error.status().is_some() => None,
                    Err(error) => return Err(error),
                }
            };
            if now != Some(shape) {
                tracing::warn!(device = %self.link.name, nsid, "a namespace has changed during a reset: all handles are stale");
                self.link.live.restamp();
                break;
            }
        }
        Ok(())
    }

    /// Notes the shape of a namespace that gets a handle.
    pub(crate) fn note_shape(&self, nsid: u32, shape: Shape) {
        lock(&self.shapes).insert(nsid, shape);
    }

    /// Sets the features again that the program has set. Tries all of them, and returns the first error.
    fn restore_features(&self, limit: &mut Limit<'_>) -> Result<()> {
        let mut result = Ok(());
        for (command, data) in self.features.all() {
            let what = format!("setting {} again after a reset", FeatureId(command.cdw10 as u8));
            let set = self.feature(&command, &data, &what, limit);
            if let Err(error) = &set {
                tracing::warn!(device = %self.link.name, %error, "a feature has its default value");
            }
            result = result.and(set.map(drop));
        }
        result
    }

    /// Sends a Set Features with `data`, and returns dword 0 of its completion.
    fn feature(&self, command: &Command, data: &[u8], what: &str, limit: &mut Limit<'_>) -> Result<u32> {
        let buffer = self.pages_with(data, limit)?;
        Ok(self.admin_data(command, buffer, what, limit)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    #[test]
    fn a_namespace_that_changed_during_a_reset_makes_handles_stale() {
        let controller = Controller::open("emu:size=1M,serial=SHAPES").unwrap();
        // The namespace seems to have been another one when its handle was made.
        let changes: [fn(&mut Shape); 4] = [
            |shape| shape.blocks -= 1,
            |shape| shape.identity.0[15] ^= 1,
            |shape| shape.identity.1[7] ^= 1,
            |shape| shape.command_set = Csi::ZONED,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let namespace = controller.namespace(1).unwrap();
            controller.reset().unwrap();
            namespace.flush().unwrap();
            change(lock(&controller.inner.shapes).get_mut(&1).unwrap());
            controller.reset().unwrap();
            let error = namespace.flush().unwrap_err();
            let stale = matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. });
            assert!(stale, "{index}: {error}");
        }
        controller.namespace(1).unwrap().flush().unwrap();
    }
}
