//! `devbind` without an IOMMU: it enters the unsafe mode only on request, and leaves it again.

use std::{fs, process::Command};
use upcie_core::{
    device::Address,
    pci::{Bdf, Function},
    probe,
};
use upcie_nvme::Controller;
use upcie_tests::{pci::kernel_disk, process::programs};

const BDF: &str = "0000:02:00.0";
const PARAMETER: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

fn function() -> Function {
    Function::at(BDF.parse::<Bdf>().unwrap()).unwrap()
}

/// Runs devbind; returns its exit code and its whole output.
fn devbind(arguments: &str) -> (i32, String) {
    let words = arguments.split_whitespace();
    let output = Command::new(programs().join("devbind")).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("devbind {arguments}: {text}");
    (output.status.code().unwrap(), text)
}

fn mode() -> String {
    fs::read_to_string(PARAMETER).unwrap().trim().to_owned()
}

/// Returns the transports that the function has now.
fn possible() -> Vec<String> {
    let open = probe(&function()).into_iter().filter(|way| way.missing.is_none());
    open.map(|way| way.address.to_string()).collect()
}

/// Writes a block over a transport, and reads it with the kernel's driver.
fn write(scheme: &str, value: u8) {
    let address: Address = format!("{scheme}:{BDF}").parse().unwrap();
    let controller = Controller::open(&address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut buffer = controller.alloc(4096).unwrap();
    buffer.fill(value);
    namespace.write(8, &mut buffer).unwrap();
    drop((buffer, namespace, controller));
    assert_eq!(devbind(&format!("bind nvme {BDF}")).0, 0);
    let disk = kernel_disk(BDF.parse().unwrap(), 1);
    let mut data = vec![0; 4096];
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(disk).unwrap(), &mut data, 4096).unwrap();
    assert!(data.iter().all(|&byte| byte == value), "{scheme}");
}

#[test]
fn the_unsafe_mode_is_asked_for_and_left_again() {
    assert_eq!((function().driver, mode().as_str()), (None, "N"));
    assert_eq!(possible(), [format!("sysfs:{BDF}")]);
    let (code, text) = devbind(&format!("bind vfio-pci {BDF}"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("--unsafe-noiommu") && text.contains("uio_pci_generic"), "{text}");
    assert_eq!((function().driver, mode().as_str()), (None, "N"), "nothing was changed");
    write("sysfs", 1);
    let (code, text) = devbind(&format!("bind vfio-pci {BDF} --unsafe-noiommu"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("taint") && text.contains("memory"), "{text}");
    assert_eq!((function().driver.as_deref(), mode().as_str()), (Some("vfio-pci"), "Y"));
    assert_eq!(possible(), [format!("noiommu:{BDF}")]);
    write("noiommu", 2);
    assert_eq!(devbind(&format!("bind uio_pci_generic {BDF}")).0, 0);
    assert_eq!(possible(), [format!("uio:{BDF}")]);
    write("uio", 3);
    let (code, text) = devbind("restore");
    assert_eq!(code, 0, "{text}");
    assert_eq!((function().driver, mode().as_str()), (None, "N"), "as it was");
    assert_eq!(possible(), [format!("sysfs:{BDF}")]);
}
