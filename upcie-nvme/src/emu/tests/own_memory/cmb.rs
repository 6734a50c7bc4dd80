//! The controller memory buffer: its registers, what may be in it, and what it outlasts.

use super::{
    super::{
        data::{pattern, transfer},
        host::{Host, PAGE, Queue, exact},
        stepped::Stepped,
    },
    Buffer, COVERED, INVALID, SIZE, block, with_clients, with_list,
};
use crate::{
    emu::{FaultPlan, Lockstep, Region, layout::DSTRD},
    spec::{
        Capabilities, CmbLocation, CmbMemorySpaceControl, CmbSize, Cns, Command, FeatureId, FeatureSelect,
        IntoBytes, NSSR_SIGNATURE, NvmOpcode, QueuePriority, SglDescriptor, Status, doorbell_offset, offset,
    },
};
use upcie_core::{
    barrier,
    device::Device,
    pci::{ConfigSpace, cap},
};

const OPTIONS: &str = "size=1M,cmb=64K";
/// The offset of lists in the host's data.
const LISTS: usize = 7 << 20;

const CMBMSC: u64 = offset::CMBMSC as u64;
const CMBSTS: u64 = offset::CMBSTS as u64;
const CRE: u64 = 1;
const CMSE: u64 = 2;

/// Gives the buffer an address, as a host does: the address first, then CMSE.
fn place(host: &Host, address: u64) {
    host.write_u64(CMBMSC, address | CRE).unwrap();
    host.write_u32(CMBMSC, (address | CRE | CMSE) as u32).unwrap();
    assert_eq!(host.bar.read_u32(CMBSTS).unwrap(), 0, "CBAI");
}

fn control(host: &Host) -> u64 {
    host.bar.read_u64(CMBMSC).unwrap()
}

/// Brings up controllers that serve commands at once and in stages; calls `test` with the address of the buffer, which
/// covers a part of the host's data.
fn on_placed_buffers(options: &str, test: impl Fn(Host, Queue, Buffer, u64)) {
    for mut host in [Host::new(options), Host::with_faults(options, &FaultPlan::new(1))] {
        let queue = host.queue(1, [8, 8], None);
        let (buffer, address) = (Buffer::of(&*host.device, 2), host.iova(COVERED));
        place(&host, address);
        test(host, queue, buffer, address);
    }
}

fn compare(nsid: u32, slba: u64, count: u32) -> Command {
    Command { opcode: NvmOpcode::COMPARE.0, ..Command::read(nsid, slba, count) }
}

#[test]
fn registers_tell_of_the_buffer_once_they_are_enabled() {
    let host = Host::disabled(OPTIONS);
    let read = |at: usize| host.bar.read_u32(at as u64).unwrap();
    let is_announced =
        |host: &Host| Capabilities::from_bits(host.bar.read_u64(offset::CAP as u64).unwrap()).cmbs();
    assert!(is_announced(&host));
    assert_eq!([offset::CMBLOC, offset::CMBSZ].map(read), [0, 0]);
    host.write_u64(CMBMSC, CMSE).unwrap();
    assert_eq!([offset::CMBLOC, offset::CMBSZ, offset::CMBSTS].map(read), [0, 0, 0], "CRE is 0");
    host.write_u64(CMBMSC, 0x1234_5678_9000 | 0xffc | CRE).unwrap();
    assert_eq!(control(&host), 0x1234_5678_9000 | CRE, "without the reserved bits");
    let location = CmbLocation::from_bits(read(offset::CMBLOC));
    assert_eq!(location, CmbLocation::new().with_bir(2).with_cdpmls(true).with_cdpcils(true));
    let size = CmbSize::from_bits(read(offset::CMBSZ));
    assert_eq!(size.bytes(), Some(SIZE as u64));
    assert!(size.sqs() && size.cqs() && size.lists() && size.rds() && size.wds());
    // The last byte has an address that has another one after it.
    let end = 0_u64.wrapping_sub(SIZE as u64);
    for (address, invalid) in [(0, 0), (end - PAGE as u64, 0), (end, 1), (!0xfff, 1), (1 << 32, 0)] {
        host.write_u64(CMBMSC, address | CRE | CMSE).unwrap();
        assert_eq!(read(offset::CMBSTS), invalid, "CBAI at {address:#x}");
        let control = CmbMemorySpaceControl::from_bits(control(&host));
        assert_eq!((control.cba() << 12, control.cre(), control.cmse()), (address, true, true));
    }
    host.write_u64(CMBMSC, 0).unwrap();
    assert_eq!([offset::CMBLOC, offset::CMBSZ].map(read), [0, 0]);

    let without = Host::disabled("size=1M");
    assert!(!is_announced(&without) && without.device.bar(2).is_err());
    without.write_u64(CMBMSC, CRE | CMSE).unwrap();
    assert_eq!((control(&without), without.bar.read_u32(CMBSTS).unwrap()), (0, 0));
}

