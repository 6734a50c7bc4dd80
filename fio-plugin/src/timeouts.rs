//! The end of a job whose units have no completion in time, or whose device is requested back.

use crate::{errors::Failure, ffi::Slot, hot, job::Job, target::Target};
use upcie_nvme::{Controller, QueuePair};

impl Job {
    /// Counts passed seconds, and ends the job if a command has timed out.
    #[cold]
    pub(crate) fn tick(&mut self, second: i64) {
        let patience = self.plan.timeout.as_secs() as u32 + 1;
        let passed = if self.shared.second == 0 { 1 } else { second - self.shared.second };
        // Limited, because commands just submitted count from the last tick, and the process may have been stopped, with
        // an embedded controller in it.
        let passed = passed.clamp(0, i64::from(patience / 2).max(1));
        self.shared.second = second;
        self.tick = self.tick.wrapping_add(passed as u32);
        self.give_back_if_wanted();
        if self.late().is_some() {
            // fio reaps only when it must, so completed units may still be in the queue.
            hot::fill_events(self);
            if let Some(index) = self.late() {
                self.out_of_time(index);
            }
        }
    }

    /// Ends the job when one of its devices is requested back, so that a removal, an unbinding or the end of a server can
    /// continue.
    fn give_back_if_wanted(&mut self) {
        let wanted = self.targets().map(|target| &target.open.controller).find(|it| it.is_wanted_back());
        if let Some(reason) = wanted.map(Controller::wanted_back_reason) {
            let text = format!("{reason}: the job ends");
            self.abort_job(&Failure::new(libc::ENODEV, text));
        }
    }

    /// Returns a unit whose time is over.
    fn late(&self) -> Option<u32> {
        let patience = self.plan.timeout.as_secs() as u32 + 1;
        let is_late = |slot: &Slot| slot.pieces > 0 && self.tick.wrapping_sub(slot.since) > patience;
        self.slots().iter().position(is_late).map(|index| index as u32)
    }

    /// Ends the job after a unit has had no completion for a command's timeout.
    #[cold]
    pub(crate) fn out_of_time(&mut self, index: u32) {
        let target = self.slots().get(index as usize).and_then(|slot| self.target_of(slot));
        let queue = target.and_then(Target::queue);
        let text = format!(
            "{}: no completion within {:?} (upcie_timeout); {}",
            self.describe(index),
            self.plan.timeout,
            queue.map_or_else(|| "it has no queue".into(), QueuePair::diagnose)
        );
        self.abort_job(&Failure::new(libc::ETIMEDOUT, text));
    }

    /// Returns the unit that has been in flight longest.
    pub(crate) fn oldest(&self) -> u32 {
        let flying = self.slots().iter().enumerate().filter(|(_, slot)| slot.pieces > 0);
        let oldest = flying.max_by_key(|(_, slot)| self.tick.wrapping_sub(slot.since));
        oldest.map_or(0, |(index, _)| index as u32)
    }
}
