//! A controller that QEMU takes away while commands are in flight, without VFIO: nobody asks its user, who notices, gets each
//! command back or is told that its memory is kept, and goes on with other devices.

use upcie_core::irq::wait_readable;
use upcie_nvme::{Controller, Error, Failure, Wait};
use upcie_tests::{
    deadline,
    io::{create, read},
    monitor::{Monitor, Plugged},
    process::within,
};

const COMMANDS: u64 = 16;

/// Returns true if an error says that the controller is of no more use. Where a controller was, hardware reads as all ones, and
/// QEMU as zeroes: a controller that is not enabled.
fn is_over(error: &Error) -> bool {
    matches!(error.failure(), Failure::Gone { .. } | Failure::Disabled { .. })
}

#[test]
fn a_controller_that_is_gone_is_noticed() {
    let mut monitor = Monitor::new();
    for (scheme, driver) in [("uio", Some("uio_pci_generic")), ("sysfs", None)] {
        let plugged = Plugged::new(&mut monitor, driver);
        let controller = Controller::open(plugged.address(scheme)).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create::<u64>(controller.queue_pair().depth(32));
        plugged.slow_down(&mut monitor, 1);
        let mut turn = queue.turn().unwrap();
        for tag in 0..COMMANDS {
            turn.read(&namespace, tag * 8, controller.alloc(4096).unwrap(), tag).unwrap();
        }
        drop(turn);
        plugged.pull(&mut monitor);
        let fd = controller.wanted_back_fd().expect("a thread looks for it");
        assert!(wait_readable(fd, deadline()).unwrap(), "{scheme}");
        assert!(controller.is_wanted_back());
        plugged.wait_until_gone();
        // QEMU may have completed commands before it took the controller away; waits return those first.
        let (mut queue, mut tags, error) = within(2 * deadline(), move || {
            let mut tags = Vec::new();
            loop {
                match queue.wait(Wait::Poll, deadline()) {
                    Err(error) => break (queue, tags, error),
                    Ok(there) => {
                        assert!(there, "a wait for a controller that is gone ends by its deadline alone");
                        tags.extend(queue.turn().unwrap().map(|done| done.into_parts().0));
                    }
                }
            }
        });
        assert!(is_over(&error), "{scheme}: {error:?}");
        let turn = queue.turn().map(drop).unwrap_err();
        for error in [turn, namespace.flush().unwrap_err(), controller.namespace_ids().unwrap_err()] {
            assert!(is_over(&error), "{scheme}: {error:?}");
        }
        let in_flight = queue.in_flight();
        assert_eq!(tags.len() + in_flight, COMMANDS as usize, "{scheme}: {tags:?}");
        match within(deadline(), move || queue.close()) {
            Ok(all) => {
                tags.extend(all.into_iter().map(|returned| returned.into_parts().0));
                tags.sort_unstable();
                assert_eq!(tags, (0..COMMANDS).collect::<Vec<_>>(), "{scheme}: each command once");
            }
            // Registers that read as all ones do not prove that the controller has stopped.
            Err(error) => {
                assert!(matches!(error.failure(), Failure::Undeleted { .. }), "{scheme}: {error:?}");
                assert!(error.to_string().contains(&in_flight.to_string()), "{scheme}: {error}");
            }
        }
        within(deadline(), move || drop((namespace, controller)));
        // The suite's setup binds the others to no driver.
        let other = Controller::open("sysfs:0000:01:00.0").unwrap();
        read(&other, &other.namespace(1).unwrap(), 0, 8);
        // The next user of the slot frees the memory that was kept.
        let plugged = Plugged::new(&mut monitor, driver);
        let controller = Controller::open(plugged.address(scheme)).unwrap();
        read(&controller, &controller.namespace(1).unwrap(), 0, 8);
    }
}
