//! Closing a function of VFIO, over both attachments: by a handle, by a forked child, by a removal.

#[macro_use]
mod vfio_device;

use std::{fs, os::fd::AsFd, path::Path, sync::Arc, time::Duration};
use upcie_core::{
    Failure,
    device::Device,
    irq::{EventFd, IrqKind},
    memory::PageSize,
    pci::{Bdf, ConfigSpace, Function, command},
};
use vfio_device::{Attachment, bdf, bind, contains_all, descriptors, held_for_dma, identify, map};

on_each_attachment![
    closing_turns_bus_mastering_off,
    a_closed_device_leaves_nothing_open_or_mapped,
    a_removal_is_announced_and_waits_for_the_close,
    a_forked_child_leaves_the_device_alone,
    every_descriptor_is_closed_on_exec,
];

fn bus_master(bdf: Bdf) -> bool {
    Function::at(bdf).unwrap().config().unwrap().command().unwrap() & command::BUS_MASTER != 0
}

fn closing_turns_bus_mastering_off(attachment: Attachment) {
    let device = attachment.device(0);
    assert!(bus_master(bdf(0)));
    // The BAR holds the device's file, so the kernel has no reason to clean up by itself.
    let bar = device.bar(0).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    drop(device);
    assert!(!bus_master(bdf(0)));
    assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400, "a BAR outlives the device");
    drop(bar);
    attachment.device(0);
}

fn a_closed_device_leaves_nothing_open_or_mapped(attachment: Attachment) {
    let (before, held) = (descriptors(), held_for_dma());
    for _ in 0..3 {
        let device = attachment.device(0);
        let region = map(&*device, 1 << 20, PageSize::Small);
        let bar = device.bar(0).unwrap();
        assert!(descriptors().len() > before.len(), "{before:?}");
        assert!(held_for_dma() >= held + (1 << 20), "{}", held_for_dma());
        drop((device, region, bar));
        assert_eq!((descriptors(), held_for_dma()), (before.clone(), held));
    }
}

#[test]
fn memory_of_a_group_holds_the_group() {
    let device = Attachment::Group.device(0);
    let region = map(&*device, 4096, PageSize::Small);
    drop(device);
    contains_all(&Attachment::Group.refusal(0), &["in use by this process"]);
    drop(region);
    Attachment::Group.device(0);
}

#[test]
fn memory_of_an_iommufd_does_not_hold_the_device() {
    let held = held_for_dma();
    let device = Attachment::Iommufd.device(0);
    let region = map(&*device, 4096, PageSize::Small);
    drop(device);
    let again = Attachment::Iommufd.device(0);
    assert_ne!(again.dma().id(), region.space().id());
    drop(region);
    let (queues, data) = (map(&*again, 8192, PageSize::Small), map(&*again, 4096, PageSize::Small));
    assert_eq!(identify(&*again, &queues, &data), "LABA");
    drop((again, queues, data));
    assert_eq!(held_for_dma(), held);
}

#[test]
fn a_bar_of_an_iommufd_device_holds_no_memory() {
    let held = held_for_dma();
    let device = Attachment::Iommufd.device(0);
    let region = map(&*device, 4096, PageSize::Small);
    let bar = device.bar(0).unwrap();
    drop((device, region));
    assert_eq!(held_for_dma(), held);
    assert!(!bus_master(bdf(0)));
    assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400);
    contains_all(&Attachment::Iommufd.refusal(0), &["in use by this process"]);
    drop(bar);
    Attachment::Iommufd.device(0);
}

fn a_removal_is_announced_and_waits_for_the_close(attachment: Attachment) {
    let bdf = bdf(1);
    let remove = Function::at(bdf).unwrap().path.join("remove");
    let device = attachment.open(bdf).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Request, &[event.as_fd()]).unwrap();
    let removal = std::thread::spawn(move || fs::write(remove, "1"));
    assert!(event.wait(Duration::from_secs(30)).unwrap());
    assert_eq!(device.bar(0).unwrap().read_u32(8).unwrap(), 0x0001_0400, "it works until it is closed");
    drop(device);
    removal.join().unwrap().unwrap();
    assert!(
        matches!(attachment.open(bdf), Err(error) if matches!(error.failure(), Failure::NotFound { .. }))
    );
    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    bind(bdf, Some("vfio-pci"));
    attachment.open(bdf).unwrap();
}

fn a_forked_child_leaves_the_device_alone(attachment: Attachment) {
    let device = attachment.device(0);
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    let weak = Arc::downgrade(&device);
    // SAFETY: the child only drops its handles and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((device, queues, data));
        let code = i32::from(weak.upgrade().is_some());
        // SAFETY: the child ends at once, without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the call waits for the child just made, and has room for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child dropped its last handle");
    assert!(bus_master(bdf(0)));
    assert_eq!(identify(&*device, &queues, &data), "LABA", "memory is still mapped");
    assert!(event.wait(Duration::from_secs(30)).unwrap(), "interrupts are still on");
}

fn every_descriptor_is_closed_on_exec(attachment: Attachment) {
    const CLOEXEC: u32 = 0o2000000;
    let _device = attachment.device(0);
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if !target.contains("vfio") && target != "/dev/iommu" {
            continue;
        }
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_eq!(u32::from_str_radix(flags, 8).unwrap() & CLOEXEC, CLOEXEC, "{target}");
        seen.push(target);
    }
    match attachment {
        Attachment::Group => assert!(seen.len() >= 3, "container, group and device: {seen:?}"),
        Attachment::Iommufd => assert_eq!(seen.len(), 2, "iommufd and device: {seen:?}"),
    }
}
