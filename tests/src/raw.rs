//! Raw writes to a device that a test opened by itself: no driver has it, and what a test tells it to read and write is memory
//! to which nobody has references.

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
/// As [`Bar::write_u32`].
pub fn write_u32(bar: &Bar, offset: u64, value: u32) -> Result<()> {
    // SAFETY: the test drives the device (see the module).
    unsafe { bar.write_u32(offset, value) }
}

/// Writes a register of 64 bits.
///
/// # Errors
/// As [`Bar::write_u64`].
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
/// As [`ConfigSpace::set_config_u16`].
pub fn set_config_u16(config: &(impl ConfigSpace + ?Sized), offset: u16, value: u16) -> Result<()> {
    // SAFETY: the test drives the function (see the module).
    unsafe { config.set_config_u16(offset, value) }
}

/// Resets a device.
///
/// # Errors
/// As [`Device::reset`].
pub fn reset(device: &dyn Device) -> Result<()> {
    // SAFETY: the test drives the device (see the module).
    unsafe { device.reset() }
}

/// Makes a region of memory in a device.
///
/// # Errors
/// As [`DmaSpace::map_bar`].
pub fn map_bar(space: &Arc<DmaSpace>, bar: &Bar, offset: u64, len: usize, shared: bool) -> Result<Region> {
    // SAFETY: a register of a device that the test drives, whose memory nothing else hands out.
    unsafe { space.map_bar(bar, offset, len, shared) }
}

/// The file of any memory: to ask the kernel about, not to write to.
pub fn file(memory: &Memory) -> BorrowedFd<'_> {
    // SAFETY: a test reads no bytes of it, nor writes any.
    unsafe { memory.file() }
}
