//! Memory of a controller that its registers restrict: what is not allowed there is refused with the register's name.

use upcie_nvme::{
    Controller, DmaBuf, Failure, Refusal,
    spec::{CmbLocation, CmbSize},
};
use upcie_tests::{
    device::namespaces,
    io::create,
    own_memory::{Told, open_with},
    says,
};

const ALL: CmbSize = CmbSize::new().with_sqs(true).with_rds(true).with_wds(true);

fn told(size: CmbSize) -> Told {
    Told { size, ..Told::default() }
}

#[test]
fn a_controller_without_a_cmb_says_so() {
    let controller = Controller::open("emu:size=1M").unwrap();
    assert!(controller.cmb().unwrap().is_none() && !controller.capabilities().cmbs());
    let refused = controller.queue_pair().submission_in_controller(true).create::<()>().unwrap_err();
    says(&refused, &[controller.name(), "it has no memory buffer", "CAP.CMBS"]);
}

#[test]
fn a_cmb_without_data_gives_no_buffers() {
    let controller = open_with("size=1M", told(ALL.with_rds(false).with_wds(false)));
    let memory = controller.cmb().unwrap().expect("a memory buffer");
    let error = memory.alloc(4096).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
    says(&error, &[controller.name(), "CMBSZ.RDS", "use memory of the host"]);
    // It still takes submission queues.
    let (namespace, _) = namespaces(&controller).remove(0);
    let mut queue = create::<u64>(controller.queue_pair().submission_in_controller(true));
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(upcie_tests::io::only(&mut queue).0, 1);
}

#[test]
fn a_direction_that_the_cmb_lacks_is_refused() {
    let controller = open_with("size=1M", told(ALL.with_wds(false)));
    let memory = controller.cmb().unwrap().expect("a memory buffer");
    let (namespace, _) = namespaces(&controller).remove(0);
    let mut queue = create::<u64>(controller.queue_pair());
    let buffer: DmaBuf = memory.alloc(4096).unwrap();
    let refused = queue.turn().unwrap().write(&namespace, 0, buffer, 1).unwrap_err();
    assert_ne!(refused.reason, Refusal::Full);
    let mut buffer = refused.buffer;
    namespace.write(0, &mut buffer).unwrap_err();
    namespace.read(0, &mut buffer).unwrap();
}

#[test]
fn a_cmb_that_takes_no_queue_refuses_one() {
    let in_one = CmbLocation::new();
    for (told, register) in [
        (told(ALL.with_sqs(false)), "CMBSZ.SQS"),
        (Told { location: in_one, ..Told::default() }, "CMBLOC.CDPCILS"),
    ] {
        let controller = open_with("size=1M", told);
        let refused = controller.queue_pair().submission_in_controller(true).create::<()>().unwrap_err();
        says(&refused, &[controller.name(), register]);
    }
}

#[test]
fn a_pmr_whose_writes_failed_says_so() {
    let controller = open_with("size=1M", Told { region_error: 1, ..Told::default() });
    let region = controller.pmr().unwrap().expect("a persistent memory region");
    let error = region.flush().unwrap_err();
    says(&error, &[controller.name(), "persistent memory region", "may be lost"]);
}
