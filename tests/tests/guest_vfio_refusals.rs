//! Refusals to open a device through its VFIO group: each error has the reason and a remedy.

mod vfio_device;

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};
use upcie_core::{
    Error,
    device::{Address, Device},
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    open,
    pci::{Bdf, Function},
    vfio::VfioDevice,
};
use upcie_tests::process::role;
use vfio_device::{addresses, again, bdf, bind, contains_all, expect_success, identify, map, refusal};

fn group_node(bdf: Bdf) -> PathBuf {
    let group = Function::at(bdf).unwrap().iommu_group.expect("a group");
    Path::new("/dev/vfio").join(group.number.to_string())
}

#[test]
fn a_device_in_use_says_by_whom() {
    const NAME: &str = "a_device_in_use_says_by_whom";
    if let Some(holder) = role() {
        contains_all(&refusal(0), &["in use by process", &holder]);
        return;
    }
    let device = VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
    contains_all(&refusal(0), &["in use by this process"]);
    expect_success(&again(NAME, &std::process::id().to_string(), false));
    drop(device);
    VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
}

#[test]
fn an_unknown_function_is_not_found() {
    for text in ["0000:3f:00.0", "vfio:0000:3f:00.0"] {
        let error = open(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

#[test]
fn another_driver_or_none_says_how_to_bind_the_right_one() {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            bind(bdf(1), Some("vfio-pci"));
        }
    }
    let _restore = Restore;
    bind(bdf(1), None);
    contains_all(&refusal(1), &["no driver is bound", "devbind bind vfio-pci"]);
    bind(bdf(1), Some("nvme"));
    for address in [addresses()[1].clone(), format!("vfio:{}", addresses()[1])] {
        let error = open(&address.parse().unwrap()).unwrap_err().to_string();
        contains_all(&error, &["bound to the kernel's own driver, nvme", "devbind bind vfio-pci", "unmount"]);
    }
}

#[test]
fn a_plain_user_needs_the_node_and_a_limit_on_locked_memory() {
    const NAME: &str = "a_plain_user_needs_the_node_and_a_limit_on_locked_memory";
    match role().as_deref() {
        Some("stranger") => {
            let error = refusal(0);
            return contains_all(&error, &["no permission", "belongs to root:root", "--owner user", "udev"]);
        }
        Some("owner") => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: the call reads the limits given.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
            let device = VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
            let queues = map(&*device, 8192, PageSize::Small);
            let data = map(&*device, 4096, PageSize::Small);
            assert_eq!(identify(&*device, &queues, &data), "LABA");
            let event = EventFd::new().unwrap();
            device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
            let error = device.dma().map(Memory::new(2 << 20, PageSize::Small).unwrap()).unwrap_err();
            let error = error.to_string();
            contains_all(&error, &["RLIMIT_MEMLOCK", "1048576", "12288 are locked", "2097152", "ulimit -l"]);
            map(&*device, 512 << 10, PageSize::Small);
            return;
        }
        _ => {}
    }
    let node = group_node(bdf(0));
    std::os::unix::fs::chown(&node, Some(0), Some(0)).unwrap();
    expect_success(&again(NAME, "stranger", true));
    std::os::unix::fs::chown(&node, Some(1000), Some(1000)).unwrap();
    expect_success(&again(NAME, "owner", true));
    std::os::unix::fs::chown(&node, Some(0), Some(0)).unwrap();
}
