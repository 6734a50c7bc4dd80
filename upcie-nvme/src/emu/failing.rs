//! The fault plan of a controller, and its faults of the controller as a whole.

use super::{
    Error, FaultPlan, Machine, Media, Options, Region,
    faults::{self, Fault, Injector, Place, Strike},
    namespace::Change,
    staged::{LastingFaults, Staging},
};
use crate::spec::{LogPageId, NoticeEvent, ZoneState, offset};
use std::{thread, time::Duration};

impl<M: Media> Machine<M> {
    /// Lets the controller fail as `plan` says. A [`Lockstep`](super::Lockstep) made of one that
    /// [writes late](Fault::writes_late) has a driver whose buffers can only be copied.
    ///
    /// # Errors
    /// [`Error::FaultRule`]: a rule can't work in the driver's thread. [`Error::FaultCache`]: the medium can't have a cache.
    pub fn with_faults(mut self, plan: &FaultPlan) -> Result<Self, Error> {
        self.inject(plan, Place::Lockstep)?;
        Ok(self)
    }

    /// Lets the controller fail as `plan` says, from now on.
    ///
    /// # Errors
    /// [`Error::FaultRule`], [`Error::FaultCache`].
    pub(super) fn inject(&mut self, plan: &FaultPlan, place: Place) -> Result<(), Error> {
        faults::check(plan, place, &self.core.options, self.namespace_size())?;
        if let Some(capacity) = plan.cache {
            if self.core.io.any_metadata {
                let reason = "it would tear metadata from its blocks: leave ms= out";
                return Err(Error::FaultCache { reason });
            }
            self.core.io.is_cached = true;
            let unit = self.core.options.smallest_block();
            if !self.core.io.media.moves_data() || !self.core.io.media.cache(unit, capacity) {
                let reason = "this medium can't have one: leave null=true out, or put a medium of your own in `Cached`";
                return Err(Error::FaultCache { reason });
            }
        }
        self.core.staging =
            Some(Box::new(Staging { faults: Some(Injector::new(plan)), ..Staging::default() }));
        Ok(())
    }

    /// Lets the controller fail as the file of `faults=` says.
    pub(super) fn inject_file(&mut self, options: &Options, place: Place) -> Result<(), Error> {
        #[cfg(feature = "fault-files")]
        if let Some(path) = &options.faults {
            let (plan, text) = faults::load(path)?;
            return self.inject(&plan, place).map_err(|error| Error::File {
                path: path.clone(),
                reason: faults::located(&text, &error),
                source: None,
            });
        }
        let _ = (options, place);
        Ok(())
    }

    /// Returns `true` if a rule of its plan [writes late](Fault::writes_late).
    pub(super) fn writes_late(&self) -> bool {
        let staging = self.core.staging.as_ref();
        staging.and_then(|staging| staging.faults.as_ref()).is_some_and(Injector::writes_late)
    }

    /// Returns the faults that have struck since the last call, as far as they are kept.
    pub(super) fn take_strikes(&mut self) -> Vec<Strike> {
        self.faults().map_or_else(Vec::new, |faults| faults.struck.drain(..).collect())
    }

    pub(super) fn lasting_faults(&mut self) -> Option<&mut LastingFaults> {
        self.core.staging.as_mut().map(|staging| &mut staging.lasting_faults)
    }

    /// Returns `false` while the function is gone from the bus.
    #[cold]
    pub(super) fn is_present(&mut self, now: &impl Fn() -> Duration) -> bool {
        let Some(lasting_faults) = self.lasting_faults() else { return true };
        let is_gone = lasting_faults.gone_until.is_some_and(|until| now() < until);
        if lasting_faults.must_disconnect {
            return false;
        }
        if !is_gone {
            lasting_faults.gone_until = None;
        }
        !is_gone
    }

    /// Carries out the faults of the controller that have struck.
    #[cold]
    pub(super) fn fail(&mut self, now: &impl Fn() -> Duration) {
        while let Some((fault, nsid)) = self.faults().and_then(|faults| faults.due.pop_front()) {
            tracing::debug!(fault = fault.name(), "the fault plan strikes");
            self.apply_fault(fault, nsid, now);
        }
    }

    fn faults(&mut self) -> Option<&mut Injector> {
        self.core.staging.as_mut().and_then(|staging| staging.faults.as_mut())
    }

