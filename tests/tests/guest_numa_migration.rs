//! Huge pages that are moved while a device uses their physical addresses: the driver notices.

use std::{fs, ptr};
use upcie_core::{
    device::Address,
    memory::PageSize,
    open,
    pci::{Binder, Function},
};
use upcie_nvme::Controller;
use upcie_tests::{pci::Borrowed, says};

const BDF: &str = "0000:01:00.0";
/// Moves only pages that no other process has mapped (`MPOL_MF_MOVE` of <linux/mempolicy.h>).
const MOVE: i32 = 1 << 1;

/// Moves the page at `at` to `node` by move_pages(2); returns the node that it is on then.
fn move_page(at: *mut u8, node: i32) -> i32 {
    let (pages, nodes, mut status) = ([at], [node], [-1_i32]);
    // SAFETY: each array has one entry, and the page's bytes stay as they are.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1_u64,
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MOVE,
        )
    };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    status[0]
}

/// Returns the node that the page at `at` is on.
fn node_of(at: *mut u8) -> i32 {
    let (pages, mut status) = ([at], [-1_i32]);
    // SAFETY: each array has one entry, and without nodes the call only asks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1_u64,
            pages.as_ptr(),
            ptr::null::<i32>(),
            status.as_mut_ptr(),
            MOVE,
        )
    };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    status[0]
}

#[test]
fn a_moved_page_is_an_error() {
    let function = Function::at(BDF.parse().unwrap()).unwrap();
    let group = function.iommu_group.as_ref().unwrap().number;
    let (borrowed, domain) = (Borrowed::take(function.bdf), format!("/sys/kernel/iommu_groups/{group}/type"));
    Binder::new().unbind(&function).unwrap();
    let kind = fs::read_to_string(&domain).unwrap();
    fs::write(&domain, "identity").unwrap();
    let address: Address = format!("sysfs:{BDF}").parse().unwrap();
    let device = open(&address).unwrap();
    let region = device.dma().allocate(2 << 20, Some(PageSize::Huge2M)).unwrap();
    let before = node_of(region.as_ptr());
    region.verify().unwrap();
    assert_eq!(move_page(region.as_ptr(), 1 - before), 1 - before, "it can be moved");
    says(&region.verify().unwrap_err(), &["moved", BDF, "stop it"]);
    drop((region, device));
    // A heap checks its pages when it grows.
    let controller = Controller::open(&address).unwrap();
    let buffer = controller.alloc(4096).unwrap();
    controller.heap().verify().unwrap();
    let page = (buffer.as_ptr() as usize & !((2 << 20) - 1)) as *mut u8;
    // The device's rings are in this page too: the controller is not used after this.
    let at = node_of(page);
    assert_eq!(move_page(page, 1 - at), 1 - at);
    says(&controller.heap().verify().unwrap_err(), &["moved"]);
    says(&controller.alloc(4 << 20).unwrap_err(), &["moved"]);
    assert_eq!(move_page(page, at), at);
    drop((buffer, controller));
    fs::write(&domain, kind.trim()).unwrap();
    drop(borrowed);
}
