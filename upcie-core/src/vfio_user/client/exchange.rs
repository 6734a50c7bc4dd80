//! One exchange: a request, its answer, and the server's own requests for memory in between.

use crate::{
    deadline::MessageWatch,
    vfio_user::{
        copy,
        socket::{Channel, Fault, Message, message},
        wire::{DmaAccess, Header, MAX_DATA, command, flags, split},
    },
};
use nix::errno::Errno;
use std::{
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The socket, and whether it is still used.
pub(super) struct State {
    pub(super) channel: Channel,
    pub(super) next_id: u16,
    pub(super) owed: Option<Owed>,
    /// The reason why the connection is no longer used.
    pub(super) dead: Option<ConnectionEnd>,
}

/// An answer that its caller had no time left to wait for.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    /// The request's.
    pub(super) header: Header,
    /// The time that all callers together have waited for it.
    pub(super) waited: Duration,
}

#[derive(Clone, Copy)]
pub(super) enum ConnectionEnd {
    /// The server closed the connection.
    Gone,
    /// This client gave the connection up, for this reason.
    GivenUp(&'static str),
}

/// Memory that the server may request.
#[derive(Debug, Clone, Copy)]
pub struct Mapped {
    pub iova: u64,
    pub len: u64,
    pub at: NonNull<u8>,
}

// SAFETY: these are numbers; the memory behind them is accessed only with the table locked, while the table contains
// them.
unsafe impl Send for Mapped {}

/// Locks a list, which stays whole even if a thread panics with it locked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats `wait` while it reports lateness and the watch has time left.
fn slices<T>(
    watch: &mut MessageWatch<'_>,
    mut wait: impl FnMut(Instant) -> Result<T, Fault>,
) -> Result<T, Fault> {
    loop {
        let end = watch.slice().ok_or(Fault::Late)?;
        match wait(end) {
            Err(Fault::Late) => {}
            other => return other,
        }
    }
}

impl State {
    /// Sends a request, and returns its answer; answers the server's requests that come before.
    pub(super) fn exchange(
        &mut self,
        dma: &Mutex<Vec<Mapped>>,
        header: Header,
        bytes: Vec<u8>,
        fds: &[BorrowedFd<'_>],
        watch: &mut MessageWatch<'_>,
    ) -> Result<Message, Fault> {
        self.channel.send(bytes, fds)?;
        slices(watch, |end| self.channel.flush_until(end))?;
        self.answer(dma, header, watch)
    }

    /// Waits for the answer that an earlier caller had no time for, if there is one, and forgets it.
    pub(super) fn settle(
        &mut self,
        dma: &Mutex<Vec<Mapped>>,
        watch: &mut MessageWatch<'_>,
    ) -> Result<(), Fault> {
        let Some(Owed { header, waited }) = self.owed.take() else { return Ok(()) };
        let before = watch.waited();
        let answer = self.answer(dma, header, watch);
        if matches!(answer, Err(Fault::Late)) {
            self.owed = Some(Owed { header, waited: waited + watch.waited().saturating_sub(before) });
        }
        answer.map(drop)
    }

    /// Returns `false` while an answer that is late may still come, after a wait of less than `deadline` for it.
    pub(super) fn is_overdue(&self, deadline: Duration) -> bool {
        self.owed.is_none_or(|owed| owed.waited >= deadline)
    }

    /// Waits for the answer to the request of `header`; answers the server's requests that come before.
    fn answer(
        &mut self,
        dma: &Mutex<Vec<Mapped>>,
        header: Header,
        watch: &mut MessageWatch<'_>,
    ) -> Result<Message, Fault> {
        loop {
            let message = slices(watch, |end| self.channel.recv(end))?;
            if !message.header.is_reply() {
                self.serve(dma, &message)?;
                // A server that sends requests without end misses the deadline, too.
                if watch.slice().is_none() {
                    return Err(Fault::Late);
                }
            } else if message.header.id != header.id || message.header.command != header.command {
                return Err(Fault::Garbage("an answer without a request"));
            } else {
                return Ok(message);
            }
        }
    }

    /// Answers a request of the server.
    fn serve(&mut self, dma: &Mutex<Vec<Mapped>>, request: &Message) -> Result<(), Fault> {
        let header = request.header;
        let answer = match header.command {
            command::DMA_READ => dma_read(&lock(dma), &request.payload),
            command::DMA_WRITE => dma_write(&lock(dma), &request.payload),
            _ => Err(Errno::ENOTSUP),
        };
        if header.flags & flags::NO_REPLY != 0 {
            return Ok(());
        }
        let reply = Header { flags: flags::REPLY, error: 0, ..header };
        match answer {
            Ok(payload) => self.channel.send(message(reply, &[&payload]), &[]),
            Err(errno) => {
                let error = Header { flags: flags::REPLY | flags::ERROR, error: errno as u32, ..reply };
                self.channel.send(message(error, &[]), &[])
            }
        }
    }
}

/// Answers a DMA_READ, with the table of memory locked.
fn dma_read(dma: &[Mapped], payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let (access, _) = split::<DmaAccess>(payload).map_err(|_| Errno::EINVAL)?;
    if access.count > MAX_DATA {
        return Err(Errno::EINVAL);
    }
    let from = find(dma, access)?;
    let mut reply = access.as_bytes().to_vec();
    reply.resize(size_of::<DmaAccess>() + access.count as usize, 0);
    // SAFETY: the bytes are in memory that stays mapped until `forget`, which waits for the lock that the caller holds.
    unsafe { copy::read(from, &mut reply[size_of::<DmaAccess>()..]) };
    Ok(reply)
}

/// Answers a DMA_WRITE, with the table of memory locked.
fn dma_write(dma: &[Mapped], payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let (access, data) = split::<DmaAccess>(payload).map_err(|_| Errno::EINVAL)?;
    if access.count != data.len() as u64 {
        return Err(Errno::EINVAL);
    }
    let to = find(dma, access)?;
    // SAFETY: the bytes are in memory that stays mapped until `forget`, which waits for the lock that the caller holds.
    unsafe { copy::write(to, data) };
    Ok(access.as_bytes().to_vec())
}

/// Returns the address of the bytes that the server names, if they are within one mapping.
fn find(dma: &[Mapped], access: DmaAccess) -> Result<NonNull<u8>, Errno> {
    let found = dma.iter().find_map(|mapped| {
        let within = access.address.checked_sub(mapped.iova)?;
        (within.checked_add(access.count)? <= mapped.len).then(|| copy::offset(mapped.at, within as usize))
    });
    found.ok_or(Errno::EFAULT)
}
