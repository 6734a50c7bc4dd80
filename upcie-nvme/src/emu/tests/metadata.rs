//! Metadata and protection information by commands made by hand: the bytes are where the specification has them.

use super::host::{Host, PAGE, Queue, exact};
use crate::spec::{
    Cns, Command, CopyDword12, CopyRange, ErrorLogEntry, IdentifyNamespace, LogPageId, NvmNamespace,
    NvmOpcode, SglDescriptor, Status,
};
use zerocopy::{FromBytes, IntoBytes};

/// PRINFO and STC at their place in dword 12.
const ACTION: u32 = 1 << 29;
const GUARD: u32 = 1 << 28;
const APPLICATION: u32 = 1 << 27;
const REFERENCE: u32 = 1 << 26;

/// The place of metadata in the host's memory.
const METADATA: usize = 64 * PAGE;

/// Divides bit by bit: the guard of T10.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| crc << 1 ^ if crc >> 15 != 0 { 0x8bb7 } else { 0 })
    })
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 89) >> 2) as u8).collect()
}

/// Makes the protection information of a block: guard, application tag, reference tag.
fn tuple(data: &[u8], application: u16, reference: u32) -> Vec<u8> {
    [&crc16(data).to_be_bytes()[..], &application.to_be_bytes(), &reference.to_be_bytes()].concat()
}

fn send(queue: &mut Queue, host: &Host, command: Command, control: u32, tags: (u32, u16, u16)) -> Status {
    let mut command = host.with_page(command);
    command.set_metadata_pointer(host.iova(METADATA));
    command.cdw12 |= control;
    (command.cdw14, command.cdw15) = (tags.0, u32::from(tags.1) | u32::from(tags.2) << 16);
    queue.status(command)
}

#[test]
fn metadata_apart_is_checked_inserted_and_stripped() {
    let mut host = Host::new("size=1M,ms=8,pi=1");
    let mut queue = host.queue(1, [8, 8], None);
    let page = host.page(Command::identify(Cns::NAMESPACE, 1, 0));
    let id = IdentifyNamespace::read_from_bytes(&page[..]).unwrap();
    // The metadata takes a part of the medium.
    assert_eq!((id.nsze, id.dps, id.flbas, id.mc), ((1 << 20) / 520, 1, 2, 3));
    let bytes = data(1024);
    host.set(0, &bytes);
    let inserted = (5, 0xabcd, 0xffff);
    assert_eq!(send(&mut queue, &host, Command::write(1, 5, 2), ACTION, inserted), Status::SUCCESS);
    host.set(0, &[0xee; 2048]);
    host.set(METADATA, &[0xee; 32]);
    let checks = GUARD | APPLICATION | REFERENCE;
    assert_eq!(send(&mut queue, &host, Command::read(1, 5, 2), checks, inserted), Status::SUCCESS);
    assert!(host.bytes(0, 1024) == bytes && host.bytes(1024, 16) == [0xee; 16]);
    let wanted = [tuple(&bytes[..512], 0xabcd, 5), tuple(&bytes[512..], 0xabcd, 6)].concat();
    assert_eq!(host.bytes(METADATA, 16), wanted);
    assert_eq!(host.bytes(METADATA + 16, 16), [0xee; 16], "no more than the blocks have");
    // Stripped: no metadata is moved.
    host.set(METADATA, &[0xee; 32]);
    assert_eq!(send(&mut queue, &host, Command::read(1, 5, 2), ACTION | checks, inserted), Status::SUCCESS);
    assert_eq!(host.bytes(METADATA, 16), [0xee; 16]);
    // Given by the host, wrong in one field each; each is checked only if its bit asks for it.
    for (at, bit, status) in [
        (8, GUARD, Status::GUARD_CHECK_ERROR),
        (11, APPLICATION, Status::APPLICATION_TAG_CHECK_ERROR),
        (15, REFERENCE, Status::REFERENCE_TAG_CHECK_ERROR),
    ] {
        let mut wrong = wanted.clone();
        wrong[at] ^= 0x20;
        host.set(0, &bytes);
        host.set(METADATA, &wrong);
        let write = Command::write(1, 5, 2);
        assert_eq!(send(&mut queue, &host, write, bit, inserted), status);
        assert_eq!(send(&mut queue, &host, write, checks & !bit, inserted), Status::SUCCESS);
        assert_eq!(send(&mut queue, &host, Command::read(1, 5, 2), bit, inserted), status);
    }
    let masked = (5, 0xabff, 0xff00);
    host.set(0, &bytes);
    host.set(METADATA, &wanted);
    assert_eq!(send(&mut queue, &host, Command::write(1, 5, 2), checks, masked), Status::SUCCESS);
    // Another first block than the reference tag says, and commands without data that ask for PRACT.
    let invalid = exact(Status::INVALID_PROTECTION_INFORMATION.with_do_not_retry());
    assert_eq!(exact(send(&mut queue, &host, Command::read(1, 5, 2), REFERENCE, (6, 0, 0))), invalid);
    for opcode in [NvmOpcode::COMPARE, NvmOpcode::VERIFY] {
        let command = Command { opcode: opcode.0, ..Command::read(1, 5, 2) };
        assert_eq!(exact(send(&mut queue, &host, command, ACTION, inserted)), invalid, "{opcode}");
        assert_eq!(send(&mut queue, &host, command, checks, inserted), Status::SUCCESS, "{opcode}");
    }
    host.set(512, &[1]);
    let compare = Command { opcode: NvmOpcode::COMPARE.0, ..Command::read(1, 5, 2) };
    assert_eq!(send(&mut queue, &host, compare, 0, inserted), Status::COMPARE_FAILURE);
    let mut odd = host.with_page(Command::read(1, 5, 1));
    odd.set_metadata_pointer(host.iova(METADATA + 2));
    assert_eq!(exact(queue.status(odd)), exact(Status::INVALID_FIELD.with_do_not_retry()));
}

