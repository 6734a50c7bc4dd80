//! On a kernel without iommufd the error names the missing kernel option, and a bare address takes the group.

use upcie_core::device::Address;
use upcie_nvme::Controller;
use upcie_tests::{on_each_device, says};

#[test]
fn the_missing_kernel_option_is_named() {
    on_each_device(|device| {
        let bdf = device.address().bdf().expect("a PCI function");
        let error = Controller::open(Address::Iommufd(bdf)).expect_err("there is no iommufd");
        says(&error, &[&format!("iommufd:{bdf}"), "CONFIG_VFIO_DEVICE_CDEV"]);
    });
}

#[test]
fn an_address_without_a_scheme_takes_the_group() {
    on_each_device(|device| {
        assert!(matches!(device.address(), upcie_nvme::Address::Device(Address::Pci(_))));
        device.open().namespace_ids().unwrap();
    });
}