#[test]
fn data_and_lists_may_be_in_the_buffer() {
    on_placed_buffers(OPTIONS, |host, mut queue, buffer, address| {
        host.set(COVERED, &[0xee; SIZE]);
        let data = pattern(3 * PAGE, 5);
        let pages = [address + 2 * PAGE as u64, address + 3 * PAGE as u64];
        buffer.set(PAGE, &data);
        // Lists in either memory, for data in the buffer.
        host.set(LISTS, pages.as_bytes());
        buffer.set(0, pages.as_bytes());
        for (slba, list) in [(0, host.iova(LISTS)), (24, address)] {
            let pointer = (address + PAGE as u64, list);
            assert_eq!(transfer(&mut queue, Command::write(1, slba, 24), pointer), Status::SUCCESS);
            host.set(0, &[0; 3 * PAGE]);
            let read = with_list(Command::read(1, slba, 24), block(host.iova(0), 3 * PAGE));
            assert_eq!(queue.status(read), Status::SUCCESS);
            assert!(host.bytes(0, 3 * PAGE) == data);
        }
        // A segment in the buffer, for data there and for data in the host's memory.
        for target in [address + 8 * PAGE as u64, host.iova(0)] {
            let parts = [block(target, 512), block(target + 512, 3 * PAGE - 512)];
            buffer.set(0, parts.as_bytes());
            let segment = SglDescriptor::new(SglDescriptor::LAST_SEGMENT, address, 32);
            assert_eq!(queue.status(with_list(Command::read(1, 0, 24), segment)), Status::SUCCESS);
        }
        assert!(buffer.bytes(8 * PAGE, 3 * PAGE) == data && host.bytes(0, 3 * PAGE) == data);
        assert!(host.bytes(COVERED, SIZE) == [0xee; SIZE], "the host's memory is covered");
        // Without CMSE the address is the host's again.
        host.write_u64(CMBMSC, address | CRE).unwrap();
        let pointer = (address, 0);
        assert_eq!(transfer(&mut queue, Command::read(1, 0, 1), pointer), Status::SUCCESS);
        assert!(host.bytes(COVERED, 512) == data[..512]);
    });
}

#[test]
fn data_in_two_memories_is_refused() {
    on_placed_buffers(OPTIONS, |mut host, mut queue, buffer, address| {
        let (page, end) = (PAGE as u64, address + SIZE as u64);
        let bytes = pattern(2 * PAGE, 3);
        let whole = (host.iova(0), host.iova(PAGE));
        host.set(0, &bytes);
        assert_eq!(transfer(&mut queue, Command::write(1, 0, 16), whole), Status::SUCCESS);
        host.set(LISTS, [address, host.iova(0)].as_bytes());
        buffer.set(12 * PAGE, [block(address + page, 512), block(host.iova(0), 512)].as_bytes());
        let by_pages = [
            (16, (host.iova(0), address)),
            (16, (address, host.iova(0))),
            // Adjacent pages, across either border.
            (16, (address - page, address)),
            (16, (end - page, end)),
            (24, (address + page, host.iova(LISTS))),
        ];
        let by_lists = [
            block(address - 512, 1024),
            block(end - 512, 1024),
            SglDescriptor::new(SglDescriptor::LAST_SEGMENT, address + 12 * page, 32),
        ];
        let commands: [fn(u32, u64, u32) -> Command; 3] = [Command::read, Command::write, compare];
        for command in commands {
            for (count, pointer) in by_pages {
                let status = transfer(&mut queue, command(1, 0, count), pointer);
                assert_eq!(exact(status), INVALID, "{pointer:x?}");
            }
            for first in by_lists {
                let status = queue.status(with_list(command(1, 0, 2), first));
                assert_eq!(exact(status), INVALID, "{first:?}");
            }
        }
        // Data that is discarded is in no memory. The writes were carried out as far as the first piece.
        host.set(0, &bytes);
        assert_eq!(transfer(&mut queue, Command::write(1, 0, 16), whole), Status::SUCCESS);
        let bucket = SglDescriptor::new(SglDescriptor::BIT_BUCKET, 0, 512);
        buffer.set(12 * PAGE, [bucket, block(address + page, 512)].as_bytes());
        assert_eq!(queue.status(with_list(Command::read(1, 0, 2), by_lists[2])), Status::SUCCESS);
        assert!(buffer.bytes(PAGE, 512) == bytes[512..1024]);
        // Admin commands have the same rule.
        let mut identify = Command::identify(Cns::CONTROLLER, 0, 0);
        identify.set_data_pointer(end - 512, end);
        assert_eq!(exact(host.admin.status(identify)), INVALID);
        identify.set_data_pointer(address, 0);
        assert_eq!(host.admin.status(identify), Status::SUCCESS);
        host.alive();
    });
}

