//! The host memory buffer: memory that a controller borrows from the host, over resets and until it is taken back.
//!
//! The controller in software leaves marks in the memory, and looks at them when the health log is read.

use std::{thread, time::Duration};
use upcie_core::clock::Clock;
use upcie_nvme::{
    Controller, Failure,
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, HostMemoryBuffer, SmartLog},
};
use upcie_tests::{
    Device, deadline,
    device::namespaces,
    io::{create, read, write},
    on_each_device, says,
    stepping::Stepping,
};

/// More than a controller under test wishes.
const PLENTY: usize = 256 << 20;

/// Returns the sizes that the controller wishes and needs; `None`, and a note, if it borrows no memory.
fn wish(device: &Device, controller: &Controller) -> Option<(usize, usize)> {
    let identify = controller.identify();
    if identify.hmpre == 0 {
        assert_eq!(controller.lend_host_memory(PLENTY).unwrap(), 0);
        device.lacks("Host Memory Buffer", &std::io::Error::other("HMPRE is 0"));
        return None;
    }
    Some((identify.hmpre as usize * 4096, identify.hmmin as usize * 4096))
}

/// Lets the controller use the memory, and returns the bytes that it says it has.
fn used(controller: &Controller) -> usize {
    controller.log::<SmartLog>().unwrap();
    let feature = controller.feature::<HostMemoryBuffer>().unwrap();
    if feature.dword.enabled() { feature.data.size as usize * controller.page_size() } else { 0 }
}

#[test]
fn lent_memory_stays_the_controllers_until_it_is_taken_back() {
    on_each_device(|device| {
        let controller = device.open();
        let Some((wished, _)) = wish(device, &controller) else { return };
        assert_eq!(controller.lend_host_memory(PLENTY).unwrap(), wished);
        assert_eq!(used(&controller), wished);
        assert_eq!(controller.lend_host_memory(PLENTY).unwrap(), wished, "it has it already");
        // Rings and lists come from the same heap.
        let all = namespaces(&controller);
        let (namespace, pattern) = &all[0];
        for round in 0..3 {
            let queues: Vec<_> = (0..3).map(|_| create::<u64>(controller.queue_pair().depth(256))).collect();
            let mut buffer = controller.alloc(64 << 10).unwrap();
            pattern.fill(&mut buffer, 0, round);
            write(namespace, 0, &mut buffer);
            pattern.verify(
                &read(&controller, namespace, 0, buffer.len() / namespace.block_size())[..],
                0,
                round,
            );
            assert_eq!(used(&controller), wished);
            drop(queues);
            controller.reset().unwrap();
            assert_eq!(used(&controller), wished, "it comes back after a reset");
        }
        controller.take_host_memory().unwrap();
        assert_eq!(used(&controller), 0);
        controller.take_host_memory().unwrap();
        controller.reset().unwrap();
        assert_eq!(used(&controller), 0, "what was taken back does not return");
        assert_eq!(controller.lend_host_memory(PLENTY).unwrap(), wished);
        drop(all);
        drop(controller);
        // Nothing of it is left after the end.
        assert_eq!(used(&device.open()), 0);
    });
}

#[test]
fn less_is_lent_on_request_and_too_little_is_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let Some((wished, least)) = wish(device, &controller) else { return };
        let half = (wished + least) / 2;
        let whole_pages = half / controller.page_size() * controller.page_size();
        assert_eq!(controller.lend_host_memory(half).unwrap(), whole_pages);
        assert_eq!(used(&controller), whole_pages);
        controller.take_host_memory().unwrap();
        let error = controller.lend_host_memory(least - 1).unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
        says(&error, &[controller.name(), &format!("{least} bytes at least")]);
        assert_eq!(used(&controller), 0);
    });
}

/// A reset makes the controller forget the memory at any moment of a call.
#[test]
fn lending_and_resets_may_come_from_two_threads() {
    on_each_device(|device| {
        let controller = device.open();
        let Some((wished, _)) = wish(device, &controller) else { return };
        thread::scope(|scope| {
            let resets = scope.spawn(|| (0..20).for_each(|_| controller.reset().unwrap()));
            let cut_off = |error: &upcie_nvme::Error| matches!(error.failure(), Failure::Reset { .. });
            while !resets.is_finished() {
                match controller.lend_host_memory(PLENTY) {
                    Ok(bytes) => assert_eq!(bytes, wished),
                    Err(error) => assert!(cut_off(&error), "{error:?}"),
                }
                if let Err(error) = controller.take_host_memory() {
                    assert!(cut_off(&error), "{error:?}");
                }
            }
        });
        assert_eq!(controller.lend_host_memory(PLENTY).unwrap(), wished, "within {:?}", deadline());
        assert_eq!(used(&controller), wished);
        controller.reset().unwrap();
        assert_eq!(used(&controller), wished);
    });
}

/// A command that was not answered in time may be carried out after a later one that was.
#[test]
fn memory_that_a_late_command_may_lend_is_kept() {
    let clock = Stepping::new("size=1M,hmb=1M,serial=LENT", ());
    let controller = clock.open(Controller::builder().queues(1).timeout(Duration::from_secs(1)));
    let before = controller.heap().in_use();
    let late = FaultRule::new(Fault::Delay(Duration::from_secs(3))).queue(0);
    let late = late.opcode(AdminOpcode::SET_FEATURES.0).count(1);
    clock.device.inject(&FaultPlan::new(1).rule(late)).unwrap();
    let error = controller.lend_host_memory(PLENTY).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error:?}");
    controller.take_host_memory().unwrap();
    assert_eq!(controller.host_memory(), 0);
    // This controller had carried the first command out before; the driver can't know that.
    clock.sleep(Duration::from_secs(4));
    assert_eq!(used(&controller), 0);
    assert!(controller.heap().in_use() >= before + (1 << 20), "the controller may use the memory");
    controller.reset().unwrap();
    assert_eq!(controller.heap().in_use(), before);
}