#[test]
fn metadata_by_a_list_and_at_the_end_of_blocks() {
    let mut host = Host::new("size=1M,namespaces=2,ms=8,lba=512+4096");
    let mut queue = host.queue(1, [8, 8], None);
    let bytes = data(1024);
    host.set(0, &bytes);
    host.set(METADATA, &data(16));
    // The metadata pointer names a descriptor.
    let descriptor = SglDescriptor::new(SglDescriptor::DATA_BLOCK, host.iova(METADATA), 16);
    host.set(METADATA + PAGE, descriptor.as_bytes());
    let mut command = Command::write(1, 7, 2);
    command.set_sgl(SglDescriptor::new(SglDescriptor::DATA_BLOCK, host.iova(0), 1024));
    command.set_metadata_pointer(host.iova(METADATA + PAGE));
    command.flags = Command::PSDT_SGL_METADATA;
    assert_eq!(queue.status(command), Status::SUCCESS);
    host.set(METADATA, &[0xee; 32]);
    assert_eq!(send(&mut queue, &host, Command::read(1, 7, 2), 0, (0, 0, 0)), Status::SUCCESS);
    assert_eq!(host.bytes(METADATA, 16), data(16));
    // A Copy moves it, too.
    let range = CopyRange::new(7, 2);
    host.set(0, range.as_bytes());
    let copy = Command { cdw10: 40, ..Command::io(NvmOpcode::COPY, 1) };
    assert_eq!(queue.status(host.with_page(copy)), Status::SUCCESS);
    host.set(METADATA, &[0xee; 32]);
    assert_eq!(send(&mut queue, &host, Command::read(1, 40, 2), 0, (0, 0, 0)), Status::SUCCESS);
    assert!(host.bytes(0, 1024) == bytes && host.bytes(METADATA, 16) == data(16));

    let mut host = Host::new("size=1M,ms=8,extended=true,pi=3");
    let mut queue = host.queue(1, [8, 8], None);
    let mut blocks = data(1040);
    for block in blocks.chunks_exact_mut(520) {
        let made = tuple(&block[..512], 7, 0xdead_beef);
        block[512..].copy_from_slice(&made);
    }
    host.set(0, &blocks);
    let tags = (0xdead_beef, 7, 0xffff);
    assert_eq!(send(&mut queue, &host, Command::write(1, 2, 2), GUARD | APPLICATION, tags), Status::SUCCESS);
    host.set(0, &[0xee; 2048]);
    assert_eq!(send(&mut queue, &host, Command::read(1, 2, 2), GUARD, tags), Status::SUCCESS);
    assert!(host.bytes(0, 1040) == blocks && host.bytes(1040, 100) == [0xee; 100]);
    // The reference tag of type 3 is not the controller's.
    let invalid = exact(Status::INVALID_PROTECTION_INFORMATION.with_do_not_retry());
    assert_eq!(exact(send(&mut queue, &host, Command::read(1, 2, 2), REFERENCE, tags)), invalid);
    // Inserted: the same in all blocks.
    let plain: Vec<u8> = blocks.chunks(520).flat_map(|block| block[..512].to_vec()).collect();
    host.set(0, &plain);
    assert_eq!(send(&mut queue, &host, Command::write(1, 9, 2), ACTION, tags), Status::SUCCESS);
    assert_eq!(send(&mut queue, &host, Command::read(1, 9, 2), GUARD, tags), Status::SUCCESS);
    assert!(host.bytes(0, 1040) == blocks);
    let range = CopyRange::new(2, 2);
    host.set(0, range.as_bytes());
    let mut copy = |dword: CopyDword12| {
        let copy = Command { cdw10: 40, cdw12: dword.into_bits(), ..Command::io(NvmOpcode::COPY, 1) };
        queue.status(host.with_page(copy))
    };
    // Checks of guards; nothing else is this type's.
    let plain = CopyDword12::new();
    assert_eq!(copy(plain.with_prinfor(4).with_prinfow(4)), Status::SUCCESS);
    assert_eq!(copy(plain.with_prinfor(1)), Status::INVALID_PROTECTION_INFORMATION);
    assert_eq!(copy(plain.with_prinfow(1)), Status::INVALID_PROTECTION_INFORMATION);
    // The action is that of both parts; the other format of ranges is for wider guards.
    assert_eq!(copy(plain.with_prinfor(8)), Status::INVALID_FIELD);
    assert_eq!(copy(plain.with_prinfow(8)), Status::INVALID_FIELD);
    assert_eq!(copy(plain.with_prinfor(8).with_prinfow(8)), Status::SUCCESS);
    assert_eq!(copy(plain.with_desfmt(1)), Status::INVALID_FIELD);
}

