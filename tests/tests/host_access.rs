//! Paths to a namespace: the controller's access to it, and commands that the path fails.

use upcie_nvme::{
    Controller,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::{AccessState, NvmOpcode, Status},
};
use upcie_tests::says;

#[test]
fn the_access_to_a_namespace_is_told() {
    for (text, state) in [
        ("optimized", AccessState::OPTIMIZED),
        ("non-optimized", AccessState::NON_OPTIMIZED),
        ("inaccessible", AccessState::INACCESSIBLE),
        ("persistent-loss", AccessState::PERSISTENT_LOSS),
        ("change", AccessState::CHANGE),
    ] {
        let controller = Controller::open(format!("emu:size=1M,ana={text},serial=ACCESS")).unwrap();
        assert_eq!(controller.namespace(1).unwrap().access_state().unwrap(), Some(state), "{text}");
    }
    let alone = Controller::open("emu:size=1M,serial=ALONE").unwrap();
    assert_eq!(alone.namespace(1).unwrap().access_state().unwrap(), None);
}

/// The statuses of a path were like any other: a program could not tell when to take another one, and when never to come back.
#[test]
fn a_path_that_fails_a_command_is_told_from_other_failures() {
    for (status, is_retryable) in [
        (Status::ANA_INACCESSIBLE, true),
        (Status::ANA_TRANSITION, true),
        (Status::ANA_PERSISTENT_LOSS, false),
        (Status::INTERNAL_PATH_ERROR.with_do_not_retry(), false),
    ] {
        let fails = FaultRule::new(Fault::Status(status)).opcode(NvmOpcode::READ.0).count(1);
        let options = "size=1M,serial=PATH".parse().unwrap();
        let device = spawn_with_faults(&options, &FaultPlan::new(1).rule(fails)).unwrap();
        let controller = Controller::builder().from_device(device).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut buffer = controller.alloc(512).unwrap();
        let error = namespace.read(0, &mut buffer).unwrap_err();
        assert_eq!((error.status(), error.is_path_related()), (Some(status), true), "{error}");
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
        says(&error, &[controller.name(), status.name().unwrap()]);
        namespace.read(0, &mut buffer).unwrap();
        let error = namespace.read(namespace.blocks(), &mut buffer).unwrap_err();
        assert!(!error.is_path_related(), "{error}");
    }
}
