//! The vfio-user server with the embedded controller, against a client's bytes.
//!
//! A record is a message: its kind is the command in the low four bits, and [`RAW`], [`REPLY`], [`NO_REPLY`],
//! [`BRINGS_MEMORY`]. Command 15 writes to the memory that the client shares.

use crate::wire::{Peer, Records, clear_memory, message, record, with_memory};
use std::{cell::RefCell, os::unix::fs::FileExt, sync::atomic::AtomicBool, time::Duration};
use upcie_core::vfio_user::server::Server;
use upcie_nvme::{
    emu::Emulator,
    spec::{Cns, Command, IntoBytes, QueuePriority},
};

/// The bytes are sent as they are, without a header.
const RAW: u8 = 1 << 4;
const REPLY: u8 = 1 << 5;
const NO_REPLY: u8 = 1 << 6;
const BRINGS_MEMORY: u8 = 1 << 7;
/// Writes the bytes after the first two, an offset in units of 64 bytes, to the client's memory.
const STORE: u8 = 15;

const VERSION: u8 = 1;
const DMA_MAP: u8 = 2;
const DMA_UNMAP: u8 = 3;
const GET_INFO: u8 = 4;
const GET_REGION_INFO: u8 = 5;
const GET_IRQ_INFO: u8 = 7;
const SET_IRQS: u8 = 8;
const REGION_READ: u8 = 9;
const REGION_WRITE: u8 = 10;
const RESET: u8 = 13;

thread_local! {
    static EMULATOR: RefCell<Emulator> =
        RefCell::new(Emulator::new(&"size=64K,queues=2,depth=8".parse().expect("options")).expect("an emulator"));
}

pub fn target(data: &[u8]) {
    play(data);
}

/// Serves a client; returns the bytes that it would receive.
fn play(data: &[u8]) -> Vec<u8> {
    let (peer, theirs) = Peer::new();
    clear_memory();
    for (id, (kind, payload)) in (0..).zip(Records(data)) {
        let (command, brings_memory) = (kind & 0xf, kind & BRINGS_MEMORY != 0);
        if kind & RAW != 0 {
            peer.send(payload, brings_memory);
        } else if let (STORE, [low, high, bytes @ ..]) = (command, payload) {
            let offset = u64::from(u16::from_le_bytes([*low, *high]) % 1000) * 64;
            with_memory(|file| file.write_all_at(bytes, offset).expect("memory"));
        } else {
            let flags = u32::from(kind & REPLY != 0) | if kind & NO_REPLY != 0 { 1 << 4 } else { 0 };
            peer.send(&message(id, command.into(), flags, 0, payload), brings_memory);
        }
    }
    peer.end();
    EMULATOR.with_borrow_mut(|emulator| {
        let server = Server::new().trust_memory(true).deadline(Duration::from_millis(20));
        // A client that breaks the protocol is an error, and ends its session only.
        let _ = server.serve_stream(theirs, emulator, &AtomicBool::new(false));
    });
    peer.received()
}

/// The client's address of its memory, and the offsets of its rings and data there.
const BASE: u64 = 1 << 20;
const CQ: u64 = 0x1000;
const DATA: u64 = 0x2000;
const IO_SQ: u64 = 0x3000;
const IO_CQ: u64 = 0x4000;

fn write(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    let head =
        [&offset.to_ne_bytes()[..], &region.to_ne_bytes(), &(data.len() as u32).to_ne_bytes()].concat();
    record(REGION_WRITE, &[&head, data])
}

