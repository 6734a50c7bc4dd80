//! The configuration space of every device.

use super::Device;
use crate::{Result, pci::ConfigSpace};

impl<D: Device + ?Sized> ConfigSpace for D {
    fn device_name(&self) -> &str {
        self.name()
    }

    fn read_bytes(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.config_read(offset, data)
    }

    unsafe fn write_bytes(&self, offset: u16, data: &[u8]) -> Result<()> {
        // SAFETY: the caller of `write_bytes` owes what `config_write` requires.
        unsafe { self.config_write(offset, data) }
    }
}
