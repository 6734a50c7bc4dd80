//! The transports that use physical addresses are refused while an IOMMU translates.

use upcie_core::{
    device::Address,
    open,
    pci::{Binder, Function},
};
use upcie_tests::says;

const BDF: &str = "0000:01:00.0";

#[test]
fn physical_addresses_are_refused_while_an_iommu_translates() {
    let function = Function::at(BDF.parse().unwrap()).unwrap();
    assert!(function.iommu_group.as_ref().unwrap().domain.as_deref().unwrap().starts_with("DMA"));
    let before = function.driver.clone();
    for (scheme, driver) in [("uio", Some("uio_pci_generic")), ("sysfs", None)] {
        match driver {
            Some(driver) => Binder::new().bind(&function, driver).unwrap(),
            None => Binder::new().unbind(&function).unwrap(),
        }
        let address: Address = format!("{scheme}:{BDF}").parse().unwrap();
        says(
            &open(&address).unwrap_err(),
            &[BDF, "an IOMMU translates", "type DMA", "iommu=pt", "devbind bind vfio-pci"],
        );
    }
    // An identity domain is good enough, without another boot.
    let group = function.iommu_group.as_ref().unwrap().number;
    let domain = format!("/sys/kernel/iommu_groups/{group}/type");
    let kind = std::fs::read_to_string(&domain).unwrap();
    std::fs::write(&domain, "identity").unwrap();
    let opened = open(&format!("sysfs:{BDF}").parse().unwrap()).map(drop);
    std::fs::write(&domain, kind.trim()).unwrap();
    Binder::new().bind(&function, before.as_deref().unwrap()).unwrap();
    opened.unwrap();
}
