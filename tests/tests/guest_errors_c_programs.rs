//! A C program drives a zoned namespace that is not ours, that of QEMU's controller D, by the tables of xNVMe's backend.

mod c_program;

use c_program::run;
use upcie_tests::pci::Borrowed;

/// Controller D.
const BDF: &str = "0000:04:00.0";

#[test]
fn the_backend_appends_to_zones() {
    let function = Borrowed::take(BDF.parse().unwrap());
    function.bind("vfio-pci");
    for scheme in ["vfio:", "iommufd:"] {
        // Namespace 2, of 4096-byte blocks and zones of 1 MiB.
        let address = format!("{scheme}{BDF}");
        run("c-sets", &["zones", &address, "2", "4096", "256"], "zones: ok");
    }
}
