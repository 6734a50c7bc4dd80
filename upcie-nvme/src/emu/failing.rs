//! The faults of the controller as a whole.

use super::{
    Machine, Media, Region,
    faults::{self, Fault, Injector},
    staged::{Ailments, Staging},
};
use crate::spec::offset;
use std::{thread, time::Duration};

impl<M: Media> Machine<M> {
    pub(super) fn ailments(&mut self) -> Option<&mut Ailments> {
        self.core.staging.as_mut().map(|staging| &mut staging.ailments)
    }

    /// Returns `false` while the function is gone from the bus.
    #[cold]
    pub(super) fn is_present(&mut self, now: &impl Fn() -> Duration) -> bool {
        let Some(ailments) = self.ailments() else { return true };
        let is_gone = ailments.gone_until.is_some_and(|until| now() < until);
        if !is_gone {
            ailments.gone_until = None;
        }
        !is_gone
    }

    /// Carries out the faults of the controller that have struck.
    #[cold]
    pub(super) fn fail(&mut self, now: &impl Fn() -> Duration) {
        while let Some(fault) = self.faults().and_then(|faults| faults.due.pop()) {
            tracing::debug!(fault = fault.name(), "the fault plan strikes");
            self.strike(fault, now);
        }
    }

    fn faults(&mut self) -> Option<&mut Injector> {
        self.core.staging.as_mut().and_then(|staging| staging.faults.as_mut())
    }

    fn strike(&mut self, fault: Fault, now: &impl Fn() -> Duration) {
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
            fault => {
                if let Some(ailments) = self.ailments() {
                    ailments.add(fault, now);
                }
            }
        }
    }

    /// Answers a read in place of the region, if an ailment says so.
    #[cold]
    pub(super) fn bend(&mut self, region: Region, offset: u64, data: &mut [u8]) -> bool {
        let Some(Staging { faults: Some(faults), ailments, .. }) = self.core.staging.as_deref_mut() else {
            return false;
        };
        if ailments.gone_until.is_some() {
            data.fill(0xff);
            return true;
        }
        let fixed = (offset::CAP..offset::VS + 4).contains(&(offset as usize));
        if ailments.changing && region == Region::Registers && fixed {
            let bits = faults.random().to_le_bytes();
            data.iter_mut().zip(bits.iter().cycle()).for_each(|(byte, bits)| *byte = *bits);
            return true;
        }
        false
    }
}

impl Ailments {
    fn add(&mut self, fault: Fault, now: &impl Fn() -> Duration) {
        match fault {
            Fault::NeverReady => self.never_ready = true,
            Fault::AlwaysReady => self.always_ready = true,
            Fault::ChangingRegisters => self.changing = true,
            Fault::AllOnes(time) => {
                self.gone_until = Some(time.map_or(Duration::MAX, |time| now().saturating_add(time)));
            }
            // The others do not last.
            _ => {}
        }
    }
}
