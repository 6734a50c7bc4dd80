//! Failures of a job's units: fio gets each as an errno, and each reason is printed once.

use crate::{
    errors,
    ffi::{self, Op},
    job::{Job, Unsent},
};
use upcie_nvme::{Refusal, protection::ProtectionError, spec::Status};

impl Job {
    /// Reports a failed command, once for each status.
    #[cold]
    pub(crate) fn command_failed(&mut self, index: u32, status: Status) {
        let Some(slot) = self.slot(index) else { return };
        ffi::fail(slot.unit, errors::of_status(status));
        if !self.printed.contains(&status) {
            self.printed.push(status);
            let text = self.describe(index);
            ffi::print(&format!("{text} failed: {status} (printed once)"));
        }
    }

    /// Reports a unit that was not submitted, once for each reason.
    #[cold]
    pub(crate) fn unit_unsent(&mut self, unsent: Unsent) {
        let Some(slot) = self.slot(unsent.index) else { return };
        ffi::fail(slot.unit, errors::of_refusal(unsent.reason));
        if !self.printed_refusals.contains(&unsent.reason) {
            self.printed_refusals.push(unsent.reason);
            let text = self.describe(unsent.index);
            let reason = self.unaligned(unsent).unwrap_or_else(|| unsent.reason.to_string());
            ffi::print(&format!("{text} was not sent: {reason} (printed once)"));
        }
    }

    /// Reports a read whose protection information is wrong, once for each field.
    #[cold]
    pub(crate) fn protection_failed(&mut self, index: u32, error: &ProtectionError) {
        let Some(slot) = self.slot(index) else { return };
        ffi::fail(slot.unit, libc::EILSEQ);
        if !self.printed_fields.contains(&error.kind) {
            self.printed_fields.push(error.kind);
            let text = self.describe(index);
            ffi::print(&format!("{text} failed the engine's check: {error} (printed once)"));
        }
    }

    /// Describes an unaligned offset; `None` if the offset is aligned, so that the driver's reason applies.
    fn unaligned(&self, unsent: Unsent) -> Option<String> {
        let slot = self.slots().get(unsent.index as usize)?;
        let block = self.target_of(slot)?.block();
        (unsent.reason == Refusal::Unaligned && !slot.offset.is_multiple_of(block.bytes))
            .then(|| format!("that is not a multiple of the namespace's blocks of {block}"))
    }

    /// Describes a unit for messages.
    pub(crate) fn describe(&self, index: u32) -> String {
        let Some(slot) = self.slots().get(index as usize) else { return "a unit".into() };
        let name = self.target_of(slot).map_or("?", |target| target.open.controller.name());
        match slot.op {
            Op::FLUSH => format!("{name}: flush"),
            op => format!("{name}: {} of {} bytes at byte {}", op.name(), slot.len, slot.offset),
        }
    }
}
