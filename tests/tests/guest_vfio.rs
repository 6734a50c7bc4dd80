//! Functions through VFIO, over both attachments: addresses, configuration, memory, interrupts and reset.

#[macro_use]
mod vfio_device;

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};
use upcie_core::{
    Failure,
    device::{Address, Device},
    irq::{EventFd, IrqKind},
    memory::PageSize,
    open,
    pci::{ConfigSpace, Function, cap, command, ext_cap, functions, offset},
    vfio::VfioDevice,
};
use upcie_tests::process::faults;
use upcie_tests::raw::{reset, set_config_u16, write_u32, write_u64};
use vfio_device::{
    Attachment, CC, CSTS, addresses, bdf, contains_all, identify, identify_until, map, wait_ready,
};

on_each_attachment![
    configuration_space_has_its_capabilities,
    iova_ranges_leave_the_msi_window_out,
    the_device_reaches_mapped_memory,
    unmapped_addresses_are_used_again,
    interrupts_arrive_as_eventfds,
    error_and_request_events_exist_beside_the_vectors,
    the_pin_can_be_masked_and_excludes_the_vectors,
    a_reset_stops_the_controller_and_keeps_it_usable,
];

#[test]
fn each_address_opens_and_a_bare_one_takes_iommufd() {
    for (index, address) in addresses().into_iter().enumerate() {
        for text in [address.clone(), format!("vfio:{address}"), format!("iommufd:{address}")] {
            let device = open(&text.parse().unwrap()).unwrap();
            assert_eq!(device.name(), text);
            let bar = device.bar(0).unwrap();
            assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400, "NVMe 1.4");
            let capabilities = bar.read_u64(0).unwrap();
            assert!(capabilities != 0 && capabilities != u64::MAX, "{capabilities:#x}");
            assert_eq!(bar.areas().len(), 1, "mapped as a whole: {bar:?}");
            assert_eq!(bar.areas()[0].mapping.len() as u64, bar.size());
            assert!(
                matches!(device.bar(1), Err(error) if matches!(error.failure(), Failure::NotFound { .. })),
                "the upper half of BAR 0"
            );
            assert!(
                matches!(device.bar(6), Err(error) if matches!(error.failure(), Failure::NotFound { .. }))
            );
        }
        assert!(VfioDevice::open(&Address::Pci(bdf(index))).unwrap().ioas().is_some());
        assert!(Attachment::Group.device(index).ioas().is_none());
    }
}

#[test]
fn sysfs_and_vfio_show_the_same_function() {
    let found: Vec<_> = functions().unwrap().into_iter().filter(Function::is_nvme).collect();
    let names: Vec<_> = found.iter().map(|function| function.bdf.to_string()).collect();
    assert_eq!(names, addresses());
    for function in found {
        assert_eq!(function.driver.as_deref(), Some("vfio-pci"));
        let device = Attachment::Group.open(function.bdf).unwrap();
        assert_eq!(function.iommu_group.as_ref().unwrap().number, device.group());
        for bar in function.bars().unwrap() {
            assert_eq!(device.bar(bar.index).unwrap().size(), bar.size, "{bar:?}");
        }
        assert_eq!(device.config_u16(offset::VENDOR).unwrap(), function.vendor);
        assert_eq!(device.config_u16(2).unwrap(), function.device);
    }
}

#[test]
fn sysfs_shows_every_functions_capabilities() {
    let mut extended = Vec::new();
    for function in functions().unwrap() {
        let config = function.config().unwrap();
        assert!(config.capabilities().all(|entry| entry.is_ok()), "{}", function.bdf);
        extended.extend(config.extended_capabilities().map(|entry| entry.unwrap().id));
    }
    assert!(extended.contains(&ext_cap::AER) && extended.contains(&ext_cap::ACS), "{extended:x?}");
}

fn configuration_space_has_its_capabilities(attachment: Attachment) {
    for index in 0..2 {
        let device = attachment.device(index);
        let ids: Vec<_> = device.capabilities().map(|entry| entry.unwrap().id).collect();
        assert!(ids.contains(&cap::MSIX) && ids.contains(&cap::PCIE), "{ids:x?}");
        let extended: Vec<_> = device.extended_capabilities().map(Result::unwrap).collect();
        println!("{}: {ids:x?} {extended:x?}", device.name());
        let command = device.command().unwrap();
        assert_eq!(command & 6, command::MEMORY | command::BUS_MASTER);
        set_config_u16(&*device, offset::COMMAND, command | command::INTX_DISABLE).unwrap();
        assert_eq!(device.command().unwrap(), command | command::INTX_DISABLE);
        let error = device.config_u32(u16::MAX - 8).unwrap_err();
        assert!(matches!(error.failure(), Failure::OutOfRange { .. }), "{error}");
    }
}

fn iova_ranges_leave_the_msi_window_out(attachment: Attachment) {
    let device = attachment.device(0);
    let iommu = device.iommu().unwrap();
    let has = |iova: u64| iommu.ranges.iter().any(|range| range.contains(&iova));
    assert!(!has(0xfee0_0000) && has(0xff00_0000), "{iommu:x?}");
    assert_eq!(iommu.smallest_page(), 4096);
    match attachment {
        Attachment::Group => {
            assert_eq!(iommu.page_sizes & 1 << 21, 1 << 21);
            assert!(iommu.mappings_available.unwrap() > 1000);
        }
        Attachment::Iommufd => {
            assert!(has((16 << 30) - 1) && has(16 << 30) && has((32 << 30) - 1), "{iommu:x?}");
        }
    }
}

