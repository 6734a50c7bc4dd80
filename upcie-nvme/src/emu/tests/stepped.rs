//! A controller that takes its steps in the test's own thread, and a host whose memory the test sees.

use super::recorder::Recorder;
use crate::{
    emu::{
        FaultPlan, HostMemory, Interrupts, Machine, Media, Options, Region, Storage, faults::Place,
        layout::DSTRD,
    },
    spec::{Command, CompletionEntry, FromBytes, IntoBytes, QueuePriority, Status, doorbell_offset},
};
use nix::errno::Errno;
use std::{io, ops::Range, ptr::NonNull, time::Duration};
use upcie_core::{irq::IrqKind, vfio_user::server::Delivery};

/// CC of an enabled controller: entries of 64 and 16 bytes.
pub const ENABLED: u32 = 1 | 6 << 16 | 4 << 20;
/// The offset of the memory for data: the rings of the admin queue and of 7 queue pairs are before it.
pub const DATA: usize = 1 << 20;

/// The address of the first byte of memory, and the number of its bytes.
const BASE: u64 = 1 << 20;
const BYTES: usize = 4 << 20;
/// Bytes of the rings of a queue pair, and the offset of its completion queue in them.
const PAIR: u64 = 128 << 10;
const COMPLETIONS: u64 = 64 << 10;
/// Entries of an I/O completion queue.
const ENTRIES: u32 = 1024;

/// Bytes of the host's memory that change after they have been read.
pub struct Changing {
    /// The address that reads begin at.
    pub iova: u64,
    /// The number of reads so far.
    pub reads: usize,
    /// The number of reads after which the bytes change.
    pub after: usize,
    pub bytes: Vec<u8>,
}

/// The host's memory, which is mapped nowhere: the controller calls for each access.
pub struct Memory {
    bytes: Vec<u8>,
    pub changing: Option<Changing>,
    /// Addresses that can't be written to.
    pub sealed: Range<u64>,
    /// Addresses whose reads are counted, by the address that a read begins at.
    pub watched: Range<u64>,
    pub watched_bytes: usize,
}

impl Memory {
    fn range(&self, iova: u64, len: usize) -> io::Result<Range<usize>> {
        let start = iova.checked_sub(BASE).and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        Ok(range.filter(|range| range.end <= self.bytes.len()).ok_or(Errno::EFAULT)?)
    }

    /// Returns the address of the byte at an offset.
    pub fn iova(&self, at: usize) -> u64 {
        BASE + at as u64
    }

    pub fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }
}

// SAFETY: it translates nothing.
unsafe impl HostMemory for Memory {
    fn translate(&mut self, _iova: u64, _len: usize) -> Option<NonNull<u8>> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        let range = self.range(iova, data.len())?;
        data.copy_from_slice(&self.bytes[range]);
        if self.watched.contains(&iova) {
            self.watched_bytes += data.len();
        }
        if let Some(changing) = self.changing.as_mut().filter(|changing| changing.iova == iova) {
            changing.reads += 1;
            if changing.reads == changing.after {
                let at = (iova - BASE) as usize;
                self.bytes[at..at + changing.bytes.len()].copy_from_slice(&changing.bytes);
            }
        }
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        let range = self.range(iova, data.len())?;
        if iova < self.sealed.end && self.sealed.start < iova + data.len() as u64 {
            return Err(Errno::EACCES.into());
        }
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }
}

impl Interrupts for Memory {
    fn trigger(&mut self, _kind: IrqKind, _vector: u32) {}

    fn set_pin(&mut self, _asserted: bool) {}

    fn set_delivery(&mut self, _kind: IrqKind, _delivery: Delivery) {}

    fn set_masked(&mut self, _kind: IrqKind, _vector: u32, _masked: bool) {}

    fn is_masked(&self, _kind: IrqKind, _vector: u32) -> bool {
        false
    }

    fn is_pending(&self, _kind: IrqKind, _vector: u32) -> bool {
        false
    }
}

/// A submission queue, and the completion queue of the same identifier.
struct Rings {
    qid: u16,
    entries: [u32; 2],
    tail: u32,
    head: u32,
    phase: bool,
}

impl Rings {
    fn new(qid: u16, entries: [u32; 2]) -> Self {
        Self { qid, entries, tail: 0, head: 0, phase: false }
    }
}

/// A controller, and its host.
pub struct Stepped<M: Media = Storage> {
    pub machine: Machine<M>,
    pub memory: Memory,
    /// The time since power-on, a millisecond for each step.
    pub now: Duration,
    rings: Vec<Rings>,
}

impl Stepped {
    /// Brings up a controller with the medium that the options describe.
    pub fn new(options: &str) -> Self {
        Self::over(Machine::new(&options.parse().unwrap()).unwrap(), ENABLED)
    }
}

impl Stepped<Recorder> {
    /// Brings up a controller over a recorder, with `size` bytes for each namespace.
    pub fn recorded(options: &str, size: u64) -> Self {
        let options: Options = options.parse().unwrap();
        Self::over(Machine::with_media(&options, Recorder::default(), size).unwrap(), ENABLED)
    }

    pub fn recorder(&mut self) -> &mut Recorder {
        self.machine.media()
    }
}

