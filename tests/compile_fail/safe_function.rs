// A driver relies on its device's memory, registers and resets: to implement a device is `unsafe`.
use std::{os::fd::BorrowedFd, sync::Arc};
use upcie_core::{Result, device::Device, dma::DmaSpace, irq::IrqKind, mmio::Bar};

#[derive(Debug)]
struct Pretended(Arc<DmaSpace>, Bar);

impl Device for Pretended {
    fn name(&self) -> &str {
        "pretended"
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.0
    }

    fn config_read(&self, _: u16, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn config_write(&self, _: u16, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn bar(&self, _: u8) -> Result<Bar> {
        Ok(self.1.clone())
    }

    fn irq_count(&self, _: IrqKind) -> Result<u32> {
        Ok(0)
    }

    fn set_irqs(&self, _: IrqKind, _: &[BorrowedFd<'_>]) -> Result<()> {
        Ok(())
    }

    fn mask_irq(&self, _: IrqKind, _: u32, _: bool) -> Result<()> {
        Ok(())
    }

    unsafe fn reset(&self) -> Result<()> {
        Ok(())
    }
}

fn pretend(space: Arc<DmaSpace>, bar: Bar) -> Pretended {
    Pretended(space, bar)
}

fn main() {
    let _ = pretend;
}
