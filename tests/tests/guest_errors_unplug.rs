//! A controller that QEMU takes away while commands are in flight, over VFIO: its user is asked first, gets every command
//! back, and lets go; then it is gone, and the process goes on with other devices.

use upcie_core::irq::wait_readable;
use upcie_nvme::{Controller, Wait};
use upcie_tests::{
    deadline,
    io::{create, finish, read},
    monitor::{Monitor, Plugged},
    process::within,
};

#[test]
fn a_controller_is_taken_away_when_its_user_lets_go() {
    let mut monitor = Monitor::new();
    for (scheme, how) in [("vfio", Wait::Interrupt), ("iommufd", Wait::Poll)] {
        let plugged = Plugged::new(&mut monitor, Some("vfio-pci"));
        let controller = Controller::open(plugged.address(scheme)).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create::<u64>(controller.queue_pair().depth(32).interrupt(1));
        plugged.slow_down(&mut monitor, 4);
        let mut turn = queue.turn().unwrap();
        for tag in 0..16 {
            turn.read(&namespace, tag * 8, controller.alloc(4096).unwrap(), tag).unwrap();
        }
        drop(turn);
        assert!(!controller.is_wanted_back());
        plugged.pull(&mut monitor);
        let fd = controller.wanted_back_fd().expect("VFIO has it");
        assert!(wait_readable(fd, deadline()).unwrap(), "{scheme}");
        assert!(controller.is_wanted_back());
        // It works until its user closes it.
        let mut tags = Vec::new();
        while tags.len() < 16 {
            assert!(queue.wait(how, deadline()).unwrap(), "{scheme}: {tags:?}");
            for done in queue.turn().unwrap() {
                let (tag, result, buffer) = done.into_parts();
                result.unwrap();
                assert_eq!(buffer.len(), 4096);
                tags.push(tag);
            }
        }
        tags.sort_unstable();
        assert_eq!(tags, (0..16).collect::<Vec<_>>(), "{scheme}: each command once");
        namespace.flush().unwrap();
        within(deadline(), move || drop((queue, namespace, controller)));
        plugged.wait_until_gone();
        let other = Controller::open(format!("{scheme}:0000:01:00.0")).unwrap();
        read(&other, &other.namespace(1).unwrap(), 0, 8);
    }
}

/// With commands in flight that nobody waits for.
#[test]
fn a_user_who_drops_everything_lets_the_controller_go() {
    let mut monitor = Monitor::new();
    let plugged = Plugged::new(&mut monitor, Some("vfio-pci"));
    let controller = Controller::open(plugged.address("vfio")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(8));
    plugged.slow_down(&mut monitor, 2);
    for tag in 0..4 {
        queue.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), tag).unwrap();
    }
    plugged.pull(&mut monitor);
    assert!(wait_readable(controller.wanted_back_fd().unwrap(), deadline()).unwrap());
    let all = within(deadline(), move || queue.close().unwrap());
    let mut tags: Vec<_> = all.into_iter().map(|returned| returned.into_parts().0).collect();
    tags.sort_unstable();
    assert_eq!(tags, [0, 1, 2, 3], "each command once");
    within(deadline(), move || drop((namespace, controller)));
    plugged.wait_until_gone();
    // The slot takes the next one.
    let plugged = Plugged::new(&mut monitor, Some("vfio-pci"));
    let controller = Controller::open(plugged.address("vfio")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair());
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut queue).len(), 1);
}
