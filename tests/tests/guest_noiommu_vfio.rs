//! VFIO's unsafe no-IOMMU mode: its conditions, its function, and the end of memory and of bus mastering.

mod vfio_device;

use std::{
    fs,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use upcie_core::{
    Failure,
    device::{Address, Device},
    hugetlb::leftovers,
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    open,
    pci::{Bdf, Binder, ConfigSpace, Function, command},
    vfio::VfioDevice,
};
use upcie_tests::process::role;
use upcie_tests::raw::{map_bar, reset, write_u64};
use vfio_device::{CC, CSTS, again, contains_all, descriptors, expect_success, identify, identify_to};

const PARAMETER: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

fn bdf(index: usize) -> Bdf {
    ["0000:01:00.0", "0000:02:00.0"][index].parse().unwrap()
}

/// Both functions in the mode for one test. Dropping this unbinds them and turns the mode off, as it was
/// before.
struct InMode(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl InMode {
    fn enter() -> Self {
        static USERS: Mutex<()> = Mutex::new(());
        let turn = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        fs::write(PARAMETER, "1").unwrap();
        for index in 0..2 {
            Binder::new().bind(&Function::at(bdf(index)).unwrap(), "vfio-pci").unwrap();
        }
        Self(turn)
    }
}

impl Drop for InMode {
    fn drop(&mut self) {
        for index in 0..2 {
            Binder::new().unbind(&Function::at(bdf(index)).unwrap()).unwrap();
        }
        fs::write(PARAMETER, "0").unwrap();
    }
}

fn refusal() -> String {
    let error = VfioDevice::open(&Address::Noiommu(bdf(0))).expect_err("it opens");
    assert!(error.to_string().contains("0000:01:00.0"), "{error}");
    error.to_string()
}

fn bus_master(index: usize) -> bool {
    let function = Function::at(bdf(index)).unwrap();
    function.config().unwrap().command().unwrap() & command::BUS_MASTER != 0
}

#[test]
fn each_missing_step_is_named() {
    let mode = InMode::enter();
    drop(VfioDevice::open(&Address::Noiommu(bdf(0))).unwrap());
    Binder::new().unbind(&Function::at(bdf(0)).unwrap()).unwrap();
    contains_all(&refusal(), &["no driver is bound", "--unsafe-noiommu", "any memory of the machine"]);
    fs::write(PARAMETER, "0").unwrap();
    contains_all(
        &refusal(),
        &["is off", "enable_unsafe_noiommu_mode", "devbind bind vfio-pci 0000:01:00.0", "tainted"],
    );
    drop(mode);
}

#[test]
fn the_mode_is_never_chosen_automatically() {
    let _mode = InMode::enter();
    for address in ["0000:01:00.0", "vfio:0000:01:00.0", "iommufd:0000:01:00.0"] {
        let error = open(&address.parse().unwrap()).unwrap_err();
        assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
        contains_all(&error.to_string(), &["no-IOMMU mode", "noiommu:0000:01:00.0", "any memory"]);
    }
}

#[test]
fn the_device_reaches_memory_at_its_physical_address() {
    let _mode = InMode::enter();
    let (before, free) = (descriptors(), PageSize::Huge2M.available());
    let device = open(&"noiommu:0000:01:00.0".parse().unwrap()).unwrap();
    assert!(device.dma().is_physical() && bus_master(0));
    let queues = device.dma().allocate(8192, None).unwrap();
    let data = device.dma().map(Memory::new(4 << 20, PageSize::Huge2M).unwrap()).unwrap();
    assert_eq!((queues.iova(0) % (2 << 20), data.iova(2 << 20) % (2 << 20)), (0, 0));
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    let second = data.as_ptr().wrapping_add((2 << 20) + 4096);
    assert_eq!(identify_to(&*device, &queues, data.iova((2 << 20) + 4096), second), "LABA");
    assert!(device.dma().map(Memory::new(4096, PageSize::Small).unwrap()).is_err());
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    identify(&*device, &queues, &data);
    assert!(event.wait(Duration::from_secs(30)).unwrap());
    reset(&*device).unwrap();
    let bar = device.bar(0).unwrap();
    assert_eq!((bar.read_u32(CC).unwrap(), bar.read_u32(CSTS).unwrap()), (0, 0));
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    drop((device, bar));
    assert!(!bus_master(0));
    drop((queues, data, event));
    assert!(leftovers().unwrap().is_empty());
    assert_eq!((descriptors(), PageSize::Huge2M.available()), (before, free));
}

#[test]
fn two_devices_share_a_space_and_reach_each_others_memory() {
    let _mode = InMode::enter();
    let a = VfioDevice::open(&Address::Noiommu(bdf(0))).unwrap();
    let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
    assert!(Arc::ptr_eq(a.dma(), b.dma()));
    assert!(a.iommu().is_none() && a.ioas().is_none());
    let queues = b.dma().allocate(8192, None).unwrap();
    let data = a.dma().allocate(4096, None).unwrap();
    assert_eq!(identify(&*b, &queues, &data), "LABB");
    let (registers, bar) = (a.bar(0).unwrap(), a.bar(2).unwrap());
    let bus = bar.bus_address().unwrap();
    assert_eq!(bus, Function::at(bdf(0)).unwrap().bars().unwrap()[1].base);
    // CMBMSC: the controller decodes its memory at this address, not at the register's.
    write_u64(&registers, 0x50, 0x8000_0000 | 3).unwrap();
    let target = map_bar(a.dma(), &bar, 8192, 4096, true).unwrap();
    assert_eq!(target.iova(0), bus + 8192);
    assert_eq!(identify_to(&*b, &queues, target.iova(0), target.as_ptr()), "LABB");
    drop(a);
    assert!(!bus_master(0) && bus_master(1));
    assert_eq!(identify(&*b, &queues, &data), "LABB");
}

#[test]
fn the_mode_needs_a_privilege_and_has_one_user() {
    const NAME: &str = "the_mode_needs_a_privilege_and_has_one_user";
    match role().as_deref() {
        Some("stranger") => {
            let error = VfioDevice::open(&Address::Noiommu(bdf(0))).expect_err("it opens");
            let text = format!("{error:?}");
            return contains_all(&text, &["0000:01:00.0", "only root may"]);
        }
        Some(holder) => return contains_all(&refusal(), &["process", holder]),
        None => {}
    }
    let _mode = InMode::enter();
    expect_success(&again(NAME, "stranger", true));
    let device = VfioDevice::open(&Address::Noiommu(bdf(0))).unwrap();
    expect_success(&again(NAME, &std::process::id().to_string(), false));
    assert!(VfioDevice::open(&Address::Noiommu(bdf(0))).is_err(), "nor twice in one process");
    drop(device);
    VfioDevice::open(&Address::Noiommu(bdf(0))).unwrap();
}
