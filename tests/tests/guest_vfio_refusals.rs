//! Refusals to open a function through VFIO, over both attachments: each error has the reason and a remedy.

#[macro_use]
mod vfio_device;

use std::{
    fs,
    os::{fd::AsFd, unix::fs::chown},
    path::{Path, PathBuf},
};
use upcie_core::{
    Failure,
    device::{Address, Device},
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    open,
    pci::{Bdf, Function},
    vfio::VfioDevice,
};
use upcie_tests::process::role;
use vfio_device::{
    Attachment, addresses, again, bdf, bind, contains_all, descriptors, expect_success, identify, map,
};

on_each_attachment![
    a_device_in_use_names_the_holder,
    a_wrong_driver_is_refused_with_advice,
    a_plain_user_needs_the_nodes_and_a_memory_limit,
];

const IOMMU: &str = "/dev/iommu";

fn device_node(bdf: Bdf) -> PathBuf {
    let mut names = fs::read_dir(Function::at(bdf).unwrap().path.join("vfio-dev")).unwrap();
    Path::new("/dev/vfio/devices").join(names.next().unwrap().unwrap().file_name())
}

fn group_node(bdf: Bdf) -> PathBuf {
    let group = Function::at(bdf).unwrap().iommu_group.expect("a group");
    Path::new("/dev/vfio").join(group.number.to_string())
}

fn own(nodes: &[PathBuf], user: u32) {
    for node in nodes {
        chown(node, Some(user), Some(user)).unwrap();
    }
}

/// A function that is open over one attachment is in use for both.
fn a_device_in_use_names_the_holder(attachment: Attachment) {
    let both_refuse = |part: &str| {
        for other in Attachment::ALL {
            contains_all(&other.refusal(0), &[part]);
        }
    };
    if let Some(holder) = role() {
        // Only the holder is named, not this process, which has just opened the node.
        return both_refuse(&format!("in use by process {holder};"));
    }
    let device = attachment.device(0);
    both_refuse("in use by this process");
    let before = descriptors();
    let name = attachment.test("a_device_in_use_names_the_holder");
    expect_success(&again(&name, &std::process::id().to_string(), false));
    assert_eq!(descriptors(), before);
    drop(device);
    attachment.device(0);
}

#[test]
fn an_unknown_function_is_not_found() {
    for text in ["0000:3f:00.0", "vfio:0000:3f:00.0", "iommufd:0000:3f:00.0"] {
        let error = open(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(error.failure(), Failure::NotFound { .. }), "{error}");
    }
}

fn a_wrong_driver_is_refused_with_advice(attachment: Attachment) {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            bind(bdf(1), Some("vfio-pci"));
        }
    }
    let _restore = Restore;
    bind(bdf(1), None);
    contains_all(&attachment.refusal(1), &["no driver is bound", "devbind bind vfio-pci"]);
    bind(bdf(1), Some("nvme"));
    for address in [Address::Pci(bdf(1)), attachment.address(bdf(1))] {
        let error = open(&address).unwrap_err().to_string();
        contains_all(&error, &["bound to the kernel's own driver, nvme", "devbind bind vfio-pci", "unmount"]);
    }
}

#[test]
fn the_no_iommu_mode_is_refused_beside_an_iommu() {
    let address = format!("noiommu:{}", addresses()[0]);
    let error = open(&address.parse().unwrap()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
    contains_all(&error.to_string(), &["it has an IOMMU", "use vfio:0000:01:00.0"]);
}

fn a_plain_user_needs_the_nodes_and_a_memory_limit(attachment: Attachment) {
    let name = attachment.test("a_plain_user_needs_the_nodes_and_a_memory_limit");
    let (nodes, node_parts, limit_parts) = match attachment {
        Attachment::Group => (vec![group_node(bdf(0))], ["/dev/vfio", "udev"], ["12288 are locked", ""]),
        Attachment::Iommufd => (
            vec![device_node(bdf(0)), IOMMU.into()],
            ["/dev/vfio/devices/vfio", "vfio-dev"],
            ["12288 bytes", "all processes of the user"],
        ),
    };
    match role().as_deref() {
        Some("stranger") => {
            let error = attachment.refusal(0);
            contains_all(&error, &["no permission", "belongs to root:root", "--owner user"]);
            contains_all(&error, &node_parts);
        }
        Some(_) => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: the call reads the limits given.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
            let device = attachment.device(0);
            let queues = map(&*device, 8192, PageSize::Small);
            let data = map(&*device, 4096, PageSize::Small);
            assert_eq!(identify(&*device, &queues, &data), "LABA");
            let event = EventFd::new().unwrap();
            device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
            let error = device.dma().map(Memory::new(2 << 20, PageSize::Small).unwrap()).unwrap_err();
            let error = error.to_string();
            contains_all(&error, &["RLIMIT_MEMLOCK", "1048576", "2097152", "ulimit -l"]);
            contains_all(&error, &limit_parts);
            map(&*device, 512 << 10, PageSize::Small);
        }
        None => {
            own(&nodes, 0);
            expect_success(&again(&name, "stranger", true));
            own(&nodes, 1000);
            expect_success(&again(&name, "owner", true));
            own(&nodes, 0);
        }
    }
}

#[test]
fn a_bare_address_needs_both_nodes_for_iommufd() {
    const NAME: &str = "a_bare_address_needs_both_nodes_for_iommufd";
    let has_ioas = || VfioDevice::open(&Address::Pci(bdf(0))).unwrap().ioas().is_some();
    match role().as_deref() {
        Some("without iommufd") => {
            let parts = ["no permission to open /dev/iommu", "belongs to root:root", "--owner user"];
            contains_all(&Attachment::Iommufd.refusal(0), &parts);
            assert!(!has_ioas(), "a bare address falls back to the group");
        }
        Some(_) => assert!(has_ioas()),
        None => {
            let (device, group) = (device_node(bdf(0)), group_node(bdf(0)));
            own(&[device.clone(), group.clone()], 1000);
            expect_success(&again(NAME, "without iommufd", true));
            own(std::slice::from_ref(&group), 0);
            own(&[IOMMU.into()], 1000);
            expect_success(&again(NAME, "with iommufd", true));
            own(&[device, group, IOMMU.into()], 0);
        }
    }
}
