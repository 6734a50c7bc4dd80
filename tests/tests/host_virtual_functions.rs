//! Secondary controllers of the embedded controller and of `nvme-emu`: given resources, turned on, driven, and turned off.
//! (`guest_virtual_functions` has those of QEMU's controller, with SR-IOV.)

use std::thread;
use upcie_nvme::{
    Address, Controller, Failure, IdentifyQuery,
    spec::{
        PrimaryController, SecondaryController, Status, VirtualResource, VirtualizationAction,
        VirtualizationManagement,
    },
};
use upcie_tests::{
    data::Pattern,
    io::{drive, read},
    process::{Server, running_perf},
    says, scaled,
};

/// The identifiers of the secondary controllers.
const SECONDARY: [u16; 2] = [2, 3];

/// A primary controller with two secondary ones, and the addresses of these.
struct Functions {
    primary: Controller,
    addresses: Vec<Address>,
    /// Present if a server has them.
    _server: Option<Server>,
}

impl Functions {
    fn here(serial: &str) -> Self {
        let primary = Controller::open(format!("emu:size=1M,namespaces=2,vfs=2,serial={serial}")).unwrap();
        let addresses: [Address; 2] =
            [1, 2].map(|number| format!("emu:vf={number},serial={serial}").parse().unwrap());
        Self { primary, addresses: addresses.to_vec(), _server: None }
    }

    fn served() -> Self {
        let server = Server::start_several("size=1M,namespaces=2,vfs=2", 3);
        let mut addresses: Vec<Address> = server.addresses().into_iter().map(Address::from).collect();
        let primary = Controller::open(addresses.remove(0)).unwrap();
        Self { primary, addresses, _server: Some(server) }
    }