#[test]
fn metadata_is_in_the_memory_of_its_data() {
    on_placed_buffers("size=1M,ms=8,pi=1,cmb=64K", |host, mut queue, buffer, address| {
        buffer.set(0, &pattern(512, 1));
        buffer.set(PAGE, &[7; 8]);
        let places = [(host.iova(0), host.iova(PAGE)), (address, address + PAGE as u64)];
        for (data, metadata, wanted) in [
            (places[1].0, places[1].1, (Status::SUCCESS, false)),
            (places[0].0, places[0].1, (Status::SUCCESS, false)),
            (places[0].0, places[1].1, INVALID),
            (places[1].0, places[0].1, INVALID),
            (address, address + SIZE as u64 - 4, INVALID),
        ] {
            for mut command in [Command::write(1, 0, 1), Command::read(1, 0, 1)] {
                command.set_metadata_pointer(metadata);
                let status = transfer(&mut queue, command, (data, 0));
                assert_eq!(exact(status), wanted, "{data:#x}, {metadata:#x}");
            }
        }
    });
}

#[test]
fn both_queues_may_be_in_the_buffer() {
    const CQ: usize = PAGE;
    let mut host = Host::new(OPTIONS);
    let (buffer, address) = (Buffer::of(&*host.device, 2), host.iova(COVERED));
    place(&host, address);
    let end = address + SIZE as u64;
    for at in [address - PAGE as u64, end - PAGE as u64] {
        let cq = Command::create_completion_queue(2, 512, at, None);
        assert_eq!(exact(host.admin.status(cq)), INVALID, "two pages, across a border");
    }
    let cq = Command::create_completion_queue(1, 8, address + CQ as u64, None);
    assert_eq!(host.admin.status(cq), Status::SUCCESS);
    let sq = Command::create_submission_queue(1, 128, end - PAGE as u64, 1, QueuePriority::MEDIUM);
    assert_eq!(exact(host.admin.status(sq)), INVALID);
    let sq = Command::create_submission_queue(1, 8, address, 1, QueuePriority::MEDIUM);
    assert_eq!(host.admin.status(sq), Status::SUCCESS);
    let doorbell = |completion| doorbell_offset(1, completion, DSTRD) as u64;
    let mut phase = true;
    for index in 0..20 {
        let mut command = Command { cid: index as u16, ..Command::write(1, index as u64, 1) };
        command.set_data_pointer(host.iova(0), 0);
        buffer.set(index % 8 * 64, command.as_bytes());
        barrier::dma_wmb();
        let next = (index as u32 + 1) % 8;
        host.write_u32(doorbell(false), next).unwrap();
        let done = buffer.completion(CQ + index % 8 * 16, phase);
        assert_eq!((done.cid, done.status()), (index as u16, Status::SUCCESS));
        host.write_u32(doorbell(true), next).unwrap();
        phase ^= next == 0;
    }
}

#[test]
fn the_admin_queue_may_be_in_the_buffer() {
    let host = Host::disabled(OPTIONS);
    let (buffer, address) = (Buffer::of(&*host.device, 2), host.iova(COVERED));
    place(&host, address);
    for (asq, ready) in [(address + (SIZE - PAGE) as u64, 2), (address, 1)] {
        host.write_u32(offset::CC as u64, 0).unwrap();
        // 128 and 8 entries.
        host.write_u32(offset::AQA as u64, 127 | 7 << 16).unwrap();
        host.write_u64(offset::ASQ as u64, asq).unwrap();
        host.write_u64(offset::ACQ as u64, address + 4 * PAGE as u64).unwrap();
        host.write_u32(offset::CC as u64, 1 | 6 << 16 | 4 << 20).unwrap();
        assert_eq!(host.csts(), ready, "CSTS with ASQ {asq:#x}");
    }
    let command = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
    buffer.set(0, Command { cid: 5, ..command }.as_bytes());
    barrier::dma_wmb();
    host.write_u32(doorbell_offset(0, false, DSTRD) as u64, 1).unwrap();
    let done = buffer.completion(4 * PAGE, true);
    assert_eq!((done.cid, done.status()), (5, Status::SUCCESS));
}

