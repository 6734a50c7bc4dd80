//! Several devices in one address space: each mapping is for all of them, and any can be closed first.

mod vfio_device;

use std::sync::Arc;
use upcie_core::{
    Failure,
    device::{Address, Device},
    memory::PageSize,
    mmio::Bar,
    vfio::VfioDevice,
};
use upcie_tests::raw::{map_bar, write_u64};
use vfio_device::{Attachment, bdf, contains_all, descriptors, held_for_dma, identify, identify_to, map};

#[test]
fn two_devices_share_their_memory() {
    for attachment in Attachment::ALL {
        println!("{attachment:?}");
        let a = attachment.device(0);
        // A mapping from before the other device joins.
        let data = map(&*a, 4096, PageSize::Small);
        let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
        assert!(Arc::ptr_eq(a.dma(), b.dma()));
        assert_eq!(a.iommu(), b.iommu());
        assert_ne!(a.group(), b.group());
        // Mappings from after that, by the handle of either.
        let (first, second) = (map(&*a, 8192, PageSize::Small), map(&*b, 8192, PageSize::Huge2M));
        for _ in 0..2 {
            assert_eq!(identify(&*a, &first, &data), "LABA");
            assert_eq!(identify(&*b, &second, &data), "LABB");
            assert_eq!(identify(&*b, &first, &data), "LABB", "any memory will do");
        }
    }
}

#[test]
fn either_device_can_close_first() {
    for attachment in Attachment::ALL {
        for first_to_close in [0, 1] {
            println!("{attachment:?}, {first_to_close}");
            let (before, locked) = (descriptors(), held_for_dma());
            let a = attachment.device(0);
            let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
            let (queues, data) = (map(&*a, 8192, PageSize::Small), map(&*b, 4096, PageSize::Small));
            let mut devices = [Some(a), Some(b)];
            devices[first_to_close] = None;
            let left = devices[1 - first_to_close].take().unwrap();
            let serial = ["LABB", "LABA"][first_to_close];
            assert_eq!(identify(&*left, &queues, &data), serial);
            // The closed device is free again: for a space of its own, and to rejoin.
            let closed = bdf(first_to_close);
            drop(attachment.open(closed).unwrap());
            let back = VfioDevice::open_beside(closed, &left).unwrap();
            let serials = ["LABA", "LABB"];
            assert_eq!(identify(&*back, &queues, &data), serials[first_to_close]);
            assert_eq!(identify(&*left, &queues, &data), serial);
            // The memory outlives the devices.
            drop((left, back));
            drop((queues, data));
            assert_eq!((descriptors(), held_for_dma()), (before, locked));
            drop((attachment.device(0), attachment.device(1)));
        }
    }
}

#[test]
fn memory_holds_one_group_at_most_after_its_devices_are_closed() {
    let a = VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
    let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
    let data = map(&*a, 4096, PageSize::Small);
    drop(a);
    drop(b);
    VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
    let error = VfioDevice::open(&Address::Vfio(bdf(1))).unwrap_err().to_string();
    contains_all(&error, &["in use by this process", "drop its memory"]);
    drop(data);
    VfioDevice::open(&Address::Vfio(bdf(1))).unwrap();
}

#[test]
fn a_refused_device_leaves_the_space_unchanged() {
    for attachment in Attachment::ALL {
        println!("{attachment:?}");
        let a = attachment.device(0);
        let before = descriptors();
        let error = VfioDevice::open_beside(bdf(0), &a).unwrap_err().to_string();
        contains_all(&error, &["in use by this process"]);
        let error = VfioDevice::open_beside("0000:3f:00.0".parse().unwrap(), &a).unwrap_err();
        assert!(matches!(error.failure(), Failure::NotFound { .. }), "{error}");
        let b = attachment.device(1);
        let error = VfioDevice::open_beside(bdf(1), &a).unwrap_err().to_string();
        contains_all(&error, &["in use by this process"]);
        drop(b);
        assert_eq!(descriptors(), before);
        let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
        let (queues, data) = (map(&*b, 8192, PageSize::Small), map(&*b, 4096, PageSize::Small));
        assert_eq!(identify(&*a, &queues, &data), "LABA");
        assert_eq!(identify(&*b, &queues, &data), "LABB");
    }
}

