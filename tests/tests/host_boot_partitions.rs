//! Boot partitions of the embedded controller: unlocked by a feature, replaced and activated by Firmware Commit, read by properties
//! and by the log page.

use std::{ops::ControlFlow, time::Duration};
use upcie_nvme::{
    Controller, ErrorKind, LogQuery,
    spec::{
        BootPartitionLog, BootPartitionProperty, BootPartitionWriteProtection, BootReadStatus, CommitAction,
        FirmwareCommit, LogPageId, Status, SupportedLogPages, offset,
    },
};
use upcie_tests::{
    odd::{self, Registers},
    says,
};

const SIZE: u64 = 384 << 10;
const EMU: &str = "emu:size=1M,boot-partitions=384K";

fn image(len: usize, seed: u8) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ seed).collect()
}

fn commit(controller: &Controller, action: CommitAction, id: u8) -> Result<(), upcie_nvme::Error> {
    controller.execute(&FirmwareCommit { slot: 0, action, boot_partition: id }).map(drop)
}

/// States of feature 85h.
const UNLOCKED: u8 = 1;
const LOCKED: u8 = 2;
const LOCKED_UNTIL_POWER_CYCLE: u8 = 3;

/// Sets the states of both partitions; 0 changes nothing.
fn protect(controller: &Controller, states: [u8; 2]) -> Result<(), upcie_nvme::Error> {
    let value = BootPartitionWriteProtection::new().with_partition_0(states[0]).with_partition_1(states[1]);
    controller.set_feature(&value).map(drop)
}

fn states(controller: &Controller) -> [u8; 2] {
    let value: BootPartitionWriteProtection = controller.feature().unwrap();
    [value.partition_0(), value.partition_1()]
}

/// Unlocks a partition, and replaces it.
fn replace(controller: &Controller, id: u8, image: &[u8]) -> Result<(), upcie_nvme::Error> {
    protect(controller, [0, 1].map(|other| if other == id { UNLOCKED } else { 0 }))?;
    let downloaded = controller.download_firmware(image, |_| ControlFlow::Continue(()))?;
    assert!(downloaded.is_continue());
    commit(controller, CommitAction::REPLACE_BOOT_PARTITION, id)
}

fn read(controller: &Controller, id: u8, at: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0x55; len];
    controller.read_boot_partition(id, at, &mut data).unwrap();
    data
}

#[test]
fn a_partition_has_the_image_that_replaced_it() {
    let controller = Controller::open(EMU).unwrap();
    let known = controller.boot_partitions().unwrap().expect("boot partitions");
    assert_eq!((known.size, known.active), (SIZE, 0));
    assert!(read(&controller, 1, 0, SIZE as usize).iter().all(|&byte| byte == 0));
    let images = [image(SIZE as usize, 1), image(200 << 10, 2)];
    for (id, image) in (0..).zip(&images) {
        replace(&controller, id, image).unwrap();
    }
    for (id, image) in (0..).zip(&images) {
        let whole = read(&controller, id, 0, SIZE as usize);
        assert!(whole[..image.len()] == image[..] && whole[image.len()..].iter().all(|&byte| byte == 0));
        // Parts of any length, from pages on.
        for (at, len) in [(0, 1), (4096, 4096), (8192, 5000), (SIZE - 4096, 4096), (4096, 200 << 10), (0, 0)]
        {
            let from = at as usize;
            assert!(read(&controller, id, at, len) == whole[from..from + len], "{len} bytes at {at}");
        }
    }
    // Neither slots nor the other partition have changed, and a reset keeps all.
    assert_eq!(controller.identify().firmware(), "1.0");
    commit(&controller, CommitAction::ACTIVATE_BOOT_PARTITION, 1).unwrap();
    assert_eq!(controller.boot_partitions().unwrap().unwrap().active, 1);
    controller.reset().unwrap();
    assert_eq!(controller.boot_partitions().unwrap().unwrap().active, 1);
    assert!(read(&controller, 1, 0, 200 << 10) == images[1]);
}

#[test]
fn the_log_page_has_the_same_bytes() {
    let controller = Controller::open(EMU).unwrap();
    let image = image(SIZE as usize, 3);
    replace(&controller, 1, &image).unwrap();
    commit(&controller, CommitAction::ACTIVATE_BOOT_PARTITION, 1).unwrap();
    for (parameter, wanted) in [(1, &image), (0, &vec![0; SIZE as usize])] {
        let query = LogQuery { parameter, ..LogQuery::default() };
        let log: BootPartitionLog = controller.log_with(&query).unwrap();
        assert_eq!((log.header.information.size(), log.header.information.active()), (3, 1));
        assert!(log.rest == *wanted, "partition {parameter}");
    }
    let pages: SupportedLogPages = controller.log().unwrap();
    assert!(pages.log_pages[usize::from(LogPageId::BOOT_PARTITION.0)].supported());
}