#[test]
fn resets_take_the_address_away_or_keep_it() {
    let mut host = Host::new(OPTIONS);
    let (buffer, address) = (Buffer::of(&*host.device, 2), host.iova(COVERED));
    buffer.set(0, &[7; PAGE]);
    place(&host, address);
    let placed = control(&host);
    host.write_u32(offset::CC as u64, 0).unwrap();
    assert_eq!(control(&host), placed, "a controller reset");
    let at = host.device.find_capability(cap::PCIE).unwrap().unwrap();
    host.set_config_u16(at + 8, 0x8000).unwrap();
    assert_eq!(control(&host), placed, "a function level reset");
    host.write_u32(offset::NSSR as u64, NSSR_SIGNATURE).unwrap();
    assert_eq!(control(&host), 0, "a reset of the NVM subsystem");
    place(&host, address);
    host.reset().unwrap();
    assert_eq!(control(&host), 0, "a reset of the device");
    assert!(buffer.bytes(0, PAGE) == [7; PAGE], "the contents stay");
    // The address leads to the host's memory.
    host.enable();
    host.set(COVERED, &[0xee; 512]);
    let mut queue = host.queue(1, [4, 4], None);
    assert_eq!(transfer(&mut queue, Command::read(1, 0, 1), (address, 0)), Status::SUCCESS);
    assert!(host.bytes(COVERED, 512) == [0; 512] && buffer.bytes(0, 512) == [7; 512]);
}

#[test]
fn a_loss_of_power_zeroes_the_buffer() {
    let device = Lockstep::new(&OPTIONS.parse().unwrap()).unwrap();
    let (buffer, bar) = (Buffer::of(&*device, 2), device.bar(0).unwrap());
    buffer.set(0, &[7; PAGE]);
    // SAFETY: the controller decodes addresses, and nobody sends it commands.
    unsafe { bar.write_u64(CMBMSC, CRE | CMSE) }.unwrap();
    assert_eq!((bar.read_u64(CMBMSC).unwrap(), bar.read_u32(CMBSTS).unwrap()), (CRE | CMSE, 0));
    device.lose_power(&mut || 0);
    assert_eq!(bar.read_u64(CMBMSC).unwrap(), 0);
    assert!(buffer.bytes(0, PAGE) == [0; PAGE]);
}

/// A client that is gone keeps its mapping, which was once that of the next client, too.
#[test]
fn each_client_has_a_buffer_of_its_own() {
    with_clients(OPTIONS, |connect| {
        let mut kept = Vec::new();
        for client in 1..4_u8 {
            let host = connect();
            let buffer = Buffer::of(&*host.device, 2);
            assert_eq!((control(&host), buffer.bytes(0, 8)), (0, vec![0; 8]), "client {client}");
            buffer.set(0, &[client; 8]);
            place(&host, host.iova(COVERED));
            kept.push(buffer);
        }
        // The server gave the pages of those that are gone back, which it had filled.
        assert_eq!(kept.iter().map(|buffer| buffer.bytes(0, 1)[0]).collect::<Vec<_>>(), [0, 0, 3]);
    });
}

#[test]
fn hosts_without_a_mapping_use_messages() {
    let mut stepped = Stepped::new(OPTIONS);
    let (machine, memory) = (&mut stepped.machine, &mut stepped.memory);
    machine.write(memory, Region::ControllerMemory, 5, &[1, 2, 3]);
    let mut bytes = [9; 5];
    machine.read(memory, Region::ControllerMemory, 4, &mut bytes);
    assert_eq!(bytes, [0, 1, 2, 3, 0]);
    // This host can't have the buffer among its memory.
    machine.write(memory, Region::Registers, CMBMSC, &(CRE | CMSE).to_le_bytes());
    let mut status = [0; 4];
    machine.read(memory, Region::Registers, CMBSTS, &mut status);
    assert_eq!(status, [1, 0, 0, 0], "CBAI");
}