/// Enables controller A's CMB; returns its BAR and its usable bytes.
fn memory_buffer(a: &VfioDevice) -> (Bar, usize) {
    let registers = a.bar(0).unwrap();
    assert_eq!(registers.read_u64(0).unwrap() >> 57 & 1, 1, "CAP.CMBS");
    // CMBMSC: enables the registers, then the memory at an address that nothing here uses.
    write_u64(&registers, 0x50, 1).unwrap();
    let (location, size) = (registers.read_u32(0x38).unwrap(), registers.read_u32(0x3c).unwrap());
    assert_eq!((location & 7, location >> 12), (2, 0), "all of BAR 2");
    write_u64(&registers, 0x50, 0x8000_0000 | 3).unwrap();
    assert_eq!(registers.read_u32(0x58).unwrap() & 1, 0, "CMBSTS: the address is taken");
    let units = 4096usize << (4 * (size >> 8 & 0xf));
    (a.bar(2).unwrap(), units * (size >> 12) as usize)
}

#[test]
fn a_device_reaches_the_memory_of_another_one() {
    let a = VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
    let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
    let (bar, len) = memory_buffer(&a);
    assert_eq!((bar.size(), len), (16 << 20, 16 << 20));
    let queues = map(&*b, 8192, PageSize::Small);
    let before = descriptors();
    for offset in [0, 4096, (16 << 20) - 4096] {
        let target = map_bar(a.dma(), &bar, offset, 4096, true).unwrap();
        assert!(target.is_device_memory());
        let at = target.as_ptr().cast::<u32>();
        for word in 0..1024 {
            // SAFETY: the words are in the region, which is device memory of this test.
            unsafe { at.wrapping_add(word).write_volatile(0x5555_5555) };
        }
        assert_eq!(identify_to(&*b, &queues, target.iova(0), target.as_ptr()), "LABB", "at {offset:#x}");
        // Read through another mapping of the same bytes.
        let word = bar.read_u32(offset + 4).unwrap();
        assert_eq!(word.to_le_bytes(), *b"LABB");
    }
    assert_eq!(descriptors(), before);
    // The region keeps the register and the device's file alive.
    let target = map_bar(a.dma(), &bar, 0, 4096, true).unwrap();
    drop((a, bar));
    assert!(VfioDevice::open(&Address::Vfio(bdf(0))).is_err());
    drop(target);
    VfioDevice::open(&Address::Vfio(bdf(0))).unwrap();
    let data = map(&*b, 4096, PageSize::Small);
    assert_eq!(identify(&*b, &queues, &data), "LABB");
}

#[test]
fn iommufd_without_device_memory_names_the_alternative() {
    let a = VfioDevice::open(&Address::Iommufd(bdf(0))).unwrap();
    let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
    let (bar, _) = memory_buffer(&a);
    let first = map(&*b, 4096, PageSize::Small).iova(0);
    match map_bar(a.dma(), &bar, 0, 4096, true) {
        // The kernel maps device memory into iommufd since 6.12.
        Err(error) => {
            assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
            contains_all(&error.to_string(), &["iommufd of this kernel", "`vfio:`"]);
        }
        Ok(target) => {
            let queues = map(&*b, 8192, PageSize::Small);
            assert_eq!(identify_to(&*b, &queues, target.iova(0), target.as_ptr()), "LABB");
        }
    }
    assert_eq!(map(&*b, 4096, PageSize::Small).iova(0), first, "its address was given back");
}

#[test]
fn group_and_iommufd_spaces_do_not_mix() {
    for attachment in Attachment::ALL {
        let a = attachment.device(0);
        let (own, other) = match attachment {
            Attachment::Group => ("vfio", "iommufd"),
            Attachment::Iommufd => ("iommufd", "vfio"),
        };
        for address in
            [format!("{other}:{}", bdf(1)), format!("noiommu:{}", bdf(1)), "vfio-user:/none".into()]
        {
            let error = Device::open_beside(&*a, &address.parse().unwrap()).unwrap_err();
            assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
            contains_all(&error.to_string(), &["open both through the same"]);
        }
        for address in [bdf(1).to_string(), format!("{own}:{}", bdf(1))] {
            let b = Device::open_beside(&*a, &address.parse().unwrap()).unwrap();
            assert_eq!(b.name(), address);
            assert!(Arc::ptr_eq(a.dma(), b.dma()));
        }
    }
}
