//! The descriptor of a driver: readable with the queue's interrupt, and now and then while commands are in flight.

use crate::Result;
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use std::{
    cell::Cell,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// The interval of the driver's checks while commands are in flight.
const TICK: Duration = Duration::from_millis(50);
const INTERRUPT: u64 = 0;
const TIMER: u64 = 1;

#[derive(Debug)]
pub(super) struct Signals {
    epoll: Epoll,
    timer: TimerFd,
    ticks: Cell<bool>,
    /// Kept open: the epoll set refers to it.
    _interrupts: OwnedFd,
}

fn failed(device: &str) -> impl Fn(Errno) -> crate::Error {
    move |errno| {
        let what =
            "making the descriptor of an asynchronous queue (raise `ulimit -n` if too many files are open)";
        upcie_core::Error::os(device, what, errno).into()
    }
}

impl Signals {
    pub(super) fn new(device: &str, interrupts: OwnedFd) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed(device))?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed(device))?;
        epoll.add(&interrupts, EpollEvent::new(EpollFlags::EPOLLIN, INTERRUPT)).map_err(failed(device))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER)).map_err(failed(device))?;
        Ok(Self { epoll, timer, ticks: Cell::new(false), _interrupts: interrupts })
    }

    /// Returns the descriptor for a reactor.
    pub(super) fn clone_fd(&self, device: &str) -> Result<OwnedFd> {
        let cloned = self.epoll.0.as_fd().try_clone_to_owned();
        cloned.map_err(|source| {
            let what = "duplicating the descriptor of an asynchronous queue (raise `ulimit -n`)";
            upcie_core::Error::os(device, what, source).into()
        })
    }

    /// Forgets the timer's past; returns `true` if it has expired. The interrupts' past is forgotten by the queue pair's `arm`.
    pub(super) fn clear(&self) -> Result<bool> {
        let mut events = [EpollEvent::empty(); 2];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                return Err(upcie_core::Error::os(
                    "epoll",
                    "looking for an asynchronous queue's interrupts",
                    errno,
                )
                .into());
            }
        };
        let is_due = events.iter().take(count).any(|event| event.data() == TIMER);
        if is_due {
            // Nothing else reads it; what is left says so at the next look.
            let _ = self.timer.wait();
        }
        Ok(is_due)
    }

    /// Starts the timer, or stops it.
    pub(super) fn tick(&self, on: bool) -> Result<()> {
        if self.ticks.replace(on) == on {
            return Ok(());
        }
        let set = if on {
            let every = Expiration::Interval(TimeSpec::from_duration(TICK));
            self.timer.set(every, TimerSetTimeFlags::empty())
        } else {
            self.timer.unset()
        };
        set.map_err(|errno| {
            upcie_core::Error::os("timerfd", "setting the timer of an asynchronous queue", errno).into()
        })
    }
}
