//! Devices through VFIO's character devices and iommufd: memory, closing, refusals.

mod vfio_device;

use std::{
    fs,
    os::{fd::AsFd, unix::fs::chown},
    path::{Path, PathBuf},
    time::Duration,
};
use upcie_core::{
    Error,
    device::{Address, Device},
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    open,
    pci::{Bdf, ConfigSpace, Function, command},
    vfio::VfioDevice,
};
use upcie_tests::process::role;
use upcie_tests::raw::{reset, write_u32, write_u64};
use vfio_device::{
    CC, CSTS, addresses, again, bdf, bind, contains_all, descriptors, expect_success, identify, map, pinned,
    wait_ready,
};

const IOMMU: &str = "/dev/iommu";

fn node(bdf: Bdf) -> PathBuf {
    let mut names = fs::read_dir(Function::at(bdf).unwrap().path.join("vfio-dev")).unwrap();
    Path::new("/dev/vfio/devices").join(names.next().unwrap().unwrap().file_name())
}

fn group_node(bdf: Bdf) -> PathBuf {
    let group = Function::at(bdf).unwrap().iommu_group.expect("a group");
    Path::new("/dev/vfio").join(group.number.to_string())
}

/// Returns the error of opening `index`.
fn refusal(index: usize) -> String {
    VfioDevice::open(&Address::Iommufd(bdf(index))).expect_err("it opens").to_string()
}

fn has(device: &VfioDevice, iova: u64) -> bool {
    device.iommu().unwrap().ranges.iter().any(|range| range.contains(&iova))
}

#[test]
fn a_bare_address_chooses_iommufd_and_the_other_two_say_what_they_want() {
    for (index, address) in addresses().into_iter().enumerate() {
        assert!(VfioDevice::open(&Address::Pci(bdf(index))).unwrap().ioas().is_some());
        for text in [address.clone(), format!("iommufd:{address}")] {
            let device = open(&text.parse().unwrap()).unwrap();
            assert_eq!(device.name(), text);
            assert_eq!(device.bar(0).unwrap().read_u32(8).unwrap(), 0x0001_0400, "NVMe 1.4");
        }
        let device = VfioDevice::open(&Address::Vfio(bdf(index))).unwrap();
        assert!(device.ioas().is_none());
        assert_eq!(device.group(), Function::at(bdf(index)).unwrap().iommu_group.unwrap().number);
    }
}

#[test]
fn the_ranges_leave_out_the_msi_window_alone() {
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    assert!(!has(&device, 0xfee0_0000) && has(&device, 0xff00_0000), "{:x?}", device.iommu());
    assert!(has(&device, (16 << 30) - 1) && has(&device, 16 << 30) && has(&device, (32 << 30) - 1));
    assert_eq!(device.iommu().unwrap().smallest_page(), 4096);
}

#[test]
fn the_device_reaches_memory_at_addresses_of_our_choice() {
    for (index, serial) in ["LABA", "LABB"].into_iter().enumerate() {
        let device = VfioDevice::open(&Address::Iommufd(bdf(index))).unwrap();
        let queues = map(&*device, 8192, PageSize::Small);
        for page in [PageSize::Small, PageSize::Huge2M] {
            let data = map(&*device, 4096, page);
            assert!(has(&device, data.iova(0)));
            assert_eq!(identify(&*device, &queues, &data), serial, "by {page} pages");
        }
    }
}

#[test]
fn what_is_unmapped_can_be_mapped_again() {
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let first = map(&*device, 4096, PageSize::Small).iova(0);
    for _ in 0..1000 {
        assert_eq!(map(&*device, 4096, PageSize::Small).iova(0), first, "released and unmapped");
    }
    assert_eq!(map(&*device, 4 << 20, PageSize::Huge2M).iova(0) % (2 << 20), 0);
}

