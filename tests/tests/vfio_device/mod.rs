//! What the suites over VFIO share: the guest's functions, and a controller's least.

use std::{
    env, fs,
    thread::sleep,
    time::{Duration, Instant},
};
use upcie_core::{
    barrier,
    dma::Region,
    memory::{Memory, PageSize},
    pci::{Bdf, Function},
    transport::Device,
    vfio::VfioDevice,
};

pub const CC: u64 = 0x14;
pub const CSTS: u64 = 0x1c;

/// The functions that the guest hands to these suites.
pub fn addresses() -> Vec<String> {
    assert_eq!(env::var("UPCIE_GUEST").as_deref(), Ok("1"), "guest_ suites run in the guest only");
    env::var("UPCIE_TEST_DEVICES").unwrap().split(',').map(str::to_owned).collect()
}

pub fn bdf(index: usize) -> Bdf {
    addresses()[index].parse().unwrap()
}

/// Why `index` does not open.
pub fn refusal(index: usize) -> String {
    VfioDevice::open(bdf(index)).expect_err("it opens").to_string()
}

pub fn contains_all(text: &str, parts: &[&str]) {
    println!("{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

pub fn wait_ready(device: &dyn Device, ready: u32) {
    let bar = device.bar(0).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while bar.read_u32(CSTS).unwrap() & 1 != ready {
        assert!(Instant::now() < end, "CSTS.RDY does not become {ready}");
        sleep(Duration::from_millis(1));
    }
}

/// Has the controller write its identify data into `data` by DMA, and raise vector 0; its serial number.
pub fn identify(device: &dyn Device, queues: &Region, data: &Region) -> String {
    let bar = device.bar(0).unwrap();
    bar.write_u32(CC, 0).unwrap();
    wait_ready(device, 0);
    let status = queues.as_ptr().wrapping_add(4096 + 12).cast::<u32>();
    // SAFETY: within the region's second page, aligned. The queues start over: what is left there is stale.
    unsafe { status.write_volatile(0) };
    bar.write_u32(0x24, 15 << 16 | 15).unwrap();
    bar.write_u64(0x28, queues.iova(0)).unwrap();
    bar.write_u64(0x30, queues.iova(4096)).unwrap();
    bar.write_u32(CC, 0x0046_0001).unwrap();
    wait_ready(device, 1);
    let mut command = [0u32; 16];
    command[0] = 0x06 | 7 << 16;
    command[6] = data.iova(0) as u32;
    command[7] = (data.iova(0) >> 32) as u32;
    command[10] = 1;
    let queue = queues.as_ptr().cast::<[u32; 16]>();
    // SAFETY: the start of a region of at least two pages.
    unsafe { queue.write_volatile(command) };
    barrier::dma_wmb();
    bar.write_u32(0x1000, 1).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    // SAFETY: as above.
    while unsafe { status.read_volatile() } & 1 << 16 == 0 {
        assert!(Instant::now() < end, "no completion");
    }
    barrier::dma_rmb();
    let serial = data.as_ptr().wrapping_add(4).cast::<[u8; 20]>();
    // SAFETY: within the region; the command has completed.
    let serial = unsafe { serial.read_volatile() };
    bar.write_u32(CC, 0).unwrap();
    wait_ready(device, 0);
    String::from_utf8_lossy(&serial).trim().to_owned()
}

pub fn map(device: &dyn Device, len: usize, page: PageSize) -> Region {
    device.dma().map(Memory::new(len, page).unwrap()).unwrap()
}

/// Binds a function to a driver, or to none.
pub fn bind(bdf: Bdf, driver: Option<&str>) {
    let path = Function::at(bdf).unwrap().path;
    if path.join("driver").exists() {
        fs::write(path.join("driver/unbind"), bdf.to_string()).unwrap();
    }
    if let Some(driver) = driver {
        fs::write(path.join("driver_override"), driver).unwrap();
        fs::write("/sys/bus/pci/drivers_probe", bdf.to_string()).unwrap();
        assert_eq!(Function::at(bdf).unwrap().driver.as_deref(), Some(driver));
    }
}
