//! Copies of blocks of other namespaces of the controller (source ranges of formats 2 and 3), and what they need.

use upcie_nvme::{
    Controller, Error, Failure, QueuePair, Refusal, Wait,
    protection::{Checks, Protect},
    spec::{Command, CopyDword12, CopyRange, NvmOpcode, Status},
};
use upcie_tests::{deadline, says};

fn open(options: &str) -> Controller {
    let builder = Controller::builder().copy_between_namespaces(true);
    builder.open(format!("emu:{options}")).unwrap()
}

#[track_caller]
fn refused(error: &Error, wanted: Refusal) {
    assert!(matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted), "{error}");
}

/// Returns the status of the one command in flight.
fn status(queue: &mut QueuePair<u64>) -> Status {
    assert!(queue.wait(Wait::Poll, deadline()).unwrap());
    let done = queue.turn().unwrap().next().unwrap();
    done.status()
}

/// Returns bytes that differ from block to block, and from `kind` to `kind`.
fn bytes(len: usize, kind: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 512 * 7 + at + kind) as u8).collect()
}

#[test]
fn blocks_of_other_namespaces_are_copied() {
    let controller = open("size=4M,namespaces=3,serial=BETWEEN");
    // The second round has the feature set again by a reset.
    for round in 0..2 {
        let [first, second, third] = [1, 2, 3].map(|nsid| controller.namespace(nsid).unwrap());
        // More than the controller copies in one step.
        let (long, short, own) = (bytes(3 << 20, round), bytes(4096, 90 + round), bytes(4096, 180 + round));
        first.write_at(0, &long).unwrap();
        second.write_at(512, &short).unwrap();
        third.write_at(16 * 512, &own).unwrap();
        let sources = [
            CopyRange::new(0, 2048).of_namespace(1),
            CopyRange::new(1, 8).of_namespace(2),
            CopyRange::new(16, 8),
            CopyRange::new(2048, 2048).of_namespace(1),
        ];
        let wanted = [&long[..1 << 20], &short, &own, &long[1 << 20..2 << 20]].concat();
        third.copy(&sources, 1024).unwrap();
        let mut read = vec![0; wanted.len()];
        third.read_at(1024 * 512, &mut read).unwrap();
        assert!(read == wanted, "round {round}");

        let mut queue = controller.queue_pair().create::<u64>().unwrap();
        let ranges = controller.alloc(4096).unwrap();
        queue.turn().unwrap().copy_between(&second, &sources[..1], ranges, 64, 1).unwrap();
        assert_eq!(status(&mut queue), Status::SUCCESS);
        let mut read = vec![0; 1 << 20];
        second.read_at(64 * 512, &mut read).unwrap();
        assert!(read == long[..1 << 20], "round {round}");
        queue.close().unwrap();
        controller.reset().unwrap();
    }
}

#[test]
fn protection_is_checked_where_it_comes_from_and_made_where_it_goes() {
    for (options, name) in [("ms=8,pi=1", "GUARD16"), ("ms=16,pi=1,guard=64", "GUARD64")] {
        let controller = open(&format!("size=1M,namespaces=2,{options},serial={name}"));
        let [from, to] = [1, 2].map(|nsid| controller.namespace(nsid).unwrap());
        let mut data = controller.alloc(16 * 512).unwrap();
        data.write_at(0, &bytes(16 * 512, 3));
        from.write(8, &mut data).unwrap();
        let mut queue = controller.queue_pair().create::<u64>().unwrap();
        let mut copy = |check: Protect| {
            let sources = [(CopyRange::new(8, 16).of_namespace(1), check)];
            let ranges = controller.alloc(4096).unwrap();
            let target = Protect::new().action();
            queue.turn().unwrap().copy_protected(&to, &sources, ranges, 256, target, 1).unwrap();
            status(&mut queue)
        };
        let check = Protect::new().check(Checks::GUARD | Checks::REFERENCE_TAG);
        assert_eq!(copy(check), Status::SUCCESS, "{options}");
        // The controller checks the reference tags of the new place.
        let mut read = controller.alloc(16 * 512).unwrap();
        to.read(256, &mut read).unwrap();
        assert!(read.to_vec() == data.to_vec(), "{options}");
        let wrong = check.check(Checks::APPLICATION_TAG).application_tag(1);
        assert_eq!(copy(wrong), Status::APPLICATION_TAG_CHECK_ERROR, "{options}");
    }
}

#[test]
fn copies_that_can_not_be_are_refused_with_the_reason() {
    let plain = Controller::open("emu:size=1M,namespaces=2,serial=WITHIN").unwrap();
    let target = plain.namespace(2).unwrap();
    let range = CopyRange::new(0, 8).of_namespace(1);
    let error = target.copy(&[range], 0).unwrap_err();
    refused(&error, Refusal::CopyFormat);
    says(&error, &["Copy (19h) of 1 ranges to block 0 of namespace 2", "copy_between_namespaces"]);
    // The controller says so, too.
    let dword = CopyDword12::new().with_desfmt(2);
    let mut copy = Command::io(NvmOpcode::COPY, 2);
    copy.cdw12 = dword.into_bits();
    let error = plain.io(&copy, &mut range.to_bytes(), deadline()).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD));

    let mixed = open("size=1M,namespaces=3,lba=512+4096+512,serial=MIXED");
    let target = mixed.namespace(3).unwrap();
    target.copy(&[range], 64).unwrap();
    for (nsid, slba, wanted) in [
        (2, 0, Status::INCOMPATIBLE_NAMESPACE_OR_FORMAT),
        (9, 0, Status::INVALID_NAMESPACE_OR_FORMAT),
        (1, 2047, Status::LBA_OUT_OF_RANGE),
    ] {
        let error = target.copy(&[CopyRange::new(slba, 8).of_namespace(nsid)], 64).unwrap_err();
        assert_eq!(error.status(), Some(wanted), "namespace {nsid}");
    }
}
