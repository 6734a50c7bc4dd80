//! Weighted round robin: used if the controller has it, otherwise refused with the reason.

use upcie_nvme::{
    Controller, ControllerBuilder, Failure,
    spec::{Arbitration, Command, FeatureId, FeatureSelect, QueuePriority},
};
use upcie_tests::{
    device::namespaces,
    io::{create, finish, read, write},
    on_each_device, says,
};

const CLASSES: [QueuePriority; 4] =
    [QueuePriority::URGENT, QueuePriority::HIGH, QueuePriority::MEDIUM, QueuePriority::LOW];

/// Returns up to 4 commands of a queue at a time, and weights 8 (high), 4 (medium) and 1 (low).
fn weights() -> Arbitration {
    Arbitration::new().with_ab(2).with_hpw(7).with_mpw(3).with_lpw(0)
}

fn weighted() -> ControllerBuilder {
    Controller::builder().arbitration(weights())
}

#[test]
fn queues_of_every_class_work_or_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let has = controller.capabilities().supports_weighted_round_robin();
        // Round robin has no classes, and does not ignore a class silently.
        for class in CLASSES {
            let error = controller.queue_pair().priority(class).create::<u64>().unwrap_err();
            let way_out = if has { "Controller::builder().arbitration" } else { "CAP.AMS" };
            says(&error, &[controller.name(), class.name().unwrap(), way_out]);
        }
        let name = controller.name().to_owned();
        drop(controller);
        if !has {
            let error = weighted().open(device.address()).unwrap_err();
            assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
            says(&error, &[&name, "CAP.AMS", "weighted round robin"]);
            device.lacks("weighted round robin", &error);
            return;
        }
        let controller = device.open_with(weighted());
        let get = Command::get_features(FeatureId::ARBITRATION, FeatureSelect::CURRENT);
        let value = Arbitration::from_bits(controller.admin(&get, &mut []).unwrap());
        assert_eq!(value, weights());
        let error = controller.queue_pair().priority(QueuePriority(4)).create::<u64>().unwrap_err();
        says(&error, &[controller.name(), "0 (urgent) to 3 (low)"]);
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut queues: Vec<_> =
            CLASSES.iter().map(|&class| create::<u64>(controller.queue_pair().priority(class))).collect();
        // A queue without a class, beside the blocking calls' own.
        queues.push(create(controller.queue_pair()));
        for (index, queue) in (0..).zip(&mut queues) {
            let mut turn = queue.turn().unwrap();
            for at in 0..100 {
                let slba = index * 100 + at;
                let mut buffer = controller.alloc(namespace.block_size()).unwrap();
                pattern.fill(&mut buffer, slba, 1);
                turn.write(&namespace, slba, buffer, at).unwrap();
            }
        }
        for queue in &mut queues {
            assert_eq!(finish(queue).len(), 100);
        }
        pattern.verify(&read(&controller, &namespace, 0, 500), 0, 1);
        let mut buffer = controller.alloc(namespace.block_size()).unwrap();
        write(&namespace, 0, &mut buffer);
    });
}