#[test]
fn interrupts_and_resets_are_as_through_the_group() {
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    let event = EventFd::new().unwrap();
    assert_eq!(device.irq_count(IrqKind::Msix).unwrap(), 9);
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    assert!(event.wait(Duration::from_secs(30)).unwrap());
    let bar = device.bar(0).unwrap();
    write_u32(&bar, 0x24, 15 << 16 | 15).unwrap();
    write_u64(&bar, 0x28, queues.iova(0)).unwrap();
    write_u64(&bar, 0x30, queues.iova(4096)).unwrap();
    write_u32(&bar, CC, 0x0046_0001).unwrap();
    wait_ready(&*device, 1);
    reset(&*device).unwrap();
    assert_eq!((bar.read_u32(CC).unwrap(), bar.read_u32(CSTS).unwrap()), (0, 0));
    assert_eq!(identify(&*device, &queues, &data), "LABA");
}

#[test]
fn nothing_is_left_of_a_device_that_was_closed() {
    let (before, locked) = (descriptors(), pinned());
    for _ in 0..3 {
        let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
        let region = map(&*device, 1 << 20, PageSize::Small);
        let bar = device.bar(0).unwrap();
        assert!(descriptors().len() > before.len() && pinned() >= locked + (1 << 20), "{}", pinned());
        drop((device, region, bar));
        assert_eq!((descriptors(), pinned()), (before.clone(), locked));
    }
}

#[test]
fn memory_outlives_the_device_and_does_not_hold_it() {
    let locked = pinned();
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let region = map(&*device, 4096, PageSize::Small);
    drop(device);
    let again = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    assert_ne!(again.dma().id(), region.space().id());
    drop(region);
    let (queues, data) = (map(&*again, 8192, PageSize::Small), map(&*again, 4096, PageSize::Small));
    assert_eq!(identify(&*again, &queues, &data), "LABA");
    drop((again, queues, data));
    assert_eq!(pinned(), locked);
}

#[test]
fn a_bar_that_outlives_the_device_holds_no_memory() {
    let locked = pinned();
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let region = map(&*device, 4096, PageSize::Small);
    let bar = device.bar(0).unwrap();
    drop((device, region));
    assert_eq!(pinned(), locked);
    let command = Function::at(bdf(0)).unwrap().config().unwrap().command().unwrap();
    assert_eq!(command & command::BUS_MASTER, 0);
    assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400);
    contains_all(&refusal(0), &["in use by this process"]);
    drop(bar);
    VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
}

#[test]
fn a_device_in_use_says_by_whom_whichever_way_it_is_in_use() {
    const NAME: &str = "a_device_in_use_says_by_whom_whichever_way_it_is_in_use";
    let group = || VfioDevice::open(&Address::Vfio(bdf(0))).expect_err("it opens").to_string();
    if let Some(holder) = role() {
        // And nobody else: not this process, which has just opened the node.
        let part = format!("in use by process {holder};");
        contains_all(&refusal(0), &[&part]);
        contains_all(&group(), &[&part]);
        return;
    }
    for address in [Address::Iommufd(bdf(0)), Address::Vfio(bdf(0))] {
        let device = VfioDevice::open(&address).unwrap();
        contains_all(&refusal(0), &["in use by this process"]);
        contains_all(&group(), &["in use by this process"]);
        let before = descriptors();
        expect_success(&again(NAME, &std::process::id().to_string(), false));
        assert_eq!(descriptors(), before);
        drop(device);
    }
    VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
}

#[test]
fn a_removal_is_announced_and_waits_for_the_close() {
    let bdf = bdf(1);
    let remove = Function::at(bdf).unwrap().path.join("remove");
    let device = VfioDevice::open(&Address::Iommufd(bdf)).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Request, &[event.as_fd()]).unwrap();
    let removal = std::thread::spawn(move || fs::write(remove, "1"));
    assert!(event.wait(Duration::from_secs(30)).unwrap());
    assert_eq!(device.bar(0).unwrap().read_u32(8).unwrap(), 0x0001_0400, "it works until it is closed");
    drop(device);
    removal.join().unwrap().unwrap();
    assert!(matches!(VfioDevice::open(&Address::Iommufd(bdf)), Err(Error::NotFound { .. })));
    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    bind(bdf, Some("vfio-pci"));
    VfioDevice::open(&Address::Iommufd(bdf)).unwrap();
}

