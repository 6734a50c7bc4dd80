//! Virtual functions (SR-IOV) of a controller that is not ours, from their making to their end: QEMU's controller F.

use nix::sys::signal::Signal;
use std::{fs, process::Command, sync::Mutex, sync::MutexGuard, sync::PoisonError, thread};
use upcie_core::pci::{Bdf, Binder, Function};
use upcie_nvme::{Controller, ErrorKind, Failure, spec::SecondaryController};
use upcie_tests::{
    data::Pattern,
    in_guest,
    io::{drive, read},
    process::{Process, programs},
    says, scaled,
};

/// Controller F, and its virtual functions.
const BDF: &str = "0000:06:00.0";
const VIRTUAL: [&str; 2] = ["0000:06:00.1", "0000:06:00.2"];
/// The token that all users share here, and another one.
const TOKEN: &str = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
const OTHER: &str = "00000000-5a5f-4f5a-a211-f591514ba1f3";
/// vfio-pci's switch.
const ENABLE: &str = "/sys/module/vfio_pci/parameters/enable_sriov";

fn function(bdf: &str) -> Function {
    Function::at(bdf.parse().unwrap()).unwrap()
}

/// The physical function, bound to vfio-pci and without virtual functions when a test begins and when it ends.
struct Turn {
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(in_guest(), "guest_ suites run in the guest only");
        let function = function(BDF);
        if function.driver.as_deref() != Some("vfio-pci") {
            Binder::new().bind(&function, "vfio-pci").unwrap();
        }
        fs::write(ENABLE, "1").unwrap();
        Self { _turn: turn }
    }

    /// Opens the physical function, whose controller keeps no resource that others could have.
    fn primary() -> Controller {
        let open = || Controller::open(format!("vfio:{BDF},token={TOKEN}")).unwrap();
        let controller = open();
        if !controller.release_flexible().unwrap() {
            return controller;
        }
        drop(controller);
        open()
    }

    /// Makes the virtual functions, and opens the primary controller with their own controllers offline.
    fn two() -> (Controller, Vec<SecondaryController>) {
        let primary = Self::primary();
        let made = Binder::new().set_virtual_functions(&function(BDF), 2).unwrap();
        let wanted: Vec<Bdf> = VIRTUAL.iter().map(|bdf| bdf.parse().unwrap()).collect();
        assert_eq!(made, wanted);
        let secondary = primary.secondary_controllers().unwrap();
        assert_eq!(secondary.iter().map(|one| one.virtual_function).collect::<Vec<_>>(), [1, 2]);
        assert!(secondary.iter().all(|one| one.state == 0), "{secondary:?}");
        (primary, secondary)
    }

    /// Makes the virtual functions, and turns their controllers on.
    fn online() -> Controller {
        let (primary, secondary) = Self::two();
        for one in &secondary {
            primary.bring_online(one.secondary_controller_id, 4, 3).unwrap();
        }
        let secondary = primary.secondary_controllers().unwrap();
        let all = secondary.iter().map(|one| (one.state, one.vq_flexible, one.vi_flexible));
        assert_eq!(all.collect::<Vec<_>>(), [(1, 4, 3); 2]);
        primary
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let removed = Binder::new().set_virtual_functions(&function(BDF), 0);
        if thread::panicking() {
            eprintln!("{removed:?}");
        } else {
            assert_eq!(removed.unwrap(), []);
        }
        fs::write(ENABLE, "0").unwrap();
    }
}

