// Safe code can't point a device at memory or give its memory away.
use std::os::fd::BorrowedFd;
use upcie_core::{Result, dma::{DmaSpace, Region, Untranslated}, memory::Memory, mmio::{Bar, Register}, pci::{ConfigSpace, Function, FunctionLock}, device::Device};

fn file(memory: &Memory) -> BorrowedFd<'_> {
    memory.file()
}

fn registers(bar: &Bar, register: &Register<u32>) -> Result<()> {
    register.write(1);
    bar.write_u32(0x1000, 1)?;
    bar.write_u64(0x28, 0)
}

fn configuration(device: &dyn Device) -> Result<()> {
    device.config_write(4, &[0, 0])?;
    device.set_config_u16(4, 0)?;
    device.reset()
}

fn region(space: &std::sync::Arc<DmaSpace>, bar: Bar) -> Result<Region> {
    let bar = bar.with_bus_address(Some(0x1000));
    space.map_bar(&bar, 0, 4096, false)
}

fn untranslated(function: &Function, lock: FunctionLock) -> Result<Untranslated> {
    Untranslated::new(function, lock, true)
}

fn main() {
    let _ = (file, registers, configuration, region, untranslated);
}
