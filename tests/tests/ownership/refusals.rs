//! Namespaces and buffers of another device, and handles that an invalidation has made stale, are refused; the payload comes
//! back.

use upcie_nvme::{
    DmaBuf, Failure, Namespace, QueuePair, Refusal, Refused,
    spec::{AdminOpcode, Command},
};
use upcie_tests::{
    data::{Bytes, Pattern},
    device::{another, namespaces},
    io::{create, only, read, write},
    on_each_device, says,
};

/// Asserts that a read and a write are refused with `wanted`, and return the payload unchanged.
#[track_caller]
fn refused(queue: &mut QueuePair<u64>, namespace: &Namespace, mut buffer: DmaBuf, wanted: Refusal) -> DmaBuf {
    buffer.fill(0x5a);
    for write in [false, true] {
        let (at, len) = (buffer.as_ptr(), buffer.len());
        let mut turn = queue.turn().unwrap();
        let result =
            if write { turn.write(namespace, 0, buffer, 31) } else { turn.read(namespace, 0, buffer, 31) };
        let Err(Refused { reason, buffer: back, tag }) = result else { panic!("taken, though {wanted:?}") };
        drop(turn);
        assert_eq!((reason, tag), (wanted, 31));
        assert_eq!((back.as_ptr(), back.len()), (at, len), "the same buffer");
        assert!(back.bytes().iter().all(|&byte| byte == 0x5a), "untouched");
        buffer = back;
    }
    assert_eq!(queue.in_flight(), 0);
    buffer
}

#[test]
fn a_namespace_of_another_controller_is_refused() {
    on_each_device(|device| {
        let (controller, other) = (device.open(), another());
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        let foreign = other.namespace(1).unwrap();
        let buffer = controller.alloc(4096).unwrap();
        refused(&mut queue, &foreign, buffer, Refusal::ForeignNamespace);
        // A flush has no buffer, but it has a namespace.
        let refused = queue.turn().unwrap().flush(&foreign, 8).unwrap_err();
        assert_eq!((refused.reason, refused.tag), (Refusal::ForeignNamespace, 8));
    });
}

#[test]
fn a_buffer_of_another_devices_address_space_is_refused() {
    on_each_device(|device| {
        let (controller, other) = (device.open(), another());
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        for (namespace, _) in namespaces(&controller) {
            for len in [4096, 16384] {
                refused(&mut queue, &namespace, other.alloc(len).unwrap(), Refusal::ForeignBuffer);
            }
            // A foreign segment at the end of a chain.
            let mut chain = controller.alloc(4096).unwrap();
            chain.chain(other.alloc(4096).unwrap());
            let mut turn = queue.turn().unwrap();
            let refused = turn.read(&namespace, 0, chain, 1).unwrap_err();
            drop(turn);
            assert_eq!((refused.reason, refused.buffer.total_len()), (Refusal::ForeignBuffer, 8192));
            // The blocking calls refuse it, too.
            let mut foreign = other.alloc(4096).unwrap();
            foreign.fill(3);
            let error = namespace.read(0, &mut foreign).unwrap_err();
            assert!(
                matches!(error.failure(), Failure::Refused { reason: Refusal::ForeignBuffer, .. }),
                "{error}"
            );
            says(&error, &[controller.name(), "address space"]);
            assert!(foreign.len() == 4096 && foreign.bytes().iter().all(|&byte| byte == 3));
        }
    });
}

#[test]
fn a_stale_namespace_is_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        let (old, pattern) = namespaces(&controller).remove(0);
        let mut buffer = controller.alloc(4096).unwrap();
        controller.invalidate_namespaces();
        let buffer_len = buffer.len();
        buffer = refused(&mut queue, &old, buffer, Refusal::StaleNamespace);
        let error = old.read(0, &mut buffer).unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }),
            "{error}"
        );
        says(&error, &[controller.name(), "again"]);
        assert_eq!(buffer.len(), buffer_len, "given back");
        assert!(old.flush().is_err());
        let new = controller.namespace(old.nsid()).unwrap();
        pattern.fill(&mut buffer, 0, 1);
        queue.turn().unwrap().write(&new, 0, buffer, 0).unwrap();
        only(&mut queue);
        pattern.verify(&read(&controller, &new, 0, 4096 / new.block_size()), 0, 1);
    });
}

#[test]
fn refused_blocking_calls_leak_no_queues() {
    on_each_device(|device| {
        let controller = device.open();
        let (old, _) = namespaces(&controller).remove(0);
        read(&controller, &old, 0, 1);
        let before = controller.heap().in_use();
        controller.invalidate_namespaces();
        for _ in 0..=controller.max_queue_pairs() {
            let error = old.flush().unwrap_err();
            assert!(
                matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }),
                "{error}"
            );
        }
        assert_eq!(controller.heap().in_use(), before, "the queue pair of the blocking calls is still there");
        let new = controller.namespace(old.nsid()).unwrap();
        read(&controller, &new, 0, 1);
    });
}

#[test]
fn formatting_makes_handles_stale() {
    on_each_device(|device| {
        let controller = device.open();
        let (old, _) = namespaces(&controller).pop().unwrap();
        let mut format = Command::admin(AdminOpcode::FORMAT_NVM, old.nsid());
        format.cdw10 = old.identify().format_index() as u32;
        let supported = controller.identify().oacs & 1 << 1 != 0;
        match controller.admin(&format, &mut []) {
            Ok(_) => {}
            // A controller without Format NVM (Identify says so) answers with a status.
            Err(error) => {
                assert!(!supported, "{error:?}");
                assert!(matches!(error.failure(), Failure::Status { .. }), "{error}");
            }
        }
        // Stale in both cases: a failed format may have changed blocks, too.
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        refused(&mut queue, &old, controller.alloc(4096).unwrap(), Refusal::StaleNamespace);
        let error = old.read(0, &mut controller.alloc(4096).unwrap()).unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }),
            "{error}"
        );
        let new = controller.namespace(old.nsid()).unwrap();
        assert_eq!(new.block_size(), old.block_size());
        let mut buffer = controller.alloc(4096).unwrap();
        Pattern::of(&new).fill(&mut buffer, 0, 5);
        write(&new, 0, &mut buffer);
    });
}