#[test]
fn identify_tells_guards_and_storage_tags() {
    let mut host = Host::new("size=1M,lba=4096,ms=64,pi=2,guard=32,sts=40,pi-first=true");
    let page = host.page(Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, 1, crate::spec::Csi::NVM));
    let id = NvmNamespace::read_from_bytes(&page[..]).unwrap();
    let page = host.page(Command::identify(Cns::NAMESPACE, 1, 0));
    let namespace = IdentifyNamespace::read_from_bytes(&page[..]).unwrap();
    let extended = id.extended_formats[namespace.format_index()];
    assert_eq!((extended.storage_tag_size(), extended.protection_information_format()), (40, 1));
    assert_eq!(id.storage_tag_mask, (1 << 40) - 1);
    assert_eq!((namespace.dps, namespace.metadata_is_extended()), (2 | 8, false));
    assert_eq!(namespace.nsze, (1 << 20) / 4160);
}

/// A command is checked in parts, and a check counts its blocks from the first one of the command.
#[test]
fn the_error_log_names_the_block_that_is_wrong() {
    let mut host = Host::new("size=1M,ms=8,pi=1");
    let mut queue = host.queue(1, [8, 8], None);
    host.set(0, &data(512));
    host.set(METADATA, &[1; 8]);
    assert_eq!(send(&mut queue, &host, Command::write(1, 170, 1), 0, (0, 0, 0)), Status::SUCCESS);
    let verify = Command { opcode: NvmOpcode::VERIFY.0, ..Command::read(1, 100, 100) };
    assert_eq!(send(&mut queue, &host, verify, GUARD, (0, 0, 0)), Status::GUARD_CHECK_ERROR);
    let log = host.page(Command::get_log_page(LogPageId::ERROR_INFORMATION, 0, 64, 0));
    let (newest, _) = ErrorLogEntry::read_from_prefix(&log).unwrap();
    assert_eq!((newest.nsid, newest.lba), (1, 170));
}
