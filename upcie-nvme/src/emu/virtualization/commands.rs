//! The part of a controller in virtualization: the primary one's commands, and what a controller grants its host.

use super::{
    super::{media::Media, state::Core},
    Virtualization,
    state::PRIMARY,
};
use crate::spec::{Command, Status};

impl<M: Media> Core<M> {
    /// Returns the resources and states of secondary controllers, if this is their primary one.
    pub fn primary(&self) -> Option<&Virtualization> {
        self.virtualization.as_deref().filter(|_| self.io.controller == PRIMARY)
    }

    fn primary_mut(&mut self) -> Option<&mut Virtualization> {
        self.virtualization.as_deref_mut().filter(|_| self.io.controller == PRIMARY)
    }

    /// Carries out a Virtualization Management; returns dword 0 of the completion.
    pub fn manage_virtualization(&mut self, command: &Command) -> Result<u32, Status> {
        self.primary_mut().ok_or(Status::INVALID_OPCODE.with_do_not_retry())?.manage(command)
    }

    /// Turns the secondary controllers off, if this is their primary one, as each of its resets does.
    pub fn stop_secondaries(&mut self) {
        if let Some(all) = self.primary_mut() {
            all.stop_all();
        }
    }

    /// Gives the primary controller the flexible resources that it is to have from now on.
    pub fn allocate(&mut self) {
        if let Some(all) = self.primary_mut() {
            all.allocate();
        }
    }

    /// Returns `true` if the primary controller has changed the state of this one since
    /// [`take_resources`](Self::take_resources).
    #[inline]
    pub fn has_changed(&self) -> bool {
        let all = self.virtualization.as_ref();
        all.is_some_and(|all| all.changes(self.io.controller) != self.changes)
    }

    /// Takes the resources that the controller has now, of which the features tell after the next reset.
    pub fn take_resources(&mut self) {
        if let Some(all) = &self.virtualization {
            self.granted = all.granted(self.io.controller, &self.options);
            self.changes = all.changes(self.io.controller);
        }
    }
}
