//! The registers of a controller's own memory, and its place in the host's memory.

use super::super::{Error, Host, Machine, Media};

impl<M: Media> Machine<M> {
    /// Puts other memory into the BARs, for another host.
    pub(in super::super) fn renew_own_memory(&mut self) -> Result<(), Error> {
        self.core.own.renew()?;
        for (bar, memory) in self.core.own.bars() {
            if let Some(mappable) = &mut self.layout.regions[usize::from(bar)].mappable {
                mappable.memory = memory.clone();
            }
        }
        Ok(())
    }

    /// Writes a register of the memory; returns `false` if it is none.
    pub(in super::super) fn control_own_memory(
        &mut self,
        host: &mut impl Host,
        at: usize,
        value: u32,
    ) -> bool {
        let is_one = self.core.own.set(at, value);
        if is_one {
            self.place_own_memory(host);
        }
        is_one
    }

    /// Puts the memory where its registers say, if the host has it elsewhere. After a reset this is at the next write,
    /// before which the controller accesses no memory: it has no queues.
    pub(in super::super) fn place_own_memory(&mut self, host: &mut impl Host) {
        if let Some(is_there) = self.core.own.place(host) {
            self.core.io.note_own_memory(is_there);
        }
    }
}
