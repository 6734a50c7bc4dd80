//! The client as a backend sees it.

use super::{
    client_memory::{Place, Table, Window},
    irqs::{Delivery, Irqs},
};
use crate::{
    irq::IrqKind,
    vfio_user::{
        copy,
        socket::{Channel, Fault, message, poll_for},
        wire::{DmaAccess, Header, command, flags, split},
    },
};
use nix::{errno::Errno, sys::mman::ProtFlags};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The client of a server: its memory and its interrupts.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The range that the last [`translate`](Self::translate) found.
    last: Window,
    generation: u64,
    pub(super) table: Table,
    pub(super) irqs: Irqs,
    pub(super) channel: Channel,
    /// What ended the connection while the backend had its turn.
    pub(super) fault: Option<Fault>,
    /// Bytes of data that the client takes in a message.
    pub(super) max_data: u64,
    next_id: u16,
    deadline: Duration,
    /// Since when the backend has its turn, if it has asked the client for something.
    turn: Option<Instant>,
    tired: bool,
    stop: &'a AtomicBool,
}

/// Numbers the sessions of the process, so that no two have a generation in common: a backend that is given to another
/// client takes no pointer of the last one's for good.
static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// How much of a backend's turn may go by in waiting for a client's answers before it should end.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest sleep in which nobody looks whether the server is to stop.
const NAP: Duration = Duration::from_millis(50);

const NOWHERE: Window = Window { start: 0, len: 0, base: NonNull::dangling() };

impl<'a> Guest<'a> {
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
            irqs,
            channel,
            fault: None,
            max_data: 0,
            next_id: 0,
            deadline,
            turn: None,
            tired: false,
            stop,
        }
    }

    /// Where `len` bytes at the client's address `iova` are mapped in this process, readable and writable, if they are
    /// mapped in one piece. Valid while [`generation`](Self::generation) stays the same. Remembers its last hit.
    ///
    /// The client changes this memory at any time: raw pointers only, no references, each byte read once.
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
        let window = self.table.window(iova)?;
        self.last = window;
        let within = iova - window.start;
        (len as u64 <= window.len - within).then(|| copy::offset(window.base, within as usize))
    }

    /// Changes whenever memory was taken away: pointers from before are then void.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Memory was taken away.
    pub(super) fn forget_translations(&mut self) {
        self.last = NOWHERE;
        self.generation += 1;
    }

    /// Copies from the client's memory, mapped in pieces or not mapped at all (then by message).
    ///
    /// # Errors
    /// The range is not the client's (`EFAULT`), may not be read (`EACCES`), or the client is gone (`ENOTCONN`) or
    /// says no. Part of `data` may have been read then.
    pub fn read(&mut self, mut iova: u64, mut data: &mut [u8]) -> Result<(), Errno> {
        while !data.is_empty() {
            let (place, together) = self.table.find(iova, ProtFlags::PROT_READ)?;
            let len = usize::try_from(together).unwrap_or(usize::MAX).min(data.len());
            let (part, rest) = data.split_at_mut(len);
            match place {
                // SAFETY: that many bytes are mapped there, readable, and nothing is unmapped meanwhile.
                Place::Here(from) => unsafe { copy::read(from, part) },
                Place::There => self.read_by_message(iova, part)?,
            }
            data = rest;
            iova = iova.wrapping_add(len as u64);
        }
        Ok(())
    }

    /// Copies to the client's memory.
    ///
    /// # Errors
    /// The range is not the client's (`EFAULT`), may not be written (`EACCES`), or the client is gone (`ENOTCONN`) or
    /// says no. Part of `data` may have been written then.
    pub fn write(&mut self, mut iova: u64, mut data: &[u8]) -> Result<(), Errno> {
        while !data.is_empty() {
            let (place, together) = self.table.find(iova, ProtFlags::PROT_WRITE)?;
            let len = usize::try_from(together).unwrap_or(usize::MAX).min(data.len());
            let (part, rest) = data.split_at(len);
            match place {
                // SAFETY: that many bytes are mapped there, writable, and nothing is unmapped meanwhile.
                Place::Here(to) => unsafe { copy::write(to, part) },
                Place::There => self.write_by_message(iova, part)?,
            }
            data = rest;
            iova = iova.wrapping_add(len as u64);
        }
        Ok(())
    }

    /// Whether the client took so long with its answers, to accesses of memory that is not mapped here, that the backend
    /// should end its turn after the piece of work at hand: others, and the end of the server, wait.
    #[inline]
    pub fn is_slow(&self) -> bool {
        self.tired
    }

    /// The backend has its turn now.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        if self.turn.is_some() {
            (self.turn, self.tired) = (None, false);
        }
    }

    /// Raises an interrupt. While the client has masked it, or wired no eventfd to it, it [waits](Self::is_pending).
    pub fn trigger(&mut self, kind: IrqKind, vector: u32) {
        self.irqs.trigger(kind as u32, vector);
    }

    /// Drives the pin (INTx), or lets go of it. While driven it interrupts the client as soon as that has wired and
    /// unmasked it, and is masked each time.
    pub fn set_pin(&mut self, asserted: bool) {
        self.irqs.set_pin(asserted);
    }

    /// Sets whether interrupts of a kind go to the client, which chooses the kind in configuration space: MSI-X Enable and
    /// its function mask, MSI Enable, bus master. All kinds do until this says otherwise.
    #[inline]
    pub fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        self.irqs.set_delivery(kind, delivery);
    }

    /// Masks or unmasks a vector, for a device whose own registers do so (MSI-X's vector control). One that was raised
    /// meanwhile goes to the client when it is unmasked.
    pub fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        self.irqs.set_masked(kind, vector, masked);
    }

    /// Whether a vector is masked: by the device's registers or by DEVICE_SET_IRQS, or because no eventfd is wired to it.
    pub fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        self.irqs.is_masked(kind, vector)
    }

    /// Whether a vector was raised and waits for its mask, its eventfd or its kind's [delivery](Self::set_delivery).
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

    /// Asks the client and waits for its answer. What it asks meanwhile is kept for later.
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
        // One deadline for all that the backend asks in its turn: a client that is always just in time keeps others waiting.
        let begin = *self.turn.get_or_insert_with(Instant::now);
        self.channel.send(message(header, parts), &[])?;
        let reply = loop {
            self.channel.flush()?;
            if let Some(reply) = self.channel.try_reply()? {
                break reply;
            }
            self.wait(begin + self.deadline)?;
        };
        self.tired = begin.elapsed() > PATIENCE;
        if reply.header.id != header.id || reply.header.command != header.command {
            return Err(Fault::Garbage("an answer to nothing that was asked"));
        }
        if reply.header.flags & flags::ERROR != 0 {
            return Ok(Err(Errno::from_raw(reply.header.error as i32)));
        }
        Ok(Ok(reply.payload))
    }

    /// Waits for the client.
    fn wait(&mut self, deadline: Instant) -> Result<(), Fault> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Fault::Closed);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        poll_for(&mut [self.channel.poll_fd()], left.min(NAP)).map_err(Fault::Os)
    }

    fn broken(&mut self, why: &'static str) -> Errno {
        self.fault = Some(Fault::Garbage(why));
        Errno::ENOTCONN
    }
}