#[test]
fn another_driver_says_how_to_bind_the_right_one() {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            bind(bdf(1), Some("vfio-pci"));
        }
    }
    let _restore = Restore;
    bind(bdf(1), Some("nvme"));
    contains_all(
        &refusal(1),
        &["bound to the kernel's own driver, nvme", "devbind bind vfio-pci", "unmount"],
    );
    bind(bdf(1), None);
    contains_all(&refusal(1), &["no driver is bound", "devbind bind vfio-pci"]);
}

#[test]
fn the_no_iommu_mode_is_refused_where_there_is_an_iommu() {
    let address = format!("noiommu:{}", addresses()[0]);
    let error = open(&address.parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    contains_all(&error.to_string(), &["it has an IOMMU", "use vfio:0000:01:00.0"]);
}

#[test]
fn a_forked_child_leaves_the_device_alone() {
    let device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    let kept = std::mem::ManuallyDrop::new(device.clone());
    // SAFETY: the child only drops its handles and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((device, queues, data, std::mem::ManuallyDrop::into_inner(kept)));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(identify(&*device, &queues, &data), "LABA", "memory is still mapped");
    drop(std::mem::ManuallyDrop::into_inner(kept));
}

#[test]
fn every_descriptor_is_closed_on_exec() {
    const CLOEXEC: u32 = 0o2000000;
    let _device = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if !target.contains("vfio") && target != IOMMU {
            continue;
        }
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_eq!(u32::from_str_radix(flags, 8).unwrap() & CLOEXEC, CLOEXEC, "{target}");
        seen.push(target);
    }
    assert_eq!(seen.len(), 2, "iommufd and device: {seen:?}");
}

#[test]
fn a_plain_user_needs_both_nodes_and_a_limit_on_locked_memory() {
    const NAME: &str = "a_plain_user_needs_both_nodes_and_a_limit_on_locked_memory";
    match role().as_deref() {
        Some("stranger") => {
            let error = refusal(0);
            return contains_all(
                &error,
                &[
                    "no permission",
                    "/dev/vfio/devices/vfio",
                    "belongs to root:root",
                    "--owner user",
                    "vfio-dev",
                ],
            );
        }
        Some("without iommufd") => {
            let error = refusal(0);
            contains_all(
                &error,
                &["no permission to open /dev/iommu", "belongs to root:root", "--owner user"],
            );
            let device = VfioDevice::open(&Address::Pci(bdf(0))).unwrap();
            assert!(device.ioas().is_none(), "a bare address falls back to the group");
            return;
        }
        Some("owner") => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: reads the limits given.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
            let device = VfioDevice::open(&Address::Pci(bdf(0))).unwrap();
            assert!(device.ioas().is_some());
            let queues = map(&*device, 8192, PageSize::Small);
            let data = map(&*device, 4096, PageSize::Small);
            assert_eq!(identify(&*device, &queues, &data), "LABA");
            let event = EventFd::new().unwrap();
            device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
            let parts = [
                "RLIMIT_MEMLOCK",
                "1048576",
                "all processes of the user",
                "12288 bytes",
                "2097152",
                "ulimit -l",
            ];
            let error = device.dma().map(Memory::new(2 << 20, PageSize::Small).unwrap()).unwrap_err();
            contains_all(&error.to_string(), &parts);
            map(&*device, 512 << 10, PageSize::Small);
            return;
        }
        _ => {}
    }
    let nodes = [node(bdf(0)), IOMMU.into(), group_node(bdf(0))];
    let own = |owned: &[&PathBuf]| {
        for path in &nodes {
            let user = Some(if owned.contains(&path) { 1000 } else { 0 });
            chown(path, user, user).unwrap();
        }
    };
    own(&[]);
    expect_success(&again(NAME, "stranger", true));
    own(&[&nodes[0], &nodes[2]]);
    expect_success(&again(NAME, "without iommufd", true));
    own(&[&nodes[0], &nodes[1]]);
    expect_success(&again(NAME, "owner", true));
    own(&[]);
}
