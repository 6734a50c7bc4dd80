// Registers decide the addresses that a driver uses, so an implementation of them is `unsafe`.
use upcie_core::{Result, mmio::RegionIo};

struct Nothing;

impl RegionIo for Nothing {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = Nothing;
}