fn read(region: u32, offset: u64, count: u32) -> Vec<u8> {
    record(REGION_READ, &[&offset.to_ne_bytes(), &region.to_ne_bytes(), &count.to_ne_bytes()])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn store(offset: u64, bytes: &[u8]) -> Vec<u8> {
    record(STORE, &[&((offset / 64) as u16).to_le_bytes(), bytes])
}

fn greeting() -> Vec<u8> {
    record(VERSION, &[b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}\0"])
}

fn map(flags: u8) -> Vec<u8> {
    let range = [0_u64, BASE, 64 << 10].map(u64::to_ne_bytes).concat();
    record(DMA_MAP | flags, &[&words(&[32, 3]), &range])
}

/// Enables the controller with admin queues in the client's memory.
fn enable() -> Vec<Vec<u8>> {
    let mut all = vec![write(7, 4, &6_u16.to_ne_bytes())];
    let acq = (BASE + CQ) as u32;
    let registers =
        [(0x24, 0x001f_001f), (0x28, BASE as u32), (0x2c, 0), (0x30, acq), (0x34, 0), (0x14, 0x0046_0001)];
    all.extend(registers.map(|(offset, value): (u64, u32)| write(0, offset, &value.to_ne_bytes())));
    all.push(read(0, 0x1c, 4));
    all
}

/// Returns commands of the admin queue: Identify, and the creation of a queue pair.
fn admin() -> [Command; 3] {
    let mut identify = Command::identify(Cns::CONTROLLER, 0, 0);
    identify.set_data_pointer(BASE + DATA, 0);
    [
        identify,
        Command::create_completion_queue(1, 8, BASE + IO_CQ, None),
        Command::create_submission_queue(1, 8, BASE + IO_SQ, 1, QueuePriority::default()),
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let unmap = record(DMA_UNMAP, &[&words(&[24, 0]), &BASE.to_ne_bytes(), &(64_u64 << 10).to_ne_bytes()]);
    let mut asking = vec![greeting(), record(GET_INFO, &[&words(&[16, 0, 0, 0])])];
    asking.extend((0..9).map(|index| record(GET_REGION_INFO, &[&words(&[4096, 0, index, 0]), &[0; 16]])));
    asking.extend((0..5).map(|index| record(GET_IRQ_INFO, &[&words(&[16, 0, index, 0])])));
    asking.push(record(SET_IRQS, &[&words(&[20, 1 << 5 | 1, 2, 0, 1])]));
    asking.push(record(SET_IRQS, &[&words(&[20, 1 << 5 | 2, 2, 0, 0])]));
    asking.extend([read(7, 0, 64), read(7, 0x34, 4), read(0, 0, 8), read(4, 0, 16)]);
    asking.extend([map(0), unmap.clone(), record(RESET, &[])]);

    let mut running = vec![greeting(), map(BRINGS_MEMORY)];
    running.extend(enable());
    running.extend((0_u64..).zip(admin()).map(|(index, command)| store(index * 64, command.as_bytes())));
    running.push(write(0, 0x1000, &3_u32.to_ne_bytes()));
    // The controller has its turn after 16 messages at most: the queue exists before its doorbell is rung.
    running.extend((0..20).map(|_| read(0, 0x1c, 4)));
    running.push(write(0, 0x1020, &3_u32.to_ne_bytes()));
    let mut io = Command::read(1, 0, 8);
    io.set_data_pointer(BASE + DATA, 0);
    running.push(store(IO_SQ, io.as_bytes()));
    running.push(write(0, 0x1040, &1_u32.to_ne_bytes()));
    running.extend((0..20).map(|_| read(0, 0x1c, 4)));
    running.extend([unmap, record(RESET, &[])]);

    // Memory that the server reaches by messages only: its requests are answered in advance.
    let mut by_message = vec![greeting(), map(0)];
    by_message.extend(enable());
    by_message.push(write(0, 0x1000, &1_u32.to_ne_bytes()));
    let [identify, ..] = admin();
    let answer = [&BASE.to_ne_bytes()[..], &64_u64.to_ne_bytes(), identify.as_bytes()].concat();
    by_message.push(record(11 | REPLY, &[&answer]));
    by_message.push(record(RAW, &[&message(0, 11, 1, 0, &answer)]));
    [asking, running, by_message].map(|records| records.concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the ids of the replies without an error.
    fn answered(data: &[u8]) -> Vec<u16> {
        let (bytes, mut ids) = (play(data), Vec::new());
        let mut rest = &bytes[..];
        while let Some((head, _)) = rest.split_first_chunk::<16>() {
            let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
            if (word(8), word(12)) == (1, 0) {
                ids.push(word(0) as u16);
            }
            rest = &rest[word(4) as usize..];
        }
        ids
    }

    #[test]
    fn the_server_answers_the_seeds() {
        let [asking, running, by_message] = seeds().try_into().unwrap();
        assert!(answered(&asking).len() >= 20, "{:?}", answered(&asking));
        // All but the writes to the client's memory.
        let messages = |data| Records(data).filter(|(kind, _)| kind & 0xf != STORE).count();
        assert_eq!(answered(&running).len(), messages(&running));
        assert!(answered(&by_message).len() >= 8, "{:?}", answered(&by_message));
    }

    #[test]
    fn a_seed_has_its_commands_carried_out() {
        let [_, running, _] = seeds().try_into().unwrap();
        play(&running);
        let mut entries = [0; 16];
        with_memory(|file| file.read_exact_at(&mut entries, IO_CQ).unwrap());
        assert_eq!(entries[14..], [1, 0], "phase 1, and success");
    }
}
