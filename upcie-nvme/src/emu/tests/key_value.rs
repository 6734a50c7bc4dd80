//! Key value commands of a host with rings made by hand: wrong data pointers, and data of other lengths than the host's memory.

use super::host::{Host, PAGE, Queue, exact};
use crate::spec::{
    Cns, Command, CommandsSupportedLog, Csi, FromBytes, Key, KeyList, KeyValueNamespace, LogPageId,
    RetrieveOptions, SglDescriptor, Status, StoreOptions,
};

fn key() -> Key {
    Key::new(b"key").unwrap()
}

fn store(bytes: u32) -> Command {
    Command::store(1, key(), bytes, StoreOptions::empty())
}

fn retrieve(bytes: u32) -> Command {
    Command::retrieve(1, key(), bytes, RetrieveOptions::empty())
}

/// Returns a controller with a key of this value.
fn with_value(value: &[u8]) -> (Host, Queue) {
    let mut host = Host::new("size=64K,kv=true,mdts=16K");
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, value);
    assert_eq!(queue.status(host.with_page(store(value.len() as u32))), Status::SUCCESS);
    (host, queue)
}

/// Retrieves the value into memory that is filled before; returns its length, and the first bytes of the memory.
fn value(host: &Host, queue: &mut Queue, room: u32) -> (u32, Vec<u8>) {
    host.set(0, &[0xee; PAGE]);
    let done = queue.run(host.with_page(retrieve(room)));
    assert_eq!(done.status(), Status::SUCCESS);
    (done.dw0, host.bytes(0, PAGE))
}

#[test]
fn a_store_that_fails_leaves_the_value_as_it_is() {
    let (host, mut queue) = with_value(b"before");
    host.set(0, b"after!");
    let pointed = |prp1, prp2, bytes| {
        let mut command = store(bytes);
        command.set_data_pointer(prp1, prp2);
        command
    };
    let never = Status::with_do_not_retry;
    for (command, status) in [
        (pointed(host.iova(0) + 2, 0, 6), never(Status::PRP_OFFSET_INVALID)),
        (pointed(0x7fff_ffff_f000, 0, 6), Status::DATA_TRANSFER_ERROR),
        // The second page is nobody's.
        (pointed(host.iova(0), 0x7fff_ffff_f000, 8192), Status::DATA_TRANSFER_ERROR),
        (pointed(host.iova(0), 0, 16_385), never(Status::INVALID_FIELD)),
        (Command { flags: 1, ..host.with_page(store(6)) }, never(Status::INVALID_FIELD)),
    ] {
        assert_eq!(exact(queue.status(command)), exact(status), "{command:?}");
    }
    let (len, bytes) = value(&host, &mut queue, 4096);
    assert_eq!((len, &bytes[..6]), (6, &b"before"[..]));
}

#[test]
fn a_retrieve_moves_the_value_and_no_more() {
    let (host, mut queue) = with_value(b"0123456789");
    for room in [0, 1, 3, 9, 10, 11, 4096] {
        let (len, bytes) = value(&host, &mut queue, room);
        let moved = 10.min(room as usize);
        assert_eq!((len, &bytes[..moved]), (10, &b"0123456789"[..moved]), "{room}");
        assert!(bytes[moved..].iter().all(|&byte| byte == 0xee), "{room}");
    }
    // A buffer of two pages, of which only the first gets data: the second entry is not read.
    host.set(0, &[0xee; PAGE]);
    let mut command = retrieve(8192);
    command.set_data_pointer(host.iova(0), 0);
    assert_eq!(queue.run(command).dw0, 10);
    assert_eq!(host.bytes(0, 10), b"0123456789");
}

/// A list has the length of the buffer: longer than the value, and no shorter.
#[test]
fn scatter_gather_lists_are_as_long_as_the_buffer() {
    let (host, mut queue) = with_value(b"0123456789");
    let mut transfer = |mut command: Command, len: u32| {
        host.set(0, &[0xee; PAGE]);
        command.set_sgl(SglDescriptor::new(SglDescriptor::DATA_BLOCK, host.iova(0), len));
        (queue.status(command), host.bytes(0, 20))
    };
    for room in [3, 10, 20] {
        let (status, bytes) = transfer(retrieve(room), room);
        let moved = 10.min(room as usize);
        assert_eq!((status, &bytes[..moved]), (Status::SUCCESS, &b"0123456789"[..moved]));
        assert!(bytes[moved..].iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(transfer(retrieve(20), 19).0, Status::DATA_SGL_LENGTH_INVALID);
    assert_eq!(transfer(store(20), 19).0, Status::DATA_SGL_LENGTH_INVALID);
    let (status, bytes) = transfer(Command::list_keys(1, None, 20), 20);
    assert_eq!((status, bytes[0]), (Status::SUCCESS, 1));
    assert_eq!(KeyList::new(&bytes[..12]).collect::<Vec<_>>(), [key()]);
    assert_eq!(bytes[12..], [0xee; 8]);
}

/// A host of another command set finds nothing of its own.
#[test]
fn block_commands_find_no_blocks() {
    let (mut host, mut queue) = with_value(b"0123456789");
    for opcode in (0..=255).filter(|opcode| ![0x00, 0x01, 0x02, 0x06, 0x10, 0x14, 0x18].contains(opcode)) {
        let command = Command { opcode, ..host.with_page(retrieve(512)) };
        let refused = exact(Status::INVALID_OPCODE.with_do_not_retry());
        assert_eq!(exact(queue.status(command)), refused, "{opcode:#x}");
    }
    assert_eq!(value(&host, &mut queue, 4096).0, 10);
    let blocks = host.with_page(Command::identify(Cns::NAMESPACE, 1, 0));
    assert_eq!(host.admin.status(blocks), Status::INVALID_COMMAND_SET);
    let page = Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, 1, Csi::KEY_VALUE);
    let id = KeyValueNamespace::read_from_bytes(&host.page(page)).unwrap();
    assert_eq!((id.size, id.utilization, id.max_key_length()), (64 << 10, 74, 16));
    let effects =
        Command { cdw14: 1 << 24, ..Command::get_log_page(LogPageId::COMMANDS_SUPPORTED, 0, 4096, 0) };
    let log = CommandsSupportedLog::read_from_bytes(&host.page(effects)).unwrap();
    let known: Vec<_> = (0..256).filter(|&opcode| log.io_commands[opcode].supported()).collect();
    assert_eq!(known, [0x00, 0x01, 0x02, 0x06, 0x10, 0x14, 0x18]);
    let store = log.io_commands[1];
    assert!(store.logical_block_content_change() && !log.io_commands[2].logical_block_content_change());
}
