//! An uncorrectable error of PCI Express that QEMU injects into the port above a controller: the kernel's handler of Advanced
//! Error Reporting tells VFIO, and VFIO tells the controller's user by its ERR interrupt.

use upcie_nvme::{Controller, ErrorKind, Failure, Wait};
use upcie_tests::{
    deadline,
    io::{create, read},
    monitor::{Monitor, Plugged},
    process::within,
    says,
};

#[test]
fn an_error_that_the_kernel_reports_ends_each_wait() {
    let mut monitor = Monitor::new();
    for scheme in ["vfio", "iommufd"] {
        let plugged = Plugged::new(&mut monitor, Some("vfio-pci"));
        let controller = Controller::open(plugged.address(scheme)).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        // A slow command keeps a wait going. A completion that timed out is an error that leaves the link as it is.
        plugged.slow_down(&mut monitor, 1);
        plugged.inject(&mut monitor, "COMP_TIME");
        let waiting = namespace.clone();
        let buffer = controller.alloc(4096).unwrap();
        let (queue, error) = within(2 * deadline(), move || {
            let mut next = Some(buffer);
            loop {
                if let Some(buffer) = next.take()
                    && let Err(error) =
                        queue.turn().map(|mut turn| turn.read(&waiting, 0, buffer, 0).unwrap())
                {
                    break (queue, error);
                }
                match queue.wait(Wait::Poll, deadline()) {
                    Err(error) => break (queue, error),
                    Ok(_) => {
                        next = queue.turn().unwrap().next().map(|done| done.into_parts().2);
                        assert!(next.is_some(), "{scheme}: a command is lost");
                    }
                }
            }
        });
        assert!(matches!(error.failure(), Failure::PciError { .. }), "{scheme}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Failed, "{scheme}");
        let address = plugged.address(scheme);
        says(&error, &[&format!("the kernel reports an error of {address}"), "AER", "open it again"]);
        within(deadline(), move || drop((queue, namespace, controller)));
        // The way out that the error names.
        let controller = Controller::open(&address).unwrap();
        read(&controller, &controller.namespace(1).unwrap(), 0, 8);
    }
}
