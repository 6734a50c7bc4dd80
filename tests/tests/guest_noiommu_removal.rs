//! Without an IOMMU the kernel takes a device without asking: its program notices, stops, and leaves it alone.

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};
use upcie_core::pci::{Bdf, Binder, Function};
use upcie_nvme::Controller;
use upcie_tests::{deadline, pci::kernel_disk, process::running_perf};

const BDF: &str = "0000:02:00.0";

fn bdf() -> Bdf {
    BDF.parse().unwrap()
}

fn function() -> Function {
    Function::at(bdf()).unwrap()
}

/// Binds the function as `scheme` needs it, and returns its address.
fn prepare(scheme: &str) -> String {
    match scheme {
        "uio" => Binder::new().bind(&function(), "uio_pci_generic").unwrap(),
        _ => Binder::new().unbind(&function()).unwrap(),
    }
    format!("{scheme}:{BDF}")
}

/// Leaves the function in the kernel's list and without a driver. The next user resets it and frees the memory that a
/// program could not free, because it was not known whether the device still used it.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        fs::write("/sys/bus/pci/rescan", "1").unwrap();
        Binder::new().force(true).unbind(&function()).unwrap();
        Controller::open(format!("sysfs:{BDF}")).unwrap();
    }
}

/// Writes to a file of sysfs, as an administrator does by hand.
fn echo(text: &str, path: impl AsRef<std::path::Path>) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn perf_ends_when_its_device_is_taken() {
    for (scheme, event) in [("uio", "unbind"), ("uio", "remove"), ("sysfs", "remove")] {
        let _guard = Guard;
        let address = prepare(scheme);
        let perf = running_perf(&address);
        match event {
            "unbind" => echo(BDF, "/sys/bus/pci/drivers/uio_pci_generic/unbind"),
            _ => echo("1", function().path.join("remove")),
        }
        let (status, errors) = perf.finish();
        let notice = format!("the kernel has taken {address} (a removal, or another driver): stopping");
        assert!(errors.contains(&notice), "{scheme}, {event}: {errors}");
        assert_eq!(status.code(), Some(1), "{scheme}, {event}: {errors}");
    }
}

/// The kernel's driver would lose its controller if the former user shut it down.
#[test]
fn a_device_of_another_driver_is_left_alone() {
    for scheme in ["uio", "sysfs"] {
        let _guard = Guard;
        let address = prepare(scheme);
        let controller = Controller::open(&address).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut buffer = controller.alloc(4096).unwrap();
        buffer.fill(0x5a);
        namespace.write(16, &mut buffer).unwrap();
        assert!(!controller.is_wanted_back());
        if scheme == "uio" {
            echo(BDF, "/sys/bus/pci/drivers/uio_pci_generic/unbind");
        }
        echo("nvme", function().path.join("driver_override"));
        echo(BDF, "/sys/bus/pci/drivers_probe");
        let disk = kernel_disk(bdf(), 1);
        let fd = controller.wanted_back_fd().expect("a thread looks for it");
        assert!(upcie_core::irq::wait_readable(fd, deadline()).unwrap(), "{scheme}");
        assert!(controller.is_wanted_back());
        drop((buffer, namespace, controller));
        let started = Instant::now();
        let mut data = vec![0; 4096];
        fs::File::open(disk).unwrap().read_exact_at(&mut data, 8 * 1024).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "the kernel had to reset it");
        assert!(data.iter().all(|&byte| byte == 0x5a), "{scheme}: {:?}", &data[..8]);
        echo("\n", function().path.join("driver_override"));
    }
}
