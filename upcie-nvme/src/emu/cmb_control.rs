//! The controller memory buffer in the host's memory: where CMBMSC says.

use super::{
    Error, Host, Machine, Media,
    cmb::{CMB_BAR, CmbProperties},
};

impl<M: Media> Machine<M> {
    /// Puts another memory into the buffer's BAR, for another host.
    pub(super) fn renew_cmb(&mut self) -> Result<(), Error> {
        let Some(cmb) = &mut self.core.cmb else { return Ok(()) };
        cmb.renew(&self.core.options)?;
        if let Some(mappable) = &mut self.layout.regions[usize::from(CMB_BAR)].mappable {
            mappable.memory = cmb.memory().clone();
        }
        Ok(())
    }

    /// Clears CMBMSC. The host is told at its next write, before which the controller accesses no memory: it has no queues.
    pub(super) fn forget_cmb(&mut self) {
        if let Some(cmb) = &mut self.core.cmb {
            cmb.forget();
        }
    }

    /// Writes a half of CMBMSC.
    #[cold]
    pub(super) fn control_cmb(&mut self, host: &mut impl Host, at: usize, value: u32) {
        match &mut self.core.cmb {
            Some(cmb) => cmb.set_control(at, value),
            None => tracing::debug!(at, value, "a write to CMBMSC of a controller without a memory buffer"),
        }
        self.place_cmb(host);
    }

    /// Puts the buffer where CMBMSC says, if the host has it elsewhere.
    pub(super) fn place_cmb(&mut self, host: &mut impl Host) {
        let Some(cmb) = &self.core.cmb else { return };
        let wanted = cmb.wanted();
        let range = wanted.as_ref().map(|(start, memory)| *start..*start + memory.len() as u64);
        let is_wanted = range.is_some();
        let is_done = host.own_memory() == range || host.set_own_memory(wanted);
        self.core.io.note_own_memory(is_wanted && is_done);
    }

    /// Returns the buffer's registers.
    pub(super) fn cmb_properties(&self) -> CmbProperties {
        let is_placed = self.core.io.has_own_memory;
        self.core.cmb.as_ref().map(|cmb| cmb.properties(is_placed)).unwrap_or_default()
    }

    /// Reads bytes of the buffer's BAR.
    pub(super) fn read_cmb(&self, offset: u64, data: &mut [u8]) {
        if let Some(cmb) = &self.core.cmb {
            cmb.read(offset, data);
        }
    }

    /// Writes bytes of the buffer's BAR.
    pub(super) fn write_cmb(&self, offset: u64, data: &[u8]) {
        if let Some(cmb) = &self.core.cmb {
            cmb.write(offset, data);
        }
    }
}