impl<M: Media> Stepped<M> {
    /// Brings a controller up with this value of CC.
    pub fn over(machine: Machine<M>, cc: u32) -> Self {
        let bytes = vec![0; BYTES];
        let memory = Memory { bytes, changing: None, sealed: 0..0, watched: 0..0, watched_bytes: 0 };
        let mut stepped = Self { machine, memory, now: Duration::ZERO, rings: Vec::new() };
        // Memory and bus master.
        stepped.machine.write(&mut stepped.memory, Region::Config, 4, &[6, 0]);
        stepped.enable(cc);
        stepped
    }

    /// Disables the controller and enables it with this value of CC.
    pub fn enable(&mut self, cc: u32) {
        self.rings = vec![Rings::new(0, [16, 16])];
        self.memory.bytes[..DATA].fill(0);
        let acq = BASE + COMPLETIONS;
        for (at, value) in [
            (0x14, 0),
            (0x24, 15 | 15 << 16),
            (0x28, BASE as u32),
            (0x2c, 0),
            (0x30, acq as u32),
            (0x34, 0),
            (0x14, cc),
        ] {
            self.write_register(at, value);
        }
        let mut csts = [0; 4];
        self.machine.read(&mut self.memory, Region::Registers, 0x1c, &mut csts);
        assert_eq!(csts[0], 1, "CSTS");
    }

    /// Lets a plan without rules serve all commands in stages.
    pub fn in_stages(mut self) -> Self {
        self.inject(&FaultPlan::new(1));
        self
    }

    /// Lets the controller fail as `plan` says.
    pub fn inject(&mut self, plan: &FaultPlan) {
        self.machine.inject(plan, Place::Lockstep).unwrap();
    }

    fn write_register(&mut self, at: u64, value: u32) {
        self.machine.write(&mut self.memory, Region::Registers, at, &value.to_le_bytes());
    }

    /// Makes a queue pair, in the place of one with this identifier that was deleted.
    pub fn queue(&mut self, qid: u16, entries: u32) {
        let start = (PAIR * u64::from(qid)) as usize;
        self.memory.bytes[start..start + PAIR as usize].fill(0);
        let at = BASE + start as u64 + COMPLETIONS;
        assert_eq!(self.status(0, Command::create_completion_queue(qid, ENTRIES, at, None)), Status::SUCCESS);
        self.submission_queue(qid, entries, qid, QueuePriority::MEDIUM);
    }

    /// Makes a submission queue that completes to the queue pair `cqid`.
    pub fn submission_queue(&mut self, qid: u16, entries: u32, cqid: u16, priority: QueuePriority) {
        let at = BASE + PAIR * u64::from(qid);
        let create = Command::create_submission_queue(qid, entries, at, cqid, priority);
        assert_eq!(self.status(0, create), Status::SUCCESS);
        self.rings.retain(|rings| rings.qid != qid);
        self.rings.push(Rings::new(qid, [entries, ENTRIES]));
    }

    fn rings(&mut self, qid: u16) -> &mut Rings {
        self.rings.iter_mut().find(|rings| rings.qid == qid).unwrap()
    }

    /// Puts a command in the ring, without ringing the doorbell.
    pub fn put(&mut self, qid: u16, command: &Command) {
        let rings = self.rings(qid);
        let at = (PAIR * u64::from(qid)) as usize + rings.tail as usize * 64;
        rings.tail = (rings.tail + 1) % rings.entries[0];
        self.memory.set(at, command.as_bytes());
    }

    /// Returns `true` if the admin submission queue has no room for a command.
    pub fn is_full(&mut self) -> bool {
        let head = self.machine.queues.as_ref().map(|queues| queues.admin_sq.head());
        let rings = self.rings(0);
        head == Some((rings.tail + 1) % rings.entries[0])
    }

    pub fn ring(&mut self, qid: u16) {
        let tail = self.rings(qid).tail;
        self.write_register(doorbell_offset(qid, false, DSTRD) as u64, tail);
    }

    /// Lets the controller serve its queues once; returns the amount of work.
    pub fn step(&mut self) -> usize {
        self.now += Duration::from_millis(1);
        let now = self.now;
        self.machine.step(&mut self.memory, || now)
    }

    /// Returns the next completion, if there is one, and acknowledges it.
    pub fn next(&mut self, qid: u16) -> Option<CompletionEntry> {
        let rings = self.rings(qid);
        let at = (PAIR * u64::from(qid) + COMPLETIONS) as usize + rings.head as usize * 16;
        let phase = rings.phase;
        let done = CompletionEntry::read_from_bytes(self.memory.bytes(at, 16)).unwrap();
        if done.phase() == phase {
            return None;
        }
        let rings = self.rings(qid);
        rings.head += 1;
        if rings.head == rings.entries[1] {
            (rings.head, rings.phase) = (0, !rings.phase);
        }
        let head = rings.head;
        self.write_register(doorbell_offset(qid, true, DSTRD) as u64, head);
        Some(done)
    }

    /// Sends a command, and takes steps until it completes.
    pub fn run(&mut self, qid: u16, command: Command) -> CompletionEntry {
        self.put(qid, &command);
        self.ring(qid);
        for _ in 0..10_000 {
            self.step();
            if let Some(done) = self.next(qid) {
                return done;
            }
        }
        panic!("no completion: {command:?}");
    }

    pub fn status(&mut self, qid: u16, command: Command) -> Status {
        self.run(qid, command).status()
    }
}
