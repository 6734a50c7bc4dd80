//! Blocking calls of the optional commands of blocks: Compare, Verify, Write Uncorrectable and Copy, also beyond the limits of
//! one command.

use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, IoFlags, Namespace, Refusal, Wait, Zeroes,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    protection::{Checks, Protect},
    spec::{ALL_NAMESPACES, CopyRange, DatasetDword11, DatasetRange, NvmOpcode, Status, Version},
};
use upcie_tests::{deadline, says};

fn open(options: &str) -> (Controller, Namespace) {
    let controller = Controller::open(format!("emu:{options}")).unwrap();
    let namespace = controller.namespace(1).unwrap();
    (controller, namespace)
}

/// Makes a buffer whose bytes count on from `first`.
fn counted(controller: &Controller, len: usize, first: usize) -> DmaBuf {
    let mut buffer = controller.alloc(len).unwrap();
    let bytes: Vec<u8> = (first..first + len).map(|number| (number / 512 * 7 + number) as u8).collect();
    buffer.write_at(0, &bytes);
    buffer
}

#[track_caller]
fn refused(error: &Error, wanted: Refusal) {
    assert!(matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted), "{error}");
}

/// Blocks of more than one command.
const MANY: u64 = 70_000;

#[test]
fn comparisons_of_several_commands_find_each_difference() {
    let (controller, namespace) = open("size=1M,mdts=16K");
    let mut data = counted(&controller, 64 << 10, 3);
    namespace.write(8, &mut data).unwrap();
    assert!(namespace.compare(8, &mut data).unwrap());
    for at in [0, 20_000, 65_535] {
        let before = data.to_vec()[at];
        data.write_at(at, &[!before]);
        assert!(!namespace.compare(8, &mut data).unwrap(), "byte {at}");
        data.write_at(at, &[before]);
    }
    assert!(namespace.compare(8, &mut data).unwrap(), "the buffer came back each time");
    refused(&namespace.compare(namespace.blocks() - 1, &mut data).unwrap_err(), Refusal::OutOfRange);
    let mut part = controller.alloc(513).unwrap();
    let error = namespace.compare(0, &mut part).unwrap_err();
    refused(&error, Refusal::Length);
    says(&error, &["Compare (05h) of 513 bytes at block 0 of namespace 1"]);
    let (controller, apart) = open("size=1M,ms=8");
    let mut data = counted(&controller, 4096, 0);
    refused(&apart.compare(0, &mut data).unwrap_err(), Refusal::Metadata);
}

/// The reference tag that a caller has set counts on from command to command.
#[test]
fn verifications_of_several_commands_count_reference_tags() {
    let (controller, namespace) = open("size=64M,ms=8,pi=2");
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    let (made, mut done) = (Protect::new().action().application_tag(5), 0);
    while done < MANY {
        let count = (MANY - done).min(namespace.max_write_zeroes().into());
        let zeroes = Zeroes::new(&namespace, done, count as u32).protect(made.reference_tag(1000 + done));
        queue.turn().unwrap().write_zeroes(zeroes, done).unwrap();
        assert!(queue.wait(Wait::Poll, deadline()).unwrap());
        queue.turn().unwrap().next().unwrap().result().unwrap();
        done += count;
    }
    let checked = Protect::new().check(Checks::all()).application_tag(5);
    namespace.verify(0, MANY, checked.reference_tag(1000)).unwrap();
    namespace.verify(0, namespace.blocks(), None).unwrap();
    let error = namespace.verify(0, MANY, checked.reference_tag(1001)).unwrap_err();
    assert_eq!(error.status(), Some(Status::REFERENCE_TAG_CHECK_ERROR));
    says(&error, &["Verify (0Ch) of 70000 blocks from block 0 on of namespace 1"]);
    refused(&namespace.verify(1, namespace.blocks(), None).unwrap_err(), Refusal::OutOfRange);
    refused(&namespace.verify(0, 0, None).unwrap_err(), Refusal::Length);
    let (_controller, plain) = open("size=1M");
    refused(&plain.verify(0, 1, checked).unwrap_err(), Refusal::Unprotected);
}

#[test]
fn blocks_are_unreadable_until_they_are_written() {
    let (controller, namespace) = open("size=64M");
    namespace.write_uncorrectable(100, MANY).unwrap();
    let mut buffer = controller.alloc(512).unwrap();
    for (slba, is_readable) in [(99, true), (100, false), (99 + MANY, false), (100 + MANY, true)] {
        let read = namespace.read(slba, &mut buffer);
        let status = read.err().and_then(|error| error.status());
        assert_eq!(status, (!is_readable).then_some(Status::UNRECOVERED_READ_ERROR), "block {slba}");
    }
    let error = namespace.verify(0, 1000, None).unwrap_err();
    assert_eq!(error.status(), Some(Status::UNRECOVERED_READ_ERROR));
    namespace.write(100, &mut buffer).unwrap();
    namespace.read(100, &mut buffer).unwrap();
    let last = namespace.blocks() - 1;
    refused(&namespace.write_uncorrectable(last, 2).unwrap_err(), Refusal::OutOfRange);
}

