//! The interrupts of a queue: an epoll descriptor on its vector, and on what wakes all queues.

use crate::Result;
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    cell::Cell,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};
use upcie_core::{clock::Clock, irq::EventFd};

/// The epoll descriptor of one queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Epoll,
    vector: u16,
    silence: Cell<Silence>,
    /// Kept open: the epoll set refers to them.
    _events: [Arc<EventFd>; 2],
}

impl Waiter {
    /// Makes the descriptor for a queue whose interrupts `interrupt` counts; `wake` makes it readable, too.
    pub(crate) fn new(
        vector: u16,
        interrupt: Arc<EventFd>,
        wake: Arc<EventFd>,
        clock: &dyn Clock,
    ) -> Result<Self> {
        let failed = |e: Errno| {
            upcie_core::Error::os(
                "epoll",
                "waiting for an interrupt vector (raise `ulimit -n` if too many files are open)",
                e,
            )
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        let events = [interrupt, wake];
        for fd in &events {
            epoll.add(fd.as_fd(), event).map_err(failed)?;
        }
        let silence = Cell::new(Silence { since: clock.now(), found: 0, cursor: 0 });
        Ok(Self { epoll, vector, silence, _events: events })
    }

    pub(crate) fn vector(&self) -> u16 {
        self.vector
    }

    /// Forgets past interrupts. `cursor` is the completion queue's position. Returns `true` when completions
    /// came again and again without an interrupt.
    pub(crate) fn forget(&self, clock: &dyn Clock, cursor: usize) -> Result<bool> {
        let heard = loop {
            match self.epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO) {
                Ok(count) => break count > 0,
                Err(Errno::EINTR) => {}
                Err(e) => {
                    return Err(upcie_core::Error::os("epoll", "looking for interrupts", e).into());
                }
            }
        };
        Ok(self.is_silent(heard, cursor, clock.now()))
    }

    fn is_silent(&self, heard: bool, cursor: usize, now: Duration) -> bool {
        let Silence { since, found, cursor: before } = self.silence.get();
        let moved = cursor != before;
        let silence = match heard {
            true => Silence { since: now, found: 0, cursor },
            false => Silence { since, found: found + u32::from(moved), cursor },
        };
        self.silence.set(silence);
        // A controller raises the interrupt of a completion before it posts further ones. So a slow
        // controller that has posted three times has raised some interrupt by then.
        silence.found > UNHEARD && now.saturating_sub(since) >= UNHEARD_FOR
    }
}

/// A record of completions that came without an interrupt.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// Time of the last interrupt, or of the queue's creation.
    since: Duration,
    /// Completions found without an interrupt since then.
    found: u32,
    /// The completion queue's position at the last look.
    cursor: usize,
}

/// This many completions may come without an interrupt...
const UNHEARD: u32 = 3;
/// ... and for this long.
const UNHEARD_FOR: Duration = Duration::from_millis(100);

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
