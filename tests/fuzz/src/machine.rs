//! The embedded controller as a state machine, against any host: registers, doorbells, queue entries and PRP lists.

use crate::wire::{Records, record};
use std::{cell::Cell, io, ptr::NonNull, time::Duration};
use upcie_core::{irq::IrqKind, vfio_user::server::Delivery};
use upcie_nvme::{
    emu::{HostMemory, Interrupts, Machine, Region},
    spec::{AdminOpcode, Cns, Command, DatasetRange, IntoBytes, LogPageId, QueuePriority, SglDescriptor},
};

/// The host's memory, at the address [`BASE`].
const MEMORY: usize = 64 << 10;
const BASE: u64 = 1 << 20;

/// The kinds of records.
const CONFIG_WRITE: u8 = 0;
const REGISTER_WRITE: u8 = 1;
const REGISTER_READ: u8 = 2;
const STORE: u8 = 3;
const STEP: u8 = 4;
const ACT: u8 = 5;
const RESET: u8 = 6;
const MSIX_WRITE: u8 = 7;
const READ_PART: u8 = 8;
const POWER: u8 = 9;
const KINDS: u8 = 10;

/// A host with memory, of which each byte is checked to be inside.
struct Host {
    memory: Box<[Cell<u8>]>,
    /// Accesses go through [`HostMemory::read`] and [`HostMemory::write`] alone.
    slow: bool,
}

impl Host {
    fn range(&self, iova: u64, len: usize) -> io::Result<&[Cell<u8>]> {
        let start = iova.checked_sub(BASE).and_then(|start| usize::try_from(start).ok());
        let part = start.and_then(|start| self.memory.get(start..start.checked_add(len)?));
        part.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

// SAFETY: the memory stays as long as the host; its cells are never referred to as plain bytes, and are no memory of the
// controller's.
unsafe impl HostMemory for Host {
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        if self.slow || len == 0 {
            return None;
        }
        let part = self.range(iova, len).ok()?;
        NonNull::new(part.as_ptr().cast::<u8>().cast_mut())
    }

    fn generation(&self) -> u64 {
        1
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        let part = self.range(iova, data.len())?;
        data.iter_mut().zip(part).for_each(|(byte, cell)| *byte = cell.get());
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        let part = self.range(iova, data.len())?;
        data.iter().zip(part).for_each(|(byte, cell)| cell.set(*byte));
        Ok(())
    }
}

impl Interrupts for Host {
    fn trigger(&mut self, _: IrqKind, vector: u32) {
        assert!(vector < 2048, "interrupt {vector}");
    }

    fn set_pin(&mut self, _: bool) {}

    fn set_delivery(&mut self, _: IrqKind, _: Delivery) {}

    fn set_masked(&mut self, _: IrqKind, _: u32, _: bool) {}

    fn is_masked(&self, _: IrqKind, _: u32) -> bool {
        false
    }

