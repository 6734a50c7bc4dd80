//! Support code of the suites over VFIO: the guest's functions, and a minimal controller.
#![allow(dead_code, unused_macros, reason = "each suite uses a part of it")]

use std::{
    env, fs,
    os::unix::process::CommandExt,
    process::Output,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};
use upcie_core::{
    Result, barrier,
    device::{Address, Device},
    dma::Region,
    memory::{Memory, PageSize},
    pci::{Bdf, Function},
    vfio::VfioDevice,
};
use upcie_tests::raw::{write_u32, write_u64};

pub const CC: u64 = 0x14;
pub const CSTS: u64 = 0x1c;

/// Returns the addresses of the guest's functions for these suites.
pub fn addresses() -> Vec<String> {
    assert_eq!(env::var("UPCIE_GUEST").as_deref(), Ok("1"), "guest_ suites run in the guest only");
    env::var("UPCIE_TEST_DEVICES").unwrap().split(',').map(str::to_owned).collect()
}

pub fn bdf(index: usize) -> Bdf {
    addresses()[index].parse().unwrap()
}

/// The attachment of a function to an IOMMU: its VFIO group in a container, or its own node in an iommufd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    Group,
    Iommufd,
}

impl Attachment {
    pub const ALL: [Self; 2] = [Self::Group, Self::Iommufd];

    pub fn address(self, bdf: Bdf) -> Address {
        match self {
            Self::Group => Address::Vfio(bdf),
            Self::Iommufd => Address::Iommufd(bdf),
        }
    }

    pub fn open(self, bdf: Bdf) -> Result<Arc<VfioDevice>> {
        VfioDevice::open(&self.address(bdf))
    }

    /// Opens the function `index`, which must work.
    pub fn device(self, index: usize) -> Arc<VfioDevice> {
        self.open(bdf(index)).unwrap()
    }

    /// Returns the error of opening the function `index`.
    pub fn refusal(self, index: usize) -> String {
        self.open(bdf(index)).expect_err("it opens").to_string()
    }

    /// Returns the full name of a test that [`on_each_attachment`] makes.
    pub fn test(self, name: &str) -> String {
        let module = match self {
            Self::Group => "group",
            Self::Iommufd => "iommufd",
        };
        format!("{module}::{name}")
    }
}

/// Makes a test of each function and attachment: `group::name` and `iommufd::name`.
macro_rules! on_each_attachment {
    ($($name:ident),+ $(,)?) => {
        mod group {
            $(#[test]
            fn $name() {
                super::$name(super::Attachment::Group);
            })+
        }
        mod iommufd {
            $(#[test]
            fn $name() {
                super::$name(super::Attachment::Iommufd);
            })+
        }
    };
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

/// Makes the controller write its identify data into `data` by DMA and raise vector 0; returns its serial
/// number.
pub fn identify(device: &dyn Device, queues: &Region, data: &Region) -> String {
    identify_to(device, queues, data.iova(0), data.as_ptr())
}

/// Like [`identify`], with data at `iova`, of which this process sees at least the first 24 bytes at `data`.
pub fn identify_to(device: &dyn Device, queues: &Region, iova: u64, data: *const u8) -> String {
    identify_while(device, queues, iova, data, || {})
}

/// Like [`identify`], and calls `interrupted` before it stops the controller: a controller that takes its pin down
/// then leaves no interrupt for a handler that runs late.
pub fn identify_until(
    device: &dyn Device,
    queues: &Region,
    data: &Region,
    interrupted: impl FnOnce(),
) -> String {
    identify_while(device, queues, data.iova(0), data.as_ptr(), interrupted)
}

fn identify_while(
    device: &dyn Device,
    queues: &Region,
    iova: u64,
    data: *const u8,
    completed: impl FnOnce(),
) -> String {
    let bar = device.bar(0).unwrap();
    write_u32(&bar, CC, 0).unwrap();
    wait_ready(device, 0);
    let status = queues.as_ptr().wrapping_add(4096 + 12).cast::<u32>();
    // SAFETY: aligned, in the region's second page. The queues start over, so an old status there is stale.
    unsafe { status.write_volatile(0) };
    write_u32(&bar, 0x24, 15 << 16 | 15).unwrap();
    write_u64(&bar, 0x28, queues.iova(0)).unwrap();
    write_u64(&bar, 0x30, queues.iova(4096)).unwrap();
    write_u32(&bar, CC, 0x0046_0001).unwrap();
    wait_ready(device, 1);
    let mut command = [0u32; 16];
    command[0] = 0x06 | 7 << 16;
    command[6] = iova as u32;
    command[7] = (iova >> 32) as u32;
    command[10] = 1;
    let queue = queues.as_ptr().cast::<[u32; 16]>();
    // SAFETY: the start of a region of at least two pages.
    unsafe { queue.write_volatile(command) };
    barrier::dma_wmb();
    write_u32(&bar, 0x1000, 1).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    // SAFETY: an aligned word of the completion entry, in the same region.
    while unsafe { status.read_volatile() } & 1 << 16 == 0 {
        assert!(Instant::now() < end, "no completion");
    }
    barrier::dma_rmb();
    // Byte by byte, since it may be device memory.
    let serial = std::array::from_fn::<u8, 20, _>(|at| {
        // SAFETY: in the data; the command has completed.
        unsafe { data.wrapping_add(4 + at).read_volatile() }
    });
    completed();
    write_u32(&bar, CC, 0).unwrap();
    wait_ready(device, 0);
    String::from_utf8_lossy(&serial).trim().to_owned()
}

/// Runs a test of this suite in its own process, in a role, and on request as a plain user.
pub fn again(test: &str, role: &str, plain_user: bool) -> Output {
    let mut command = upcie_tests::process::again(test, role);
    if plain_user {
        command.uid(1000).gid(1000);
    }
    command.output().unwrap()
}

pub fn expect_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Lists the open files of this process: equal lists show that nothing leaked in between.
pub fn descriptors() -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| fs::read_link(entry.path()));
    // Reading the directory opens it.
    let mut names: Vec<_> = links.flatten().map(|path| path.to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with("/proc/"));
    names.sort();
    names
}

/// Returns the bytes that the kernel holds in memory for this process's DMA: locked for a container or pinned
/// for an iommufd.
pub fn held_for_dma() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kilobytes = |line: &str| {
        let value = line.strip_prefix("VmLck:").or(line.strip_prefix("VmPin:"))?;
        value.split_whitespace().next().unwrap().parse::<u64>().ok()
    };
    status.lines().filter_map(kilobytes).sum::<u64>() << 10
}

pub fn map(device: &dyn Device, len: usize, page: PageSize) -> Region {
    device.dma().map(Memory::new(len, page).unwrap()).unwrap()
}

/// Binds a function to a driver, or unbinds it.
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
