//! C programs over libupcie drive QEMU's controllers without an IOMMU: the examples, the contract programs of xNVMe's backend, and
//! heaps that were made before their controllers.

mod c_program;
mod direct;

use c_program::run;
use direct::{BDF, OTHER, UIO, bind};
use std::fs;

const PARAMETER: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// Binds both functions to the drivers of their schemes, and returns their addresses.
fn bound(functions: [(&str, &str); 2]) -> [String; 2] {
    functions.iter().for_each(|(_, function)| bind(function, None));
    let is_noiommu = functions.iter().any(|(scheme, _)| *scheme == "noiommu");
    fs::write(PARAMETER, if is_noiommu { "1" } else { "0" }).unwrap();
    functions.map(|(scheme, function)| {
        match scheme {
            "noiommu" => bind(function, Some("vfio-pci")),
            "uio" => bind(function, Some(UIO)),
            _ => {}
        }
        format!("{scheme}:{function}")
    })
}

/// Returns the addresses of both controllers by a scheme: first the one with two namespaces.
fn controllers(scheme: &str) -> [String; 2] {
    bound([(scheme, OTHER), (scheme, BDF)])
}

#[test]
fn examples_run() {
    for (scheme, events) in
        [("noiommu", "64 flushes, 0 failed"), ("uio", "64 flushes, 0 failed"), ("sysfs", "has no interrupts")]
    {
        for address in controllers(scheme) {
            run("c-hello", &[&address], "hello, controller");
            run("c-batch", &[&address, "500"], "500 reads, 0 failed");
            run("c-event-loop", &[&address], events);
        }
    }
}

#[test]
fn the_backend_keeps_the_contract() {
    for scheme in ["noiommu", "uio"] {
        let [first, other] = controllers(scheme);
        // Another controller, and one that shares no address space with the first.
        for other in [&*other, "emu:size=16M"] {
            run("c-contract", &[&first, other, "512"], "contract: ok");
            run("c-devices", &[&first, other, "512"], "devices: ok");
        }
    }
}

#[test]
fn memory_outlives_the_process_or_is_refused() {
    for schemes in [("noiommu", "uio"), ("uio", "noiommu")] {
        let [address, other] = bound([(schemes.0, BDF), (schemes.1, OTHER)]);
        run("c-untranslated", &[&address, &other], "untranslated: ok");
    }
}