    fn is_pending(&self, _: IrqKind, _: u32) -> bool {
        false
    }
}

pub fn target(data: &[u8]) {
    play(data);
}

/// Drives a controller; returns the host.
fn play(data: &[u8]) -> Option<Host> {
    let (&first, records) = data.split_first()?;
    let options = if first & 1 == 0 {
        "size=64K,queues=2,depth=8,dbbuf=true"
    } else {
        "size=64K,lba=4096,msi=4,intx=true,queues=3,fdp=true,fdp-groups=2,fdp-unit=16K"
    };
    let mut machine = Machine::new(&options.parse().expect("options")).expect("a controller");
    let mut host = Host { memory: vec![Cell::new(0); MEMORY].into(), slow: first & 2 != 0 };
    let sizes = [machine.layout().regions[0].size, machine.layout().regions[4].size];
    let mut now = Duration::ZERO;
    for (kind, bytes) in Records(records) {
        now += Duration::from_micros(10);
        let [low, high, rest @ ..] = bytes else { continue };
        let offset = u64::from(u16::from_le_bytes([*low, *high]));
        let within = |size: u64| offset.checked_add(rest.len() as u64).is_some_and(|end| end <= size);
        match kind % KINDS {
            CONFIG_WRITE if within(4096) => machine.write(&mut host, Region::Config, offset, rest),
            REGISTER_WRITE if within(sizes[0]) => machine.write(&mut host, Region::Registers, offset, rest),
            MSIX_WRITE if within(sizes[1]) => machine.write(&mut host, Region::MsixTable, offset, rest),
            REGISTER_READ if within(sizes[0]) => {
                machine.read(&mut host, Region::Registers, offset, &mut vec![0; rest.len()])
            }
            READ_PART if within(sizes[1].min(4096)) => {
                machine.read(&mut host, Region::Config, offset, &mut vec![0; rest.len()]);
                machine.read(&mut host, Region::MsixTable, offset, &mut vec![0; rest.len()]);
            }
            // In units of 64 bytes.
            STORE => {
                let _ = host.write(BASE + offset % 1024 * 64, rest);
            }
            STEP => {
                machine.step(&mut host, || now);
            }
            ACT => {
                for choice in rest {
                    let actions = machine.actions(now);
                    if !actions.is_empty() {
                        machine.act_once(&mut host, actions[usize::from(*choice) % actions.len()], now);
                    }
                }
            }
            RESET => machine.reset(),
            POWER => machine.lose_power(&mut || offset),
            _ => {}
        }
    }
    for _ in 0..4 {
        now += Duration::from_secs(1);
        machine.step(&mut host, || now);
    }
    Some(host)
}

fn write(offset: u16, value: u32) -> Vec<u8> {
    record(REGISTER_WRITE, &[&offset.to_le_bytes(), &value.to_le_bytes()])
}

fn store(at: u64, bytes: &[u8]) -> Vec<u8> {
    record(STORE, &[&((at / 64) as u16).to_le_bytes(), bytes])
}

fn step() -> Vec<u8> {
    record(STEP, &[&[0; 2]])
}

// Doorbells are 32 bytes apart.

const CQ: u64 = 0x1000;
const IO_SQ: u64 = 0x2000;
const IO_CQ: u64 = 0x3000;
const LIST: u64 = 0x4000;
/// Segments of scatter gather lists.
const SEGMENTS: u64 = 0x4800;
const DATA: u64 = 0x5000;
/// Shadow doorbells, and event indices.
const SHADOWS: u64 = 0x8000;
const EVENTS: u64 = 0x9000;

fn at(mut command: Command, prp1: u64, prp2: u64) -> Command {
    command.set_data_pointer(BASE + prp1, if prp2 == 0 { 0 } else { BASE + prp2 });
    command
}

/// Returns records that send a write and a read whose data is in scatter gather lists, after six commands.
fn with_lists() -> Vec<Vec<u8>> {
    let descriptor = |kind, at: u64, len| SglDescriptor::new(kind, BASE + at, len);
    let block = SglDescriptor::DATA_BLOCK;
    let segments = [
        [descriptor(block, DATA, 2048), descriptor(block, DATA + 4096, 2048)],
        [descriptor(block, DATA, 512), descriptor(SglDescriptor::LAST_SEGMENT, SEGMENTS + 64, 32)],
        [SglDescriptor::new(SglDescriptor::BIT_BUCKET, 0, 512), descriptor(block, DATA + 512, 3072)],
    ];
    let sent = |mut command: Command, kind, at| {
        command.flags |= Command::PSDT_SGL;
        let (low, high) = descriptor(kind, at, 32).words();
        command.set_data_pointer(low, high);
        command
    };
    let write_it = sent(Command::write(1, 0, 8), SglDescriptor::LAST_SEGMENT, SEGMENTS);
    let read_it = sent(Command::read(1, 0, 8), SglDescriptor::SEGMENT, SEGMENTS + 32);
    vec![
        step(),
        step(),
        write(0x1060, 6),
        store(SEGMENTS, segments.as_bytes()),
        store(IO_SQ + 6 * 64, write_it.as_bytes()),
        store(IO_SQ + 7 * 64, read_it.as_bytes()),
        write(0x1040, 0),
        step(),
        step(),
    ]
}

/// Returns records that configure doorbell buffers and send a flush by a shadow doorbell, after six commands of each queue.
fn with_buffers() -> Vec<Vec<u8>> {
    let command = Command::admin(AdminOpcode::DOORBELL_BUFFER_CONFIG, 0);
    vec![
        step(),
        step(),
        write(0x1060, 6),
        store(6 * 64, at(command, SHADOWS, EVENTS).as_bytes()),
        write(0x1000, 7),
        step(),
        store(IO_SQ + 6 * 64, Command::flush(1).as_bytes()),
        store(SHADOWS + 0x40, &[7, 0, 0, 0]),
        step(),
        step(),
    ]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut start = vec![record(CONFIG_WRITE, &[&[4, 0], &[6, 0]])];
    let acq = (BASE + CQ) as u32;
    let registers =
        [(0x24, 0x001f_001f), (0x28, BASE as u32), (0x2c, 0), (0x30, acq), (0x34, 0), (0x14, 0x0046_0001)];
    start.extend(registers.map(|(offset, value): (u16, u32)| write(offset, value)));
    start.push(record(REGISTER_READ, &[&[0x1c, 0], &[0; 4]]));
    let admin = [
        at(Command::identify(Cns::CONTROLLER, 0, 0), DATA, 0),
        at(Command::get_log_page(LogPageId::SMART, u32::MAX, 512, 0), DATA + 512, 0),
        Command::create_completion_queue(1, 8, BASE + IO_CQ, Some(1)),
        Command::create_submission_queue(1, 8, BASE + IO_SQ, 1, QueuePriority::default()),
        Command::asynchronous_event_request(),
        Command::abort(1, 3),
    ];
    start.extend((0..).zip(admin).map(|(index, command)| store(index * 64, command.as_bytes())));
    start.extend([write(0x1000, admin.len() as u32), step(), write(0x1020, 4)]);
    start.push(store(LIST, [BASE + DATA + 4096, BASE + DATA + 8192].as_bytes()));
    start.push(store(DATA, DatasetRange::new(0, 4).as_bytes()));
    let io = [
        at(Command::write(1, 0, 8), DATA, 0),
        at(Command::read(1, 0, 8), DATA + 512, DATA + 4096),
        at(Command::read(1, 4, 24), DATA, LIST),
        at(Command::deallocate(1, 1), DATA, 0),
        Command::write_zeroes(1, 8, 4),
        Command::flush(1),
    ];
    start.extend((0..).zip(io).map(|(index, command)| store(IO_SQ + index * 64, command.as_bytes())));
    start.push(write(0x1040, io.len() as u32));
    let (mut stepped, mut acted) = (vec![vec![0]], vec![vec![2]]);
    let listed = [vec![vec![0]], start.clone(), with_lists()].concat();
    let buffered = [vec![vec![0]], start.clone(), with_buffers()].concat();
    stepped.extend(start.clone());
    stepped.extend([
        step(),
        step(),
        write(0x1060, 6),
        write(0x14, 0x0046_4001),
        step(),
        write(0x14, 0),
        step(),
    ]);
    acted.extend(start);
    acted.extend([record(ACT, &[&[0, 0], &[7; 200]]), record(MSIX_WRITE, &[&[12, 0], &[1, 0, 0, 0]])]);
    acted.extend([
        record(READ_PART, &[&[0, 0], &[0; 64]]),
        record(POWER, &[&[1, 0]]),
        record(RESET, &[&[0, 0]]),
    ]);
    let with_pin = [vec![1], stepped[1..].concat()].concat();
    vec![stepped.concat(), acted.concat(), with_pin, listed.concat(), buffered.concat()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_carries_out_the_seeds_commands() {
        for (index, seed) in seeds().iter().enumerate() {
            let mut host = play(seed).unwrap();
            let completions = (0..8).map(|entry| {
                let mut bytes = [0; 16];
                host.read(BASE + IO_CQ + entry * 16, &mut bytes).unwrap();
                u16::from_le_bytes([bytes[14], bytes[15]])
            });
            let completions: Vec<_> = completions.collect();
            // With blocks of 4 KiB some transfers are too long.
            let good = completions.iter().filter(|&&status| status == 1).count();
            let wanted = [6, 6, 2, 8, 7][index];
            assert!(good >= wanted, "seed {index}: {completions:x?}");
        }
    }
}
