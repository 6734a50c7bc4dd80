//! Impossible requests: the driver sends nothing, and the error names the device and the possible values.

use upcie_nvme::{Controller, Failure, Refusal};
use upcie_tests::{
    data::Bytes,
    device::namespaces,
    io::{create, read, write},
    on_each_device, says,
};

#[test]
fn impossible_transfers_write_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let (size, end) = (namespace.block_size(), namespace.blocks());
            // The blocks there must keep their data.
            for slba in [0, end - 1] {
                let mut buffer = controller.alloc(size).unwrap();
                pattern.fill(&mut buffer, slba, 1);
                write(&namespace, slba, &mut buffer);
            }
            let mut queue = create::<u64>(controller.queue_pair().depth(8));
            let cases = [
                (0, size - 4, Refusal::Length),
                (0, size + 4, Refusal::Length),
                (0, 4, Refusal::Length),
                (end, size, Refusal::OutOfRange),
                (end - 1, 2 * size, Refusal::OutOfRange),
                (u64::MAX, size, Refusal::OutOfRange),
                (u64::MAX, 2 * size, Refusal::OutOfRange),
                (u64::MAX - 1, size, Refusal::OutOfRange),
                (0, namespace.max_transfer() + size, Refusal::TooLong),
                (0, 4 * namespace.max_transfer(), Refusal::TooLong),
            ];
            for (slba, len, wanted) in cases {
                for write in [false, true] {
                    let mut buffer = controller.alloc(len).unwrap();
                    buffer.fill(0x77);
                    let mut turn = queue.turn().unwrap();
                    let result = if write {
                        turn.write(&namespace, slba, buffer, 5)
                    } else {
                        turn.read(&namespace, slba, buffer, 5)
                    };
                    drop(turn);
                    let refused = result.expect_err("a refusal");
                    assert_eq!((refused.reason, refused.tag), (wanted, 5), "{len} bytes at block {slba}");
                    assert!(
                        refused.buffer.len() == len
                            && refused.buffer.bytes().iter().all(|&byte| byte == 0x77)
                    );
                    // The blocking calls split long transfers, and refuse the others.
                    if wanted == Refusal::TooLong {
                        continue;
                    }
                    let mut buffer = refused.buffer;
                    let result = if write {
                        namespace.write(slba, &mut buffer)
                    } else {
                        namespace.read(slba, &mut buffer)
                    };
                    let error = result.unwrap_err();
                    assert!(
                        matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted),
                        "{error}"
                    );
                    says(&error, &[controller.name(), &len.to_string(), &slba.to_string(), "namespace"]);
                    assert!(
                        buffer.len() == len && buffer.bytes().iter().all(|&byte| byte == 0x77),
                        "given back"
                    );
                }
            }
            assert_eq!(queue.in_flight(), 0, "nothing was sent");
            // An empty buffer, too.
            let refused =
                queue.turn().unwrap().write(&namespace, 0, upcie_nvme::DmaBuf::empty(), 6).unwrap_err();
            assert_ne!(refused.reason, Refusal::Full);
            assert_eq!(refused.tag, 6);
            assert!(namespace.write(0, &mut upcie_nvme::DmaBuf::empty()).is_err());
            for slba in [0, end - 1] {
                pattern.verify(&read(&controller, &namespace, slba, 1), slba, 1);
            }
        }
    });
}

#[test]
fn a_missing_namespace_is_named_with_the_others() {
    on_each_device(|device| {
        let controller = device.open();
        let ids = controller.namespace_ids().unwrap();
        for nsid in [0, ids.last().unwrap() + 1, u32::MAX - 1, u32::MAX] {
            let error = controller.namespace(nsid).unwrap_err();
            says(&error, &[controller.name(), &nsid.to_string(), &format!("{ids:?}")]);
        }
    });
}

#[test]
fn impossible_queues_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let most = controller.max_depth();
        for depth in [0, 1, most + 1, 65537, u32::MAX] {
            let error = controller.queue_pair().depth(depth).create::<u64>().unwrap_err();
            says(&error, &[controller.name(), &depth.to_string(), &most.to_string(), "2 to"]);
        }
        for vector in [2048, u16::MAX] {
            let error = controller.queue_pair().interrupt(vector).create::<u64>().unwrap_err();
            says(&error, &[controller.name(), &vector.to_string(), "vector"]);
        }
        // The refusals have used up no queue.
        let _all: Vec<_> = (0..controller.max_queue_pairs())
            .map(|_| create::<u64>(controller.queue_pair().depth(2)))
            .collect();
    });
}

#[test]
fn impossible_buffers_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        for len in [0, (1 << 30) + 1, usize::MAX] {
            let error = controller.alloc(len).unwrap_err();
            says(&error, &[controller.name(), &len.to_string()]);
        }
        for align in [0, 3] {
            assert!(controller.heap().alloc_aligned(4096, align).is_err());
        }
    });
}

#[test]
fn fewer_queue_pairs_can_be_asked_for() {
    on_each_device(|device| {
        for queues in [0, 1, 2, u16::MAX] {
            let controller = device.open_with(Controller::builder().queues(queues));
            assert!((1..=queues.max(1)).contains(&controller.max_queue_pairs()));
            let _one = create::<u64>(controller.queue_pair());
        }
    });
}

#[test]
fn dead_addresses_say_what_to_do() {
    let open = |text: &str| Controller::open(text).expect_err("it does not open");
    says(&open("vfio-user:/nonexistent/socket"), &["vfio-user:/nonexistent/socket"]);
    let directory = upcie_tests::process::Directory::new();
    let file = directory.path().join("file");
    std::fs::write(&file, "no socket").unwrap();
    says(&open(&format!("vfio-user:{}", file.display())), &["socket"]);
    says(&open("ffff:1f:1f.7"), &["ffff:1f:1f.7"]);
    says(&open("emu:colour=red"), &["colour", "size="]);
    says(&open("emu:size=0"), &["size=0", "1 block"]);
}
