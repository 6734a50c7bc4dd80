//! Registers, reset, shutdown.

use super::host::{Host, exact};
use crate::{
    Controller,
    emu::{self, own_memory::OwnProperties, registers::Registers},
    spec::{Capabilities, Command, Status},
};

#[test]
fn capabilities_and_version_follow_the_options() {
    let host = Host::disabled("depth=100");
    let cap = Capabilities::from_bits(host.bar.read_u64(0).unwrap());
    assert_eq!((cap.max_queue_entries(), cap.doorbell_stride()), (100, 32));
    assert!(cap.cqr() && cap.supports_nvm() && cap.to() > 0);
    assert_eq!((cap.page_size_min(), cap.page_size_max()), (4096, 65536));
    assert_eq!(host.bar.read_u32(8).unwrap(), 0x0001_0400);
    assert_eq!(host.csts(), 0);
}

#[test]
fn a_bad_configuration_is_fatal_until_disabled() {
    for cc in [1 | 1 << 4, 1 | 5 << 7, 1 | 1 << 11, 1 | 7 << 16, 1 | 5 << 20] {
        let mut host = Host::disabled("");
        host.configure(cc);
        assert_eq!(host.csts(), 2, "CC {cc:#x}");
        host.write_u32(0x14, 0).unwrap();
        assert_eq!(host.csts(), 0);
        host.enable();
        host.alive();
    }
    let host = Host::disabled("");
    host.write_u32(0x14, 1 | 6 << 16 | 4 << 20).unwrap();
    assert_eq!(host.csts(), 2, "AQA is 0");
}

#[test]
fn admin_rings_in_no_memory_are_a_fatal_status() {
    let host = Host::disabled("");
    host.configure(0);
    host.write_u64(0x28, 0x7fff_0000_0000).unwrap();
    host.write_u32(0x14, 1 | 6 << 16 | 4 << 20).unwrap();
    host.admin.ring_value(1);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while host.csts() & 2 == 0 {
        assert!(std::time::Instant::now() < end);
    }
}

#[test]
fn shutdown_completes_and_stops_the_queues() {
    let mut host = Host::new("");
    host.write_u32(0x14, 1 | 1 << 14 | 6 << 16 | 4 << 20).unwrap();
    assert_eq!(host.csts(), 1 | 2 << 2);
    host.admin.put(&Command::flush(1));
    host.admin.ring();
    host.admin.silent();
    host.write_u32(0x14, 0).unwrap();
    assert_eq!(host.csts(), 0);
    host.enable();
    host.alive();
}

#[test]
fn a_reset_in_mid_flight_forgets_everything() {
    let mut host = Host::new("latency=20ms,size=1M");
    for round in 0..20 {
        let mut queue = host.queue(1, [64, 64], None);
        for cid in 0..60 {
            let mut read = Command { cid, ..Command::read(1, 0, 8) };
            read.set_data_pointer(host.iova(0), 0);
            queue.put(&read);
        }
        queue.ring();
        if round % 2 == 0 {
            host.write_u32(0x14, 0).unwrap();
            assert_eq!(host.csts(), 0);
        } else {
            host.reset().unwrap();
            assert_eq!(host.bar.read_u32(0x24).unwrap(), 0, "AQA");
        }
        drop(queue);
        host.enable();
    }
    host.alive();
    let status = host.admin.status(Command::delete_submission_queue(1));
    assert_eq!(exact(status), (Status::INVALID_QUEUE_ID, true));
}

#[test]
fn any_access_to_the_registers_is_harmless() {
    let mut registers = Registers::new(&"depth=65536".parse().unwrap(), 1);
    for offset in (0..0x1010).chain([u64::MAX - 3, u64::MAX]) {
        for len in [0, 1, 2, 3, 4, 5, 8, 16, 4096] {
            let mut data = vec![0xee; len];
            registers.read(0, &OwnProperties::default(), offset, &mut data);
        }
        for value in [0, 1, u32::MAX] {
            registers.write(offset as usize, value);
        }
    }
    let mut byte = [0];
    registers.read(0, &OwnProperties::default(), 1, &mut byte);
    assert_eq!(byte, [0xff], "MQES, its upper half");
    let mut three = [0; 3];
    registers.read(0, &OwnProperties::default(), 8, &mut three);
    assert_eq!(three, [0, 4, 1]);
}

#[test]
fn the_second_handle_of_a_reopened_address_is_a_new_controller() {
    for _ in 0..3 {
        Host::new("size=1M").alive();
    }
}

#[test]
fn controllers_in_a_space_agree_on_the_page_size() {
    let device = || emu::spawn(&"size=1M".parse().unwrap()).unwrap();
    // A list of smaller pages than it is set to would be read past its end.
    for (agreed, fits) in [(4096, true), (2048, false), (1 << 17, false), (4097, false)] {
        let device = device();
        assert_eq!(device.dma().agree(agreed), agreed);
        assert_eq!(device.dma().agree(8192), agreed, "the first call counts");
        match Controller::builder().from_device(device) {
            Ok(controller) => assert!(fits && controller.namespace(1).is_ok(), "{agreed}"),
            Err(error) => assert!(!fits && error.to_string().contains("memory pages"), "{agreed}: {error}"),
        }
    }
}
