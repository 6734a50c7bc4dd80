//! The client of a server, as its backend uses it.

use super::{
    client_memory::{Place, Table, Window},
    device_memory::DeviceMemory,
    irqs::{Delivery, Irqs},
};
use crate::{
    irq::IrqKind,
    memory::Memory,
    vfio_user::{
        copy,
        socket::{Channel, Fault, message, poll_for},
        wire::{DmaAccess, Header, command, flags, split},
    },
};
use nix::{errno::Errno, sys::mman::ProtFlags};
use std::{
    io,
    ops::Range,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The client of a server: its memory and its interrupts, and the socket by which it answers.
#[derive(Debug)]
pub struct Client<'a> {
    /// The range found by the last [`translate`](Self::translate).
    last: Window,
    generation: u64,
    pub(super) table: Table,
    /// Memories of the device at addresses of the client.
    device_memory: Vec<DeviceMemory>,
    pub(super) irqs: Irqs,
    pub(super) channel: Channel,
    /// The fault that ended the connection during the backend's turn.
    pub(super) fault: Option<Fault>,
    /// Bytes of data that the client accepts in a message.
    pub(super) max_data: u64,
    next_id: u16,
    deadline: Duration,
    /// Time of the first request to the client in the backend's turn.
    turn: Option<Instant>,
    slow: bool,
    stop: &'a AtomicBool,
}

/// Numbers the sessions of the process, so that no two sessions share a generation: a backend that gets another client
/// never takes the last one's pointers for valid.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// Time in a backend's turn that it may wait for a client's answers before it should end the turn.
const SLOW_TURN: Duration = Duration::from_millis(50);
/// The longest sleep between two checks whether the server is to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

const NOWHERE: Window = Window { start: 0, len: 0, base: NonNull::dangling() };

