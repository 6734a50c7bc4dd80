// A medium writes to the driver's memory: to implement one is `unsafe`.
use upcie_nvme::{emu::{HostMemory, Media}, spec::Status};

#[derive(Debug)]
struct Late;

impl Media for Late {
    fn read(&mut self, host: &mut impl HostMemory, _: u64, iova: u64, len: usize) -> Result<(), Status> {
        host.write(iova ^ 0x1000, &vec![0xff; len]).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn write(&mut self, _: &mut impl HostMemory, _: u64, _: u64, _: usize) -> Result<(), Status> {
        Ok(())
    }

    fn zero(&mut self, _: u64, _: u64) -> Result<(), Status> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Status> {
        Ok(())
    }
}

fn main() {
    let _ = Late;
}