fn open(scheme: &str, bdf: &str) -> Controller {
    Controller::open(format!("{scheme}{bdf},token={TOKEN}")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn two_virtual_functions_are_driven_at_once() {
    let turn = Turn::take();
    let primary = Turn::online();
    let rounds = scaled(400).max(4) as u32;
    let both: Vec<Controller> = VIRTUAL.iter().map(|bdf| open("vfio:", bdf)).collect();
    for (index, controller) in both.iter().enumerate() {
        // One queue pair of four is the admin queue's.
        assert_eq!(controller.max_queue_pairs(), 3, "{}", controller.name());
        assert_eq!(controller.name(), format!("vfio:{}", VIRTUAL[index]), "the token is a secret");
    }
    thread::scope(|scope| {
        for (controller, nsid) in both.iter().zip([1, 2]) {
            scope.spawn(move || drive(controller, nsid, rounds));
        }
    });
    // The other one, and the physical function, read what each has written.
    for (nsid, reader) in [(1, &both[1]), (2, &both[0]), (1, &primary), (2, &primary)] {
        let namespace = reader.namespace(nsid).unwrap();
        Pattern::of(&namespace).verify(&read(reader, &namespace, 0, 64), 0, rounds);
    }
    drop(both);
    drop(primary);
    drop(turn);
}

#[test]
fn a_virtual_function_takes_the_iommufd_too() {
    let _turn = Turn::take();
    let primary = Turn::online();
    let [one, two] = ["iommufd:", ""].map(|scheme| open(scheme, VIRTUAL[usize::from(scheme.is_empty())]));
    drive(&one, 1, 2);
    drive(&two, 2, 2);
    drop((one, two, primary));
}

#[test]
fn a_virtual_function_needs_the_token_of_its_physical_function() {
    let _turn = Turn::take();
    let primary = Turn::online();
    let refusal = |address: String| {
        let error = Controller::open(&address).expect_err(&address);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        error
    };
    let one = VIRTUAL[0];
    says(&refusal(format!("vfio:{one}")), &[one, BDF, "VF token", &format!("vfio:{one},token=UUID")]);
    says(&refusal(format!("vfio:{one},token={OTHER}")), &[one, BDF, "not the one"]);
    drop(open("vfio:", one));
    drop(primary);
    // A function without SR-IOV has no token.
    says(&refusal(format!("vfio:0000:01:00.0,token={TOKEN}")), &["0000:01:00.0", "takes no VF token"]);
}

#[test]
fn a_virtual_function_is_failed_until_it_is_online() {
    let _turn = Turn::take();
    let (primary, secondary) = Turn::two();
    let address = format!("vfio:{},token={TOKEN}", VIRTUAL[0]);
    let error = Controller::open(&address).unwrap_err();
    says(&error, &[VIRTUAL[0], "online", "Virtualization Management"]);
    let id = secondary[0].secondary_controller_id;
    primary.bring_online(id, 2, 1).unwrap();
    let controller = Controller::open(&address).unwrap();
    assert_eq!(controller.max_queue_pairs(), 1);
    drive(&controller, 1, 1);
    drop(controller);
    primary.take_offline(id).unwrap();
    assert!(Controller::open(&address).is_err(), "it is off again");
    drop(primary);
}

#[test]
fn resources_that_are_not_there_are_refused_with_the_numbers() {
    let _turn = Turn::take();
    let (primary, secondary) = Turn::two();
    let id = secondary[0].secondary_controller_id;
    let refusal = |queues, interrupts| {
        let error = primary.bring_online(id, queues, interrupts).unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
        error
    };
    says(&refusal(5, 1), &[BDF, "4 queue pairs (VQ) at most", "5 are wanted"]);
    says(&refusal(4, 4), &[BDF, "3 interrupt vectors (VI) at most"]);
    let error = primary.bring_online(id, 1, 1).unwrap_err();
    assert!(error.status().is_some(), "the controller wants two: {error}");
    let error = Binder::new().set_virtual_functions(&function(BDF), 3).unwrap_err();
    says(&error, &[BDF, "it can have 2 virtual functions"]);
    drop(primary);
}

#[test]
fn virtual_functions_are_made_only_where_vfio_is_told_to() {
    let _turn = Turn::take();
    fs::write(ENABLE, "0").unwrap();
    let error = Binder::new().set_virtual_functions(&function(BDF), 1).unwrap_err();
    says(&error, &[BDF, "echo 1 >", "enable_sriov"]);
    let error = Binder::new().set_virtual_functions(&function("0000:05:00.0"), 1).unwrap_err();
    says(&error, &["0000:05:00.0", "no SR-IOV"]);
}

#[test]
fn a_virtual_function_in_use_is_not_removed() {
    let _turn = Turn::take();
    let primary = Turn::online();
    let one = open("vfio:", VIRTUAL[0]);
    let error = Binder::new().set_virtual_functions(&function(BDF), 0).unwrap_err();
    says(&error, &[VIRTUAL[0], "this process has it open"]);
    drive(&one, 1, 1);
    drop((one, primary));
}

#[test]
fn the_tool_provides_virtual_functions_until_it_is_interrupted() {
    let _turn = Turn::take();
    let mut command = Command::new(programs().join("upcie"));
    command.args(["virt", BDF, "provide", "--functions", "2", "--destructive"]);
    let mut tool = Process::start(command);
    let addresses = VIRTUAL.map(|bdf| {
        let line = tool.wait_for(bdf).unwrap();
        assert!(line.contains("has 4 queue pairs and 3 interrupt vectors"), "{line}");
        line.rsplit(' ').next().unwrap().to_owned()
    });
    let both = addresses.each_ref().map(|address| Controller::open(address).unwrap());
    thread::scope(|scope| {
        for (controller, nsid) in both.iter().zip([1, 2]) {
            scope.spawn(move || drive(controller, nsid, 2));
        }
    });
    drop(both);
    tool.signal(Signal::SIGINT);
    let (status, errors) = tool.finish();
    assert!(status.success(), "{status}: {errors}");
    assert_eq!(function(BDF).virtual_functions().unwrap(), []);
}

/// The tool removes at its end the virtual functions that it made, and those of others would go with them.
#[test]
fn the_tool_refuses_virtual_functions_of_others() {
    let _turn = Turn::take();
    let made = Binder::new().set_virtual_functions(&function(BDF), 1).unwrap();
    assert_eq!(made, [VIRTUAL[0].parse::<Bdf>().unwrap()]);
    let mut command = Command::new(programs().join("upcie"));
    command.args(["virt", BDF, "provide", "--functions", "2", "--destructive"]);
    let (status, errors) = Process::start(command).finish();
    assert_eq!(status.code(), Some(1), "{errors}");
    for part in [BDF, "has virtual functions already", VIRTUAL[0], "sriov_numvfs"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(function(BDF).virtual_functions().unwrap(), made, "they are still there");
}