fn the_device_reaches_mapped_memory(attachment: Attachment) {
    for (index, serial) in ["LABA", "LABB"].into_iter().enumerate() {
        let device = attachment.device(index);
        let queues = map(&*device, 8192, PageSize::Small);
        for page in [PageSize::Small, PageSize::Huge2M] {
            let data = map(&*device, 4096, page);
            assert!(device.iommu().unwrap().ranges.iter().any(|range| range.contains(&data.iova(0))));
            assert_eq!(identify(&*device, &queues, &data), serial, "by {page} pages");
        }
    }
}

fn unmapped_addresses_are_used_again(attachment: Attachment) {
    let device = attachment.device(0);
    let first = map(&*device, 4096, PageSize::Small).iova(0);
    for _ in 0..1000 {
        assert_eq!(map(&*device, 4096, PageSize::Small).iova(0), first, "released and unmapped");
    }
    assert_eq!(map(&*device, 4 << 20, PageSize::Huge2M).iova(0) % (2 << 20), 0);
}

fn interrupts_arrive_as_eventfds(attachment: Attachment) {
    let device = attachment.device(0);
    assert_eq!(device.irq_count(IrqKind::Msix).unwrap(), 9);
    assert_eq!(device.irq_count(IrqKind::Msi).unwrap(), 0);
    let events: Vec<_> = (0..10).map(|_| EventFd::new().unwrap()).collect();
    let fds: Vec<BorrowedFd<'_>> = events.iter().map(AsFd::as_fd).collect();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    for count in [1, 9, 4] {
        device.set_irqs(IrqKind::Msix, &fds[..count]).unwrap();
        identify(&*device, &queues, &data);
        assert!(events[0].wait(Duration::from_secs(30)).unwrap(), "with {count} set");
        assert_eq!(events[0].take().unwrap(), 1);
    }
    device.set_irqs(IrqKind::Msix, &[]).unwrap();
    device.set_irqs(IrqKind::Msix, &[]).unwrap();
    identify(&*device, &queues, &data);
    assert!(!events[0].wait(Duration::from_millis(100)).unwrap(), "it is off");
    let error = device.set_irqs(IrqKind::Msix, &fds).unwrap_err().to_string();
    contains_all(&error, &["10 MSI-X", "has 9"]);
    let error = device.set_irqs(IrqKind::Msi, &fds[..1]).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
}

fn error_and_request_events_exist_beside_the_vectors(attachment: Attachment) {
    let device = attachment.device(1);
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    for kind in [IrqKind::Error, IrqKind::Request] {
        assert_eq!(device.irq_count(kind).unwrap(), 1, "{kind}");
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
        device.set_irqs(kind, &[]).unwrap();
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
    }
}

fn the_pin_can_be_masked_and_excludes_the_vectors(attachment: Attachment) {
    let device = attachment.device(0);
    let event = EventFd::new().unwrap();
    assert_eq!(device.irq_count(IrqKind::Intx).unwrap(), 1);
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    device.mask_irq(IrqKind::Intx, 0, true).unwrap();
    device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    for _ in 0..2 {
        identify_until(&*device, &queues, &data, || {
            assert!(event.wait(Duration::from_secs(30)).unwrap());
        });
        assert_eq!(event.take().unwrap(), 1, "once: the kernel masks it");
        device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    }
    assert!(
        matches!(device.mask_irq(IrqKind::Intx, 1, true), Err(error) if matches!(error.failure(), Failure::Unsupported { .. }))
    );
    assert!(
        matches!(device.mask_irq(IrqKind::Msix, 0, true), Err(error) if matches!(error.failure(), Failure::Unsupported { .. }))
    );
    let error = device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap_err().to_string();
    contains_all(&error, &["only one of INTx, MSI and MSI-X"]);
    device.set_irqs(IrqKind::Intx, &[]).unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
}

fn a_reset_stops_the_controller_and_keeps_it_usable(attachment: Attachment) {
    let device = attachment.device(0);
    let bar = device.bar(0).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    write_u32(&bar, 0x24, 15 << 16 | 15).unwrap();
    write_u64(&bar, 0x28, queues.iova(0)).unwrap();
    write_u64(&bar, 0x30, queues.iova(4096)).unwrap();
    write_u32(&bar, CC, 0x0046_0001).unwrap();
    wait_ready(&*device, 1);
    reset(&*device).unwrap();
    assert_eq!((bar.read_u32(CC).unwrap(), bar.read_u32(CSTS).unwrap()), (0, 0));
    assert_eq!(device.command().unwrap() & 6, command::MEMORY | command::BUS_MASTER);
    assert_eq!(identify(&*device, &queues, &data), "LABA");
}

/// With iommufd (Linux 6.12) the first access to a page faults: see docs/design.md, "VFIO".
#[test]
fn registers_of_a_group_are_present_before_their_first_use() {
    let device = Attachment::Group.device(0);
    let bar = device.bar(0).unwrap();
    for round in ["mapped", "reset"] {
        let registers: Vec<_> =
            (0..bar.size()).step_by(4096).map(|page| bar.register::<u32>(page).unwrap()).collect();
        faults();
        let before = faults();
        for register in &registers {
            register.read();
        }
        assert_eq!(faults() - before, 0, "after it was {round}");
        reset(&*device).unwrap();
    }
}