impl<'a> Client<'a> {
    pub(super) fn new(
        channel: Channel,
        irqs: Irqs,
        deadline: Duration,
        table: Table,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            last: NOWHERE,
            generation: SESSIONS.fetch_add(1, Ordering::Relaxed) << 32,
            table,
            device_memory: Vec::new(),
            irqs,
            channel,
            fault: None,
            max_data: 0,
            next_id: 0,
            deadline,
            turn: None,
            slow: false,
            stop,
        }
    }

    /// Returns the address in this process of `len` bytes at the client's address `iova`, if they are mapped in one
    /// piece, readable and writable. It is valid while [`generation`](Self::generation) stays the same. The last range
    /// found is cached.
    ///
    /// The client changes this memory at any time: use raw pointers only, no references, and read each byte once.
    #[inline]
    pub fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        let within = iova.wrapping_sub(self.last.start);
        if within < self.last.len && len as u64 <= self.last.len - within {
            return Some(copy::offset(self.last.base, within as usize));
        }
        self.translate_anew(iova, len)
    }

    #[cold]
    fn translate_anew(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        let window = self.window(iova)?;
        self.last = window;
        let within = iova - window.start;
        (len as u64 <= window.len - within).then(|| copy::offset(window.base, within as usize))
    }

    /// Puts memories of the device at the client's addresses from each `.0` on, in front of what the client has mapped
    /// there, and takes away what was put before. [`translate`](Self::translate), [`read`](Self::read) and
    /// [`write`](Self::write) find these bytes then. Returns `false`, and puts nothing, if one would not end before the
    /// last address, or two would overlap.
    pub fn set_device_memory(&mut self, memories: Vec<(u64, Arc<Memory>)>) -> bool {
        self.forget_translations();
        self.device_memory.clear();
        for (start, memory) in memories {
            let device = DeviceMemory::new(start, memory)
                .filter(|device| !self.device_memory.iter().any(|other| other.overlaps(device)));
            let Some(device) = device else {
                self.device_memory.clear();
                return false;
            };
            self.device_memory.push(device);
        }
        true
    }

    /// Returns the addresses of one of the [device's memories](Self::set_device_memory), in the order in which they
    /// were put.
    pub fn device_memory(&self, index: usize) -> Option<Range<u64>> {
        self.device_memory.get(index).map(DeviceMemory::range)
    }

    /// Returns the range around `iova` that is mapped in this process, the device's or the client's.
    fn window(&self, iova: u64) -> Option<Window> {
        let mut of_device = self.device_memory.iter();
        of_device.find_map(|device| device.window(iova)).or_else(|| {
            let window = self.table.window(iova)?;
            Some(self.device_memory.iter().fold(window, |window, device| device.uncovered(window, iova)))
        })
    }

    /// Returns the location of the bytes from `iova` on and how many are contiguous, if this access is allowed.
    fn find(&self, iova: u64, access: ProtFlags) -> Result<(Place, u64), Errno> {
        if let Some(window) = self.device_memory.iter().find_map(|device| device.window(iova)) {
            let within = iova - window.start;
            return Ok((Place::Mapped(copy::offset(window.base, within as usize)), window.len - within));
        }
        let (place, len) = self.table.find(iova, access)?;
        let len = self.device_memory.iter().fold(len, |len, device| device.uncovered_len(iova, len));
        Ok((place, len))
    }

    /// Returns a number that changes whenever memory is taken away, which invalidates earlier pointers.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Forgets cached translations after memory was taken away.
    pub(super) fn forget_translations(&mut self) {
        self.last = NOWHERE;
        self.generation += 1;
    }

    /// Copies from the client's memory, which may be mapped in pieces, or not at all and accessed by message.
    ///
    /// # Errors
    /// The range does not belong to the client (`EFAULT`), must not be read (`EACCES`), or the client is gone
    /// (`ENOTCONN`) or refuses. Part of `data` may have been read then.
    pub fn read(&mut self, mut iova: u64, mut data: &mut [u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (place, together) = self.find(iova, ProtFlags::PROT_READ)?;
            let len = usize::try_from(together).unwrap_or(usize::MAX).min(data.len());
            let (part, rest) = data.split_at_mut(len);
            match place {
                // SAFETY: `len` bytes are mapped there, readable, and nothing is unmapped meanwhile.
                Place::Mapped(from) => unsafe { copy::read(from, part) },
                Place::ByMessage => self.read_by_message(iova, part)?,
            }
            data = rest;
            iova = iova.wrapping_add(len as u64);
        }
        Ok(())
    }

    /// Copies to the client's memory.
    ///
    /// # Errors
    /// The range does not belong to the client (`EFAULT`), must not be written (`EACCES`), or the client is gone
    /// (`ENOTCONN`) or refuses. Part of `data` may have been written then.
    pub fn write(&mut self, mut iova: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (place, together) = self.find(iova, ProtFlags::PROT_WRITE)?;
            let len = usize::try_from(together).unwrap_or(usize::MAX).min(data.len());
            let (part, rest) = data.split_at(len);
            match place {
                // SAFETY: `len` bytes are mapped there, writable, and nothing is unmapped meanwhile.
                Place::Mapped(to) => unsafe { copy::write(to, part) },
                Place::ByMessage => self.write_by_message(iova, part)?,
            }
            data = rest;
            iova = iova.wrapping_add(len as u64);
        }
        Ok(())
    }

    /// Returns whether the client's answers, about memory that is not mapped here, were so slow that the backend should
    /// end its turn after the present command: other clients, and a stop of the server, have to wait for it.
    #[inline]
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Begins a turn of the backend.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        if self.turn.is_some() {
            (self.turn, self.slow) = (None, false);
        }
    }

    /// Raises an interrupt. While the client has masked it, or has set no eventfd for it, it is
    /// [pending](Self::is_pending).
    pub fn trigger(&mut self, kind: IrqKind, vector: u32) {
        self.irqs.trigger(kind as u32, vector);
    }

    /// Drives the pin (INTx), or stops driving it. While it is driven, the client gets an interrupt as soon as it has set
    /// an eventfd and unmasked the pin, and each interrupt masks the pin.
    pub fn set_pin(&mut self, asserted: bool) {
        self.irqs.set_pin(asserted);
    }

    /// Sets whether interrupts of a kind are delivered to the client. The client controls that in configuration space:
    /// MSI-X Enable and its function mask, MSI Enable, bus master. At first all kinds are.
    #[inline]
    pub fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        self.irqs.set_delivery(kind, delivery);
    }

    /// Masks or unmasks a vector, for a device whose own registers do so (MSI-X's vector control). An interrupt raised
    /// while it was masked is delivered at the unmasking.
    pub fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        self.irqs.set_masked(kind, vector, masked);
    }

    /// Returns whether a vector is masked: by the device's registers, by DEVICE_SET_IRQS, or because it has no eventfd.
    pub fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        self.irqs.is_masked(kind, vector)
    }

    /// Returns whether a raised vector waits for its unmasking, its eventfd, or its kind's
    /// [delivery](Self::set_delivery).
    pub fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        self.irqs.is_pending(kind, vector)
    }

    fn read_by_message(&mut self, iova: u64, data: &mut [u8]) -> Result<(), Errno> {
        let mut address = iova;
        for part in data.chunks_mut(self.chunk()?) {
            let access = DmaAccess { address, count: part.len() as u64 };
            let reply = self.ask(command::DMA_READ, &[access.as_bytes()])?;
            let (echo, bytes) = split::<DmaAccess>(&reply).map_err(|why| self.broken(why))?;
            if echo != access || bytes.len() != part.len() {
                return Err(self.broken("a DMA_READ answered with other bytes"));
            }
            part.copy_from_slice(bytes);
            address = address.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    fn write_by_message(&mut self, iova: u64, data: &[u8]) -> Result<(), Errno> {
        let mut address = iova;
        for part in data.chunks(self.chunk()?) {
            let access = DmaAccess { address, count: part.len() as u64 };
            self.ask(command::DMA_WRITE, &[access.as_bytes(), part])?;
            address = address.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    fn chunk(&self) -> Result<usize, Errno> {
        usize::try_from(self.max_data).ok().filter(|&size| size > 0).ok_or(Errno::ENOTCONN)
    }

    /// Sends a request to the client and waits for its answer. The client's requests are kept meanwhile.
    fn ask(&mut self, command: u16, parts: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        if self.fault.is_some() {
            return Err(Errno::ENOTCONN);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let header = Header { id, command, flags: flags::COMMAND, ..Header::default() };
        self.exchange(header, parts).map_err(|fault| {
            self.fault = Some(fault);
            Errno::ENOTCONN
        })?
    }

    fn exchange(&mut self, header: Header, parts: &[&[u8]]) -> Result<Result<Vec<u8>, Errno>, Fault> {
        // All requests of a turn share one deadline: a client that is just in time for each would keep others waiting.
        let begin = *self.turn.get_or_insert_with(Instant::now);
        self.channel.send(message(header, parts), &[])?;
        let reply = loop {
            self.channel.flush()?;
            if let Some(reply) = self.channel.try_reply()? {
                break reply;
            }
            self.wait(begin)?;
        };
        self.slow = begin.elapsed() > SLOW_TURN;
        if reply.header.id != header.id || reply.header.command != header.command {
            return Err(Fault::Garbage("an answer without a request"));
        }
        if reply.header.flags & flags::ERROR != 0 {
            return Ok(Err(Errno::from_raw(reply.header.error as i32)));
        }
        Ok(Ok(reply.payload))
    }

    /// Waits for the client, until the deadline after `begin`.
    fn wait(&mut self, begin: Instant) -> Result<(), Fault> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Fault::Closed);
        }
        let left = self.deadline.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        poll_for(&mut [self.channel.poll_fd()], left.min(STOP_CHECK)).map_err(Fault::Os)
    }

    /// Closes the connection at the end of the backend's turn. The session ends as if the client had left: the backend is
    /// reset, and the server goes on with the next client.
    pub fn disconnect(&mut self) {
        self.fault.get_or_insert(Fault::Closed);
    }

    fn broken(&mut self, why: &'static str) -> Errno {
        self.fault = Some(Fault::Garbage(why));
        Errno::ENOTCONN
    }
}