/// Limits that a controller of version 2.1 reports beside MDTS (WZSL, VSL, WUSL): it fails commands beyond them.
#[test]
fn calls_beyond_the_limits_of_version_2_1_are_several_commands() {
    let (controller, namespace) = open("size=64M,version=2.1,serial=LIMITS");
    assert_eq!(controller.version(), Version::of(2, 1, 0));
    assert_eq!(namespace.max_write_zeroes(), 16_384);
    let whole = u64::from(namespace.max_write_zeroes());
    let places = [whole - 8, 2 * whole - 8, MANY];
    for slba in places {
        namespace.write(slba, &mut counted(&controller, 8192, 1)).unwrap();
    }
    namespace.write_zeroes(0, MANY).unwrap();
    for slba in places {
        let mut data = controller.alloc(8192).unwrap();
        namespace.read(slba, &mut data).unwrap();
        assert_eq!(data.to_vec().iter().all(|&byte| byte == 0), slba < MANY, "block {slba}");
    }
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    let long = Zeroes::new(&namespace, 0, 16_385);
    let refused = queue.turn().unwrap().write_zeroes(long, 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::TooLong);
    namespace.verify(0, MANY, None).unwrap();
    namespace.write_uncorrectable(0, MANY).unwrap();
    let error = namespace.verify(MANY - 1, 1, None).unwrap_err();
    assert_eq!(error.status(), Some(Status::UNRECOVERED_READ_ERROR));
    namespace.verify(MANY, 16, None).unwrap();
}

/// Commands that crossed the end of a zone failed, and so did those that overtook others on their way to a zone.
#[test]
fn calls_of_several_commands_go_zone_by_zone() {
    let (controller, namespace) = open("size=1M,zoned=true,zone-size=64K,mdts=16K");
    let zone = 128;
    let mut data = counted(&controller, 128 << 10, 5);
    namespace.write(0, &mut data).unwrap();
    let mut part = controller.alloc(32 << 10).unwrap();
    namespace.read(zone - 28, &mut part).unwrap();
    assert!(namespace.compare(zone - 28, &mut part).unwrap());
    part.write_at(32_767, &[!part.to_vec()[32_767]]);
    assert!(!namespace.compare(zone - 28, &mut part).unwrap());
    namespace.verify(0, namespace.blocks(), None).unwrap();

    // The second call goes on where the first one has moved a write pointer.
    namespace.write_uncorrectable(2 * zone, zone + 10).unwrap();
    namespace.write_uncorrectable(3 * zone + 10, zone).unwrap();
    let mut buffer = controller.alloc(512).unwrap();
    for (slba, is_readable) in [(2 * zone - 1, true), (2 * zone, false), (4 * zone + 9, false)] {
        let status = namespace.read(slba, &mut buffer).err().and_then(|error| error.status());
        assert_eq!(status, (!is_readable).then_some(Status::UNRECOVERED_READ_ERROR), "block {slba}");
    }
}

#[test]
fn ranges_are_copied_one_after_the_other() {
    let (controller, namespace) = open("size=16M,fdp=true,fdp-unit=64K");
    let mut data = counted(&controller, 8192, 0);
    namespace.write(0, &mut data).unwrap();
    let bytes = data.to_vec();
    namespace.copy(&[CopyRange::new(8, 8), CopyRange::new(0, 4)], 512).unwrap();
    let mut copied = controller.alloc(12 * 512).unwrap();
    namespace.read(512, &mut copied).unwrap();
    assert_eq!(copied.to_vec(), [&bytes[4096..], &bytes[..2048]].concat());

    let placement = namespace.placement().unwrap();
    namespace.copy_placed(&[CopyRange::new(0, 3)], 1024, placement.identifier(0, 4)).unwrap();
    assert_eq!(placement.handles().unwrap()[4].available_media_writes, 128 - 3);

    refused(&namespace.copy(&[], 512).unwrap_err(), Refusal::Length);
    let many = vec![CopyRange::new(0, 1); CopyRange::MOST + 1];
    let error = namespace.copy(&many, 512).unwrap_err();
    refused(&error, Refusal::Length);
    says(&error, &["Copy (19h) of 257 ranges to block 512 of namespace 1"]);
    refused(&namespace.copy(&many[..1], namespace.blocks()).unwrap_err(), Refusal::OutOfRange);
    // One range of more blocks than the controller takes.
    let error = namespace.copy(&[CopyRange::new(0, 4096)], 8192).unwrap_err();
    refused(&error, Refusal::CopyLimits);
    refused(&namespace.copy(&many[..129], 8192).unwrap_err(), Refusal::CopyLimits);
    says(&error, &["MSRC, MSSRL, MCL", "make several of it"]);
}

