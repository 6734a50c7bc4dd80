//! On a kernel without VFIO's no-IOMMU mode the error names the missing kernel option and the alternatives.

use upcie_core::device::Address;
use upcie_nvme::Controller;
use upcie_tests::{on_each_device, says};

#[test]
fn the_missing_kernel_option_is_named() {
    on_each_device(|device| {
        let bdf = device.address().bdf().expect("a PCI function");
        let error = Controller::open(Address::Noiommu(bdf)).expect_err("there is no such mode");
        says(&error, &[&format!("noiommu:{bdf}"), "CONFIG_VFIO_NOIOMMU", "uio_pci_generic"]);
    });
}
