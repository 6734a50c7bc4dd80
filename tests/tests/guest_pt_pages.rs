//! Huge pages of 1 GiB, where addresses are physical.

mod vfio_device;

use std::{env, path::Path, process::Command};
use upcie_core::{
    memory::{Memory, PageSize},
    open,
    pci::{Binder, Function},
};
use upcie_nvme::Controller;
use upcie_tests::{deadline, process::within, says};
use vfio_device::identify;

const BDF: &str = "0000:01:00.0";

#[test]
fn a_page_of_one_gib_is_one_piece() {
    let function = Function::at(BDF.parse().unwrap()).unwrap();
    Binder::new().unbind(&function).unwrap();
    assert_eq!(function.iommu_group.unwrap().domain.as_deref(), Some("identity"));
    let page = PageSize::Huge1G;
    let (free, _) = page.available().expect("such pages");
    let address = format!("sysfs:{BDF}").parse().unwrap();
    let device = open(&address).unwrap();
    // Named files of this size have no mount, but a memfd needs none.
    says(&device.dma().allocate(4096, Some(page)).unwrap_err(), &["hugepages mount", "1 GiB"]);
    let queues = device.dma().allocate(8192, None).unwrap();
    let data = device.dma().map(Memory::new(1, page).unwrap()).unwrap();
    assert_eq!((data.len(), data.iova(0) % (1 << 30)), (1 << 30, 0));
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    drop((queues, data, device));
    let tool = Path::new(&env::var_os("UPCIE_BIN").unwrap()).join("hugepages");
    let mounted = Command::new(tool).args(["mount", "--size", "1G"]).output().unwrap();
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    within(deadline(), move || {
        let options = Controller::builder().pages(page);
        let controller = options.open(&address).unwrap();
        // More than a page of 2 MiB, contiguous.
        let ring = controller.heap().alloc_aligned(16 << 20, 4096).unwrap();
        assert!(ring.is_contiguous());
        let namespace = controller.namespace(1).unwrap();
        let mut buffer = controller.alloc(256 << 10).unwrap();
        buffer.fill(0x5a);
        namespace.write(0, &mut buffer).unwrap();
        buffer.fill(0);
        namespace.read(0, &mut buffer).unwrap();
        assert!(buffer.to_vec().iter().all(|&byte| byte == 0x5a));
    });
    assert_eq!(page.available().unwrap().0, free);
}
