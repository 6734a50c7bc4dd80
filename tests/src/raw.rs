//! Raw writes to a device that a test opened by itself. No driver uses the device, and nothing in Rust refers
//! to the memory that the test makes the device read and write.

use std::{os::fd::BorrowedFd, sync::Arc};
use upcie_core::{
    Result,
    device::Device,
    dma::{DmaSpace, Region},
    memory::Memory,
    mmio::{Bar, Register},
    pci::ConfigSpace,
};

/// Writes a register of 32 bits.
///
/// # Errors
/// Fails like [`Bar::write_u32`].
pub fn write_u32(bar: &Bar, offset: u64, value: u32) -> Result<()> {
    // SAFETY: the test drives the device (see the module).
    unsafe { bar.write_u32(offset, value) }
}

/// Writes a register of 64 bits.
///
/// # Errors
/// Fails like [`Bar::write_u64`].
pub fn write_u64(bar: &Bar, offset: u64, value: u64) -> Result<()> {
    // SAFETY: the test drives the device (see the module).
    unsafe { bar.write_u64(offset, value) }
}

/// Writes a mapped register.
pub fn write(register: &Register<u32>, value: u32) {
    // SAFETY: the test drives the device (see the module).
    unsafe { register.write(value) }
}

/// Writes a word of configuration space.
///
/// # Errors
/// Fails like [`ConfigSpace::set_config_u16`].
pub fn set_config_u16(config: &(impl ConfigSpace + ?Sized), offset: u16, value: u16) -> Result<()> {
    // SAFETY: the test drives the function (see the module).
    unsafe { config.set_config_u16(offset, value) }
}

/// Resets a device.
///
/// # Errors
/// Fails like [`Device::reset`].
pub fn reset(device: &dyn Device) -> Result<()> {
    // SAFETY: the test drives the device (see the module).
    unsafe { device.reset() }
}

/// Makes a region of memory in a device.
///
/// # Errors
/// Fails like [`DmaSpace::map_bar`].
pub fn map_bar(space: &Arc<DmaSpace>, bar: &Bar, offset: u64, len: usize, shared: bool) -> Result<Region> {
    // SAFETY: a register of a device that the test drives, whose memory nothing else hands out.
    unsafe { space.map_bar(bar, offset, len, shared) }
}

/// Returns the file of any memory, for questions to the kernel.
pub fn file(memory: &Memory) -> BorrowedFd<'_> {
    // SAFETY: the tests neither read nor write bytes of the file.
    unsafe { memory.file() }
}