    fn apply_fault(&mut self, fault: Fault, nsid: u32, now: &impl Fn() -> Duration) {
        match fault {
            Fault::Stall(time) => thread::sleep(time),
            Fault::Fatal => {
                self.queues = None;
                self.registers.csts.set_cfs(true);
            }
            Fault::PowerCut => {
                let mut state = self.faults().map_or(0, Injector::random);
                self.lose_power(&mut || faults::random(&mut state));
            }
            Fault::EventStorm(number) => self.core.admin.report_burst(number, self.core.features.events),
            Fault::RemoveNamespace(target) => self.change_namespace(target.unwrap_or(nsid), Change::Remove),
            Fault::ResizeNamespace { target, blocks } => {
                self.change_namespace(target.unwrap_or(nsid), Change::Resize(blocks));
            }
            Fault::ReformatNamespace { target, block_size } => {
                self.change_namespace(target.unwrap_or(nsid), Change::Reformat(block_size));
            }
            Fault::ReadOnlyZone { target, zone } => {
                self.fail_zone(target.unwrap_or(nsid), zone, ZoneState::READ_ONLY);
            }
            Fault::OfflineZone { target, zone } => {
                self.fail_zone(target.unwrap_or(nsid), zone, ZoneState::OFFLINE);
            }
            fault => {
                if let Some(lasting_faults) = self.lasting_faults() {
                    lasting_faults.add(fault, now);
                }
            }
        }
    }

    /// Changes a namespace under the commands in flight, and tells the host.
    fn change_namespace(&mut self, nsid: u32, change: Change) {
        if !self.core.io.change(nsid, change) {
            tracing::debug!(nsid, ?change, "the namespace is gone, or is so already");
            return;
        }
        if let (Change::Reformat(_), Some(queues)) = (change, &mut self.queues) {
            for sq in &mut queues.sqs {
                sq.end_flights(&mut self.core.io);
            }
        }
        self.core.forget_zones();
        self.core.admin.change(nsid);
        let notice = NoticeEvent::NAMESPACE_ATTRIBUTES;
        self.core.admin.notice(self.core.features.events, notice, LogPageId::CHANGED_NAMESPACES);
    }

    /// Changes the state of a zone under the commands in flight, and tells the host.
    fn fail_zone(&mut self, nsid: u32, zone: u32, state: ZoneState) {
        match self.core.io.fail_zone(nsid, zone, state) {
            Some(zslba) => self.core.admin.change_zone(self.core.features.events, nsid, zslba),
            None => tracing::debug!(nsid, zone, ?state, "the zone is not there, or has failed already"),
        }
    }

    /// Returns `true` if the host's connection is to be closed.
    pub(super) fn must_disconnect(&mut self) -> bool {
        self.lasting_faults().is_some_and(|lasting_faults| lasting_faults.must_disconnect)
    }

    /// Answers a read in place of the region, if an ailment says so.
    #[cold]
    pub(super) fn alter_read(&mut self, region: Region, offset: u64, data: &mut [u8]) -> bool {
        let Some(Staging { faults: Some(faults), lasting_faults, .. }) = self.core.staging.as_deref_mut()
        else {
            return false;
        };
        if lasting_faults.gone_until.is_some() {
            data.fill(0xff);
            return true;
        }
        let fixed = (offset::CAP..offset::VS + 4).contains(&(offset as usize));
        if lasting_faults.changing && region == Region::Registers && fixed {
            let bits = faults.random().to_le_bytes();
            data.iter_mut().zip(bits.iter().cycle()).for_each(|(byte, bits)| *byte = *bits);
            return true;
        }
        false
    }
}

impl LastingFaults {
    /// Ends the faults that a reset of the function or the subsystem heals.
    pub(super) fn heal(&mut self) {
        (self.stuck_start, self.always_ready) = (false, false);
    }

    fn add(&mut self, fault: Fault, now: &impl Fn() -> Duration) {
        match fault {
            Fault::NeverReady => self.never_ready = true,
            Fault::StuckStart => self.stuck_start = true,
            Fault::AlwaysReady => self.always_ready = true,
            Fault::ChangingRegisters => self.changing = true,
            Fault::CloseConnection => self.must_disconnect = true,
            Fault::AllOnes(time) => {
                self.gone_until = Some(time.map_or(Duration::MAX, |time| now().saturating_add(time)));
            }
            // The others do not last.
            _ => {}
        }
    }
}