#[test]
fn a_locked_partition_keeps_its_image() {
    let controller = Controller::open(EMU).unwrap();
    let refused = |done: Result<(), upcie_nvme::Error>, status| {
        assert_eq!(done.unwrap_err().status(), Some(status));
    };
    assert_eq!(states(&controller), [LOCKED; 2], "the state after power-on");
    assert_eq!(controller.identify().bpcap, 0b101);
    let image = image(8192, 4);
    for id in [0, 1] {
        let downloaded = controller.download_firmware(&image, |_| ControlFlow::Continue(()));
        assert!(downloaded.unwrap().is_continue());
        let done = commit(&controller, CommitAction::REPLACE_BOOT_PARTITION, id);
        refused(done, Status::BOOT_PARTITION_WRITE_PROHIBITED);
    }
    // A partition whose lock is not asked about keeps it, and a reset keeps both.
    protect(&controller, [0, UNLOCKED]).unwrap();
    let done = commit(&controller, CommitAction::REPLACE_BOOT_PARTITION, 0);
    refused(done, Status::BOOT_PARTITION_WRITE_PROHIBITED);
    replace(&controller, 1, &image).unwrap();
    assert!(read(&controller, 1, 0, 8192) == image);
    controller.reset().unwrap();
    assert_eq!(states(&controller), [LOCKED, UNLOCKED]);
    // The last state goes with the power alone.
    protect(&controller, [0, LOCKED_UNTIL_POWER_CYCLE]).unwrap();
    for state in [UNLOCKED, LOCKED] {
        refused(protect(&controller, [UNLOCKED, state]), Status::FEATURE_NOT_CHANGEABLE);
    }
    assert_eq!(states(&controller), [LOCKED, LOCKED_UNTIL_POWER_CYCLE], "both or none");
    for state in 4..8 {
        refused(protect(&controller, [state, 0]), Status::INVALID_FIELD);
    }
    protect(&controller, [UNLOCKED, LOCKED_UNTIL_POWER_CYCLE]).unwrap();
    controller.reset().unwrap();
    refused(replace(&controller, 1, &image), Status::FEATURE_NOT_CHANGEABLE);
    refused(
        commit(&controller, CommitAction::REPLACE_BOOT_PARTITION, 1),
        Status::BOOT_PARTITION_WRITE_PROHIBITED,
    );
    replace(&controller, 0, &image).unwrap();
    // Neither reads nor the choice of the active one modify a partition.
    commit(&controller, CommitAction::ACTIVATE_BOOT_PARTITION, 1).unwrap();
    assert!(read(&controller, 1, 0, 8192) == image);
    let error = protect(&Controller::open("emu:size=1M").unwrap(), [UNLOCKED; 2]).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD));
}

#[test]
fn ranges_and_images_that_do_not_fit_are_refused() {
    let controller = Controller::open(EMU).unwrap();
    let mut data = [0; 4096];
    for (id, at, part) in [
        (2, 0, "no boot partition 2"),
        (0, 512, "multiples of 4096"),
        (0, SIZE, "do not end within"),
        (1, u64::MAX - 4095, "do not end within"),
    ] {
        let error = controller.read_boot_partition(id, at, &mut data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        says(&error, &[part]);
    }
    let error = replace(&controller, 0, &vec![1; SIZE as usize + 4096]).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIRMWARE_IMAGE));
    // No image was downloaded since.
    let error = commit(&controller, CommitAction::REPLACE_BOOT_PARTITION, 0).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIRMWARE_IMAGE));
    assert!(read(&controller, 0, 0, 4096).iter().all(|&byte| byte == 0));

    let without = Controller::open("emu:size=1M").unwrap();
    assert_eq!(without.boot_partitions().unwrap(), None);
    let error = without.read_boot_partition(0, 0, &mut data).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    says(&error, &["no boot partitions", "CAP.BPS is 0"]);
    for action in [CommitAction::REPLACE_BOOT_PARTITION, CommitAction::ACTIVATE_BOOT_PARTITION] {
        assert_eq!(commit(&without, action, 0).unwrap_err().status(), Some(Status::INVALID_FIELD));
    }
    let error = without.log::<BootPartitionLog>().unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_LOG_PAGE));
    for (options, part) in [
        ("boot-partitions=100K", "128K"),
        ("boot-partitions=8G", "128K"),
        ("boot-partitions=x", "boot-partitions"),
    ] {
        let error = Controller::open(format!("emu:size=1M,{options}").as_str()).unwrap_err();
        says(&error, &[part]);
    }
}

/// Registers that tell of a read that never ends.
struct Reading;

impl Registers for Reading {
    fn read(&mut self, at: u64, data: &mut [u8]) {
        if at == offset::BPINFO as u64 {
            odd::change(data, |bits| {
                BootPartitionProperty::from_bits(bits).with_brs(BootReadStatus::IN_PROGRESS).into_bits()
            });
        }
    }
}

/// It had 30 s, whatever the timeout.
#[test]
fn a_read_that_does_not_end_has_the_timeout() {
    let controller =
        odd::open("size=1M,boot-partitions=256K", Reading, Duration::from_secs(4)).expect("a controller");
    let error = controller.read_boot_partition(0, 0, &mut [0; 4096]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    says(&error, &["waiting for an earlier read of a boot partition", "no answer within 4s"]);
}
