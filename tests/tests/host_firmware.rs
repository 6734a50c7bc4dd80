//! Firmware images: they are downloaded in parts, stored in slots and activated; what is no image is refused, and a download
//! that fails says what the controller has.

use std::ops::ControlFlow;
use upcie_nvme::{
    Controller, Error, Failure, IdentifyQuery,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::{AdminOpcode, CommitAction, FirmwareCommit, FirmwareSlotLog, IdentifyController, Status},
};
use upcie_tests::{io::create, says};

#[track_caller]
fn in_use(error: &Error, controller: &Controller) {
    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error:?}");
    says(error, &[controller.name(), "close first: queue pair"]);
}

#[test]
fn firmware_is_downloaded_in_parts_and_activated_by_a_reset() {
    // Parts of 128 KiB, and a last one of less.
    let controller = Controller::open("emu:size=1M,mdts=128K").unwrap();
    let image = [&b"7.7-test"[..], &[0x5a; 300_000]].concat();
    let mut steps = Vec::new();
    let downloaded = controller.download_firmware(&image, |bytes| {
        steps.push(bytes);
        ControlFlow::Continue(())
    });
    assert!(downloaded.unwrap().is_continue());
    assert_eq!(steps, [128 << 10, 256 << 10, image.len()]);
    let commit = |slot, action| FirmwareCommit { slot, action, boot_partition: 0 };
    let error = controller.execute(&commit(1, CommitAction::STORE)).unwrap_err();
    says(&error, &[controller.name(), "Firmware Commit (10h)", "slot 1 is read-only"]);
    // An image is stored at any time, and activated only while no queue could see other limits.
    let queue = create::<u64>(controller.queue_pair().depth(4));
    controller.execute(&commit(2, CommitAction::STORE)).unwrap();
    in_use(&controller.execute(&commit(2, CommitAction::ACTIVATE)).unwrap_err(), &controller);
    queue.close().unwrap();
    controller.execute(&commit(2, CommitAction::ACTIVATE)).unwrap();
    let log = controller.log::<FirmwareSlotLog>().unwrap();
    assert_eq!(
        (log.active_slot(), log.next_slot(), log.revision(2).as_deref()),
        (1, Some(2), Some("7.7-test"))
    );
    controller.reset().unwrap();
    assert_eq!(controller.log::<FirmwareSlotLog>().unwrap().active_slot(), 2);
    let id = controller.identify_as::<IdentifyController>(&IdentifyQuery::default()).unwrap();
    assert_eq!(id.firmware(), "7.7-test");
    let mut most = 2;
    let ended = controller.download_firmware(&image, |_| {
        most -= 1;
        if most > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(ended.unwrap().is_break() && most == 0);
    controller.reset().unwrap();
    for (image, part) in [
        (&[][..], "4 bytes to 4 GiB"),
        (&[1; 9], "whole dwords, and this one 9 bytes"),
        (&[1; 8], "Invalid Firmware Image"),
    ] {
        let sent = controller.download_firmware(image, |_| ControlFlow::Continue(()));
        let sent = sent.and_then(|_| controller.execute(&commit(3, CommitAction::STORE)).map(drop));
        says(&sent.unwrap_err(), &[part]);
    }
}

/// The controller has a part of an image then, which nothing said.
#[test]
fn a_download_that_fails_says_how_much_the_controller_has() {
    let fails = FaultRule::new(Fault::Status(Status::INTERNAL_ERROR)).queue(0);
    let fails = fails.opcode(AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD.0).after(1);
    let options = "size=1M,mdts=128K,serial=HALFWAY".parse().unwrap();
    let device = spawn_with_faults(&options, &FaultPlan::new(1).rule(fails)).unwrap();
    let controller = Controller::builder().from_device(device).unwrap();
    let mut steps = Vec::new();
    let sent = controller.download_firmware(&[0x5a; 512 << 10], |bytes| {
        steps.push(bytes);
        ControlFlow::Continue(())
    });
    let error = sent.unwrap_err();
    assert_eq!((error.status(), steps), (Some(Status::INTERNAL_ERROR), vec![128 << 10]));
    says(&error, &[controller.name(), "Firmware Image Download (11h) after the first 131072 bytes"]);
    // Nothing was downloaded before this one.
    let error = controller.download_firmware(&[0x5a; 8], |_| ControlFlow::Continue(())).unwrap_err();
    assert!(!error.to_string().contains("after the first"), "{error}");
}
