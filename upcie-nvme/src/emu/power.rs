//! The states of the controller: after power-on, enabled, disabled, shut down, failed.

use super::{
    Error, Host, Machine, Media, Options,
    arbitration::Arbiter,
    config::ConfigSpace,
    layout::{self, DOORBELLS, REGISTER_BAR},
    msix::MsixTable,
    queue::{Cq, Fault, Sq},
    queues::Queues,
    registers::{Action, Registers},
    shared::{Doorbell, Ring, give_back},
};
use crate::spec::{ArbitrationMechanism, ShutdownStatus, Status};
use upcie_core::{irq::IrqKind, vfio_user::server::Delivery};

impl<M: Media> Machine<M> {
    /// Cuts the power: the medium loses what it had not flushed, as `random` decides, and the controller is in the
    /// state after power-on.
    pub fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        self.core.io.media.lose_power(random);
        self.core.io.reservations.lose_power();
        self.core.io.end_protection();
        self.core.own.lose_power();
        if let Some(boot) = &mut self.core.firmware.boot {
            boot.lose_power();
        }
        self.said.clear();
        self.power_on();
    }

    /// Resets the function, or forgets a host that is gone: it returns to the state after power-on, and uses none of the
    /// host's memory any more.
    pub fn reset(&mut self) {
        self.core.io.media.forget_host();
        self.core.own.forget();
        self.said.clear();
        if let Some(lasting_faults) = self.lasting_faults() {
            lasting_faults.must_disconnect = false;
            lasting_faults.heal();
        }
        self.power_on();
    }

    /// Puts new memory behind the doorbells and into the controller's own memory, for another host: the last one may
    /// have kept its mapping of theirs.
    pub(super) fn renew_memory(&mut self) -> Result<(), Error> {
        let memory = layout::doorbells(&self.core.options)?;
        // Queues keep the doorbells that they were made with.
        self.queues = None;
        if let Some(mappable) = &mut self.layout.regions[REGISTER_BAR as usize].mappable {
            mappable.memory = memory.clone();
        }
        let former = std::mem::replace(&mut self.core.doorbells, memory);
        give_back(&former);
        if self.core.virtualization.is_some() {
            // A host finds as many vectors as there are now.
            self.core.take_resources();
            self.layout.irqs[IrqKind::Msix as usize] = self.core.granted.vectors.into();
            self.power_on();
        }
        self.renew_own_memory()
    }

    pub(super) fn power_on(&mut self) {
        self.core.allocate();
        self.core.take_resources();
        let mut bars = [0; 6];
        for (size, region) in bars.iter_mut().zip(&self.layout.regions) {
            *size = region.size;
        }
        let vectors = self.core.granted.vectors;
        self.config = ConfigSpace::new(&bars, &Options { vectors, ..self.core.options.clone() });
        self.allow();
        self.msix = MsixTable::new(vectors);
        self.registers = Registers::new(&self.core.options, self.core.controllers);
        self.stop();
    }

    /// Resets a secondary controller, as CC.EN would, if its primary controller has turned it on or off since the last call.
    #[inline]
    pub(super) fn follow_primary(&mut self) {
        if self.core.has_changed() {
            self.core.take_resources();
            self.registers = Registers::new(&self.core.options, self.core.controllers);
            self.stop();
            self.allow();
        }
    }

    /// Notes the actions that configuration space allows now.
    pub(super) fn allow(&mut self) {
        self.allowed = self.config.allowed();
        let (options, (by_msi, messages)) = (&self.core.options, self.allowed.msi);
        // A session keeps the interrupts that it began with.
        let vectors =
            u32::from(self.core.granted.vectors).min(self.layout.irqs[IrqKind::Msix as usize]) as u16;
        self.core.vectors = match () {
            () if self.allowed.msix != Delivery::Off => vectors,
            () if by_msi != Delivery::Off => messages as u16,
            // Not chosen yet.
            () => options.interrupts(vectors),
        };
    }

    pub(super) fn act(&mut self, host: &mut impl Host, action: Action) {
        match action {
            Action::Enable => {
                if !self.allowed.dma {
                    tracing::warn!(
                        "the controller is enabled with bus master off (or not in D0): it fetches no commands until \
                         bus mastering is on"
                    );
                }
                let ready = match self.registers.configuration_error() {
                    Some(reason) => {
                        if self.is_new(reason) {
                            tracing::warn!(reason, "the controller can't be enabled");
                        }
                        false
                    }
                    None => self.start(host).is_ok(),
                };
                let is_stuck =
                    self.lasting_faults().is_some_and(|faults| faults.never_ready || faults.stuck_start);
                self.registers.csts.set_rdy(ready && !is_stuck);
                self.registers.csts.set_cfs(!ready);
            }
            Action::Disable => {
                self.stop();
                self.registers.disable();
                let is_stuck =
                    self.lasting_faults().is_some_and(|lasting_faults| lasting_faults.always_ready);
                self.registers.csts.set_rdy(is_stuck);
            }
            Action::ResetSubsystem => {
                if let Some(lasting_faults) = self.lasting_faults() {
                    lasting_faults.heal();
                }
                self.stop();
                self.core.own.forget();
                self.registers = Registers::new(&self.core.options, self.core.controllers);
                self.registers.csts.set_nssro(true);
            }
            // At once: the host finds the read completed.
            Action::ReadBootPartition => {
                self.registers.boot.read(self.core.firmware.boot.as_ref(), self.allowed.dma, host);
            }
            Action::Shutdown => {
                self.queues = None;
                let flushed = self.core.io.media.flush().is_ok();
                self.registers.csts.set_cfs(!flushed);
                self.registers.csts.set_shst(ShutdownStatus::COMPLETE);
            }
        }
    }

    /// Makes the admin queues.
    fn start(&mut self, host: &mut impl Host) -> Result<(), Status> {
        let registers = &self.registers;
        self.core.io.page = registers.cc.page_size();
        let sq_entries = u32::from(registers.aqa.asqs()) + 1;
        let cq_entries = u32::from(registers.aqa.acqs()) + 1;
        let sq_ring = Ring::of_queue(host, registers.asq, sq_entries)?;
        let cq_ring = Ring::of_queue(host, registers.acq, cq_entries)?;
        let admin_sq = Sq::new(0, 0, sq_entries, sq_ring, self.core.doorbell(0, false)?, false);
        let admin_cq = Cq::new(0, cq_entries, cq_ring, self.core.doorbell(0, true)?, Some(0));
        let queues = self.core.granted.queues;
        let (cqs, sqs) = ((0..=queues).map(|_| None).collect(), Vec::with_capacity(queues.into()));
        self.arbiter = (registers.cc.ams() == ArbitrationMechanism::WEIGHTED).then(Arbiter::default);
        self.queues = Some(Queues { admin_sq, admin_cq, sqs, cqs, next: 0, doorbell_buffers: None });
        Ok(())
    }

    /// Stops the queues, and forgets the state that a controller reset clears. That of a primary controller turns its secondary
    /// ones off.
    fn stop(&mut self) {
        self.queues = None;
        self.core.stop_secondaries();
        self.core.forget();
        for offset in (DOORBELLS as usize..self.core.doorbells.len()).step_by(4) {
            if let Some(doorbell) = Doorbell::new(&self.core.doorbells, offset) {
                doorbell.store(0);
            }
        }
    }

    /// Handles a client that broke a rule in a way that no completion can report.
    #[cold]
    pub(super) fn fatal(&mut self, fault: Fault) {
        let cause = match fault {
            Fault::KeepAlive => "the keep alive timer has run out",
            _ => "the memory of a queue or of doorbell buffers can't be accessed",
        };
        if self.is_new(cause) {
            tracing::error!(?fault, "{cause}: fatal status");
        }
        self.queues = None;
        self.registers.csts.set_cfs(true);
    }
}