    fn open(&self, index: usize) -> Controller {
        Controller::open(&self.addresses[index]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the state, and the flexible resources, of each secondary controller.
    fn states(&self) -> Vec<(u8, u16, u16)> {
        let all = self.primary.secondary_controllers().unwrap();
        all.iter().map(|one| (one.state, one.vq_flexible, one.vi_flexible)).collect()
    }
}

/// Runs a check on controllers of this process, with a serial number that no other test has, and on those of a server.
fn on_each(serial: &str, check: impl Fn(&Functions)) {
    println!("emu");
    check(&Functions::here(serial));
    println!("nvme-emu");
    check(&Functions::served());
}

#[test]
fn the_primary_controller_tells_its_resources_and_controllers() {
    on_each("told", |functions| {
        let primary = &functions.primary;
        let query = IdentifyQuery { controller_id: primary.identify().cntlid, ..Default::default() };
        let has = primary.identify_as::<PrimaryController>(&query).unwrap();
        assert_eq!((has.vq_flexible_total, has.vq_max_of_secondary, has.vq_private), (16, 16, 65));
        assert_eq!((has.vi_flexible_total, has.vi_max_of_secondary, has.vi_private), (16, 16, 65));
        assert!(!primary.release_flexible().unwrap(), "it keeps none for itself");
        let all = primary.secondary_controllers().unwrap();
        let numbers = |one: &SecondaryController| (one.secondary_controller_id, one.virtual_function);
        assert_eq!(all.iter().map(numbers).collect::<Vec<_>>(), [(2, 1), (3, 2)]);
        assert_eq!(functions.states(), [(0, 0, 0); 2]);
    });
}

#[test]
fn two_virtual_functions_are_driven_at_once() {
    let rounds = scaled(100).max(4) as u32;
    on_each("driven", |functions| {
        for id in SECONDARY {
            functions.primary.bring_online(id, 4, 3).unwrap();
        }
        assert_eq!(functions.states(), [(1, 4, 3); 2]);
        let both = [0, 1].map(|index| functions.open(index));
        for (controller, id) in both.iter().zip(SECONDARY) {
            assert_eq!(controller.identify().cntlid, id);
            // One queue pair of four is the admin queue's.
            assert_eq!((controller.max_queue_pairs(), controller.vectors().unwrap()), (3, 3));
        }
        thread::scope(|scope| {
            for (controller, nsid) in both.iter().zip([1, 2]) {
                scope.spawn(move || drive(controller, nsid, rounds));
            }
        });
        // The other one, and the primary controller, read what each has written.
        for (nsid, reader) in [(1, &both[1]), (2, &both[0]), (1, &functions.primary), (2, &functions.primary)]
        {
            let namespace = reader.namespace(nsid).unwrap();
            Pattern::of(&namespace).verify(&read(reader, &namespace, 0, 64), 0, rounds);
        }
    });
}

#[test]
fn a_virtual_function_is_failed_until_it_is_online() {
    on_each("failed", |functions| {
        let offline = || Controller::open(&functions.addresses[1]).unwrap_err();
        says(&offline(), &["online", "Virtualization Management"]);
        functions.primary.bring_online(3, 2, 1).unwrap();
        let controller = functions.open(1);
        assert_eq!((controller.max_queue_pairs(), controller.vectors().unwrap()), (1, 1));
        drive(&controller, 1, 1);
        drop(controller);
        functions.primary.take_offline(3).unwrap();
        says(&offline(), &["online", "Virtualization Management"]);
        assert_eq!(functions.states(), [(0, 0, 0); 2]);
    });
}

#[test]
fn resources_that_are_not_there_are_refused_with_the_numbers() {
    on_each("refused", |functions| {
        let primary = &functions.primary;
        let refusal = |id, queues, interrupts| {
            let error = primary.bring_online(id, queues, interrupts).unwrap_err();
            assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
            error
        };
        says(&refusal(2, 17, 1), &["16 queue pairs (VQ) at most", "17 are wanted"]);
        says(&refusal(2, 2, 17), &["16 interrupt vectors (VI) at most"]);
        primary.bring_online(2, 10, 9).unwrap();
        says(&refusal(3, 7, 1), &["7 queue pairs (VQ) are wanted, and 6 of 16 are free"]);
        says(&refusal(3, 6, 8), &["8 interrupt vectors (VI) are wanted, and 7 of 16 are free"]);
        for (queues, interrupts) in [(1, 1), (2, 0)] {
            let error = primary.bring_online(3, queues, interrupts).unwrap_err();
            assert_eq!(error.status(), Some(Status::INVALID_SECONDARY_STATE), "{error}");
        }
    });
}

#[test]
fn each_wrong_command_has_its_status() {
    on_each("status", |functions| {
        let primary = &functions.primary;
        primary.bring_online(2, 2, 1).unwrap();
        let (queues, none) = (VirtualResource::QUEUES, VirtualResource::default());
        for (action, controller, resource, number, wanted) in [
            (VirtualizationAction::SECONDARY_OFFLINE, 1, none, 0, Status::INVALID_CONTROLLER_ID),
            (VirtualizationAction::SECONDARY_ONLINE, 4, none, 0, Status::INVALID_CONTROLLER_ID),
            (VirtualizationAction::PRIMARY_FLEXIBLE, 2, queues, 0, Status::INVALID_CONTROLLER_ID),
            (VirtualizationAction::SECONDARY_ASSIGN, 2, queues, 2, Status::INVALID_SECONDARY_STATE),
            (VirtualizationAction::SECONDARY_ONLINE, 3, none, 0, Status::INVALID_SECONDARY_STATE),
            (VirtualizationAction::SECONDARY_ASSIGN, 3, queues, 15, Status::INVALID_RESOURCE_COUNT),
            (VirtualizationAction::PRIMARY_FLEXIBLE, 1, queues, 17, Status::INVALID_RESOURCE_COUNT),
            (VirtualizationAction::SECONDARY_ASSIGN, 3, VirtualResource(2), 1, Status::INVALID_RESOURCE_ID),
            (VirtualizationAction(3), 3, none, 0, Status::INVALID_FIELD),
        ] {
            let command = VirtualizationManagement { action, controller, resource, number };
            let error = primary.execute(&command).unwrap_err();
            assert_eq!(error.status(), Some(wanted), "{command:?}: {error}");
        }
        assert_eq!(functions.states(), [(1, 2, 1), (0, 0, 0)], "they changed nothing");
    });
}

#[test]
fn a_virtual_function_that_is_turned_off_fails_and_keeps_its_data() {
    on_each("data", |functions| {
        functions.primary.bring_online(2, 2, 1).unwrap();
        let controller = functions.open(0);
        controller.namespace(1).unwrap().write_at(0, b"kept").unwrap();
        functions.primary.take_offline(2).unwrap();
        let error = controller.namespace(1).unwrap_err();
        says(&error, &["CSTS.CFS"]);
        drop(controller);
        functions.primary.bring_online(2, 3, 2).unwrap();
        let mut back = [0; 4];
        functions.open(0).namespace(1).unwrap().read_at(0, &mut back).unwrap();
        assert_eq!(&back, b"kept");
    });
}

#[test]
fn a_virtual_function_is_turned_off_under_the_program_that_uses_it() {
    let functions = Functions::served();
    for id in SECONDARY {
        functions.primary.bring_online(id, 4, 3).unwrap();
    }
    let perf = running_perf(&functions.addresses[0].to_string());
    functions.primary.take_offline(2).unwrap();
    let (status, errors) = perf.finish();
    assert!(!status.success(), "{errors}");
    // The other controllers go on.
    drive(&functions.open(1), 1, 2);
    drive(&functions.primary, 2, 2);
    functions.primary.bring_online(2, 2, 1).unwrap();
    drive(&functions.open(0), 1, 2);
}

/// Base, "Secondary Controller States".
#[test]
fn a_reset_of_the_primary_controller_turns_the_others_off() {
    on_each("reset", |functions| {
        functions.primary.bring_online(2, 2, 1).unwrap();
        drive(&functions.open(0), 1, 1);
        functions.primary.reset().unwrap();
        assert_eq!(functions.states(), [(0, 0, 0); 2]);
        says(&Controller::open(&functions.addresses[0]).unwrap_err(), &["Virtualization Management"]);
    });
}