/// The first blocks of a write that failed were written, and the error named the whole write alone.
#[test]
fn a_failed_part_of_a_write_is_named() {
    let failing = |opcode: NvmOpcode| FaultRule::new(Fault::Status(Status::WRITE_FAULT)).opcode(opcode.0);
    let plan = FaultPlan::new(1)
        .rule(failing(NvmOpcode::WRITE).lba(72..=72))
        .rule(failing(NvmOpcode::WRITE_ZEROES).lba(100_000..=100_000))
        .rule(failing(NvmOpcode::DATASET_MANAGEMENT).after(1));
    let options = "size=64M,mdts=16K,serial=PARTS".parse().unwrap();
    let controller = Controller::builder().from_device(spawn_with_faults(&options, &plan).unwrap()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    // Four commands, the third of which fails.
    let mut data = counted(&controller, 64 << 10, 1);
    let error = namespace.write(8, &mut data).unwrap_err();
    assert_eq!(error.status(), Some(Status::WRITE_FAULT));
    says(&error, &["Write (01h) of 65536 bytes at block 8 of namespace 1, in the part from byte 32768 on"]);
    let mut read = controller.alloc(32 << 10).unwrap();
    namespace.read(8, &mut read).unwrap();
    assert!(read.to_vec() == data.to_vec()[..32 << 10], "the parts before it were written");
    // One command alone has no parts.
    let mut one = counted(&controller, 16 << 10, 1);
    let error = namespace.write(72, &mut one).unwrap_err();
    assert!(!error.to_string().contains("part"), "{error}");

    let error = namespace.write_zeroes(0, namespace.blocks()).unwrap_err();
    let size = u64::from(namespace.max_write_zeroes());
    let at = 100_000 / size * size * 512;
    says(&error, &[&format!("in the part from byte {at} on (other parts may have been carried out)")]);

    let ranges: Vec<_> = (0..300).map(|number| DatasetRange::new(number * 8, 8)).collect();
    let error = namespace.deallocate(&ranges).unwrap_err();
    says(&error, &["of 300 ranges of namespace 1, in the part from range 256 on"]);
}

#[test]
fn ranges_are_managed_with_each_attribute() {
    let (controller, namespace) = open("size=1M,serial=DATASET");
    let mut data = counted(&controller, 8192, 7);
    namespace.write(0, &mut data).unwrap();
    let ranges = [DatasetRange::new(0, 4), DatasetRange::new(8, 4)];
    let read = || {
        let mut read = controller.alloc(8192).unwrap();
        namespace.read(0, &mut read).unwrap();
        read.to_vec()
    };
    // Hints change nothing.
    let hints = DatasetDword11::new().with_idr(true).with_idw(true);
    namespace.manage_dataset(hints, &ranges).unwrap();
    assert!(read() == data.to_vec());
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    for (attributes, changes) in [(hints, false), (hints.with_ad(true), true)] {
        let mut memory = controller.alloc(4096).unwrap();
        ranges.iter().enumerate().for_each(|(at, range)| memory.write_at(at * 16, &range.to_bytes()));
        queue.turn().unwrap().manage_dataset(&namespace, attributes, memory, 2, 1).unwrap();
        assert!(queue.wait(Wait::Poll, deadline()).unwrap());
        queue.turn().unwrap().next().unwrap().result().unwrap();
        let mut wanted = data.to_vec();
        if changes {
            [0..4 * 512, 8 * 512..12 * 512].into_iter().for_each(|range| wanted[range].fill(0));
        }
        assert!(read() == wanted, "{attributes:?}");
    }
    namespace.write_zeroes_with(4, 4, IoFlags::DEALLOCATE | IoFlags::FUA).unwrap();
    assert!(read()[..12 * 512].iter().all(|&byte| byte == 0));
    assert!(read()[12 * 512..] == data.to_vec()[12 * 512..]);
}

/// The plan fails a Flush that names all namespaces.
#[test]
fn all_namespaces_are_flushed_by_one_command() {
    let fails = FaultRule::new(Fault::Status(Status::WRITE_FAULT)).opcode(NvmOpcode::FLUSH.0);
    let plan = FaultPlan::new(1).rule(fails.namespace(ALL_NAMESPACES).count(1));
    let options = "size=1M,namespaces=2,serial=FLUSH".parse().unwrap();
    let controller = Controller::builder().from_device(spawn_with_faults(&options, &plan).unwrap()).unwrap();
    controller.namespace(1).unwrap().flush().unwrap();
    let error = controller.flush_all().unwrap_err();
    assert_eq!(error.status(), Some(Status::WRITE_FAULT));
    says(&error, &[controller.name(), "Flush (00h) of all namespaces"]);
    controller.flush_all().unwrap();
}
