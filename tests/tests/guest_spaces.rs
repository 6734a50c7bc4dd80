//! Several devices in one address space: what is mapped for one is mapped for all, and each can be closed first.

mod vfio_device;

use std::sync::Arc;
use upcie_core::{Error, memory::PageSize, transport::Device, vfio::VfioDevice};
use vfio_device::{bdf, contains_all, descriptors, identify, map, pinned, ways};

#[test]
fn two_devices_share_their_memory() {
    for (way, open) in ways() {
        println!("{way}");
        let a = open(bdf(0)).unwrap();
        // Mapped before the other one comes in.
        let data = map(&*a, 4096, PageSize::Small);
        let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
        assert!(Arc::ptr_eq(a.dma(), b.dma()));
        assert_eq!(a.iommu(), b.iommu());
        assert_ne!(a.group(), b.group());
        // And after, by the handle of either.
        let (first, second) = (map(&*a, 8192, PageSize::Small), map(&*b, 8192, PageSize::Huge2M));
        for _ in 0..2 {
            assert_eq!(identify(&*a, &first, &data), "LABA");
            assert_eq!(identify(&*b, &second, &data), "LABB");
            assert_eq!(identify(&*b, &first, &data), "LABB", "any memory will do");
        }
    }
}

#[test]
fn whichever_device_closes_first_the_other_goes_on_working() {
    for (way, open) in ways() {
        for first_to_close in [0, 1] {
            println!("{way}, {first_to_close}");
            let (before, locked) = (descriptors(), pinned());
            let a = open(bdf(0)).unwrap();
            let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
            let (queues, data) = (map(&*a, 8192, PageSize::Small), map(&*b, 4096, PageSize::Small));
            let mut devices = [Some(a), Some(b)];
            devices[first_to_close] = None;
            let left = devices[1 - first_to_close].take().unwrap();
            let serial = ["LABB", "LABA"][first_to_close];
            assert_eq!(identify(&*left, &queues, &data), serial);
            // The one that was closed is free: for a space of its own, and to come back.
            let closed = bdf(first_to_close);
            drop(open(closed).unwrap());
            let back = VfioDevice::open_beside(closed, &left).unwrap();
            let serials = ["LABA", "LABB"];
            assert_eq!(identify(&*back, &queues, &data), serials[first_to_close]);
            assert_eq!(identify(&*left, &queues, &data), serial);
            // The memory is last.
            drop((left, back));
            drop((queues, data));
            assert_eq!((descriptors(), pinned()), (before, locked));
            drop((open(bdf(0)).unwrap(), open(bdf(1)).unwrap()));
        }
    }
}

#[test]
fn memory_holds_one_group_at_most_after_its_devices_are_closed() {
    let a = VfioDevice::open_group(bdf(0)).unwrap();
    let b = VfioDevice::open_beside(bdf(1), &a).unwrap();
    let data = map(&*a, 4096, PageSize::Small);
    drop(a);
    drop(b);
    VfioDevice::open_group(bdf(0)).unwrap();
    let error = VfioDevice::open_group(bdf(1)).unwrap_err().to_string();
    contains_all(&error, &["in use by this process", "drop its memory"]);
    drop(data);
    VfioDevice::open_group(bdf(1)).unwrap();
}

#[test]
fn what_can_not_share_a_space_is_refused_and_leaves_it_as_it_was() {
    for (way, open) in ways() {
        println!("{way}");
        let a = open(bdf(0)).unwrap();
        let before = descriptors();
        let error = VfioDevice::open_beside(bdf(0), &a).unwrap_err().to_string();
        contains_all(&error, &["in use by this process"]);
        let error = VfioDevice::open_beside("0000:3f:00.0".parse().unwrap(), &a).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        let b = open(bdf(1)).unwrap();
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
