//! Waiting for completions.
//!
//! One eventfd per vector, which queues may share. Nobody drains it: each queue has an epoll descriptor with the
//! vector's eventfd in it, edge triggered, so every interrupt wakes every queue of its vector, and one queue's wait
//! takes nothing from another's.
//!
//! With MSI-X every completion raises its vector. The pin (INTx) is level triggered and masked whenever it fires, and an
//! MSI is sent only when the last of the vector's completions had been acknowledged before: these are asked for again
//! before each sleep (`Vectors::rearm`). In this order, then, nothing is lost: forget old events, ask again, look at
//! the queue, sleep. What comes before the asking causes an event at once, what comes later its own. While completions of
//! another queue of the vector are not reaped, each asking is answered at once.

use crate::{
    Error, Patience, Result,
    controller::{Registers, lock},
};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    cell::Cell,
    collections::BTreeSet,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use upcie_core::{
    device::Device,
    irq::{EventFd, IrqKind},
};

/// The kinds that completions can come by, the best first.
const KINDS: [IrqKind; 3] = [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx];

/// The interrupts of a controller: of one kind, wired when they are first asked for.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// `None` where the way in has no interrupts.
    kind: Option<IrqKind>,
    wired: Mutex<Option<Vec<Arc<EventFd>>>>,
    /// Vectors whose interrupts were found not to arrive.
    silent: Mutex<BTreeSet<u16>>,
}

impl Vectors {
    /// Of the kind asked for, or else the best that there is.
    pub(crate) fn new(device: &dyn Device, asked: Option<IrqKind>) -> Result<Self> {
        let mut found = Vec::new();
        for kind in KINDS {
            if device.irq_count(kind)? > 0 {
                found.push(kind);
            }
        }
        let kind = match asked {
            None => found.first().copied(),
            Some(kind) if found.contains(&kind) => Some(kind),
            Some(kind) => {
                let names: Vec<_> = found.iter().map(IrqKind::to_string).collect();
                let reason = match (KINDS.contains(&kind), names.is_empty()) {
                    (false, _) => {
                        format!("{kind} interrupts are not for completions: INTx, MSI and MSI-X are")
                    }
                    (_, true) => format!("there are no {kind} interrupts, nor any other kind: poll instead"),
                    _ => format!("there are no {kind} interrupts: it has {}", names.join(" and ")),
                };
                return Err(Error::Unsupported { device: device.name().into(), reason });
            }
        };
        Ok(Self { kind, wired: Mutex::default(), silent: Mutex::default() })
    }

    pub(crate) fn kind(&self) -> Option<IrqKind> {
        self.kind
    }

    /// Those that are wired, at most `most`. The first call wires all of them, since old kernels can't add any later.
    fn wired<T>(&self, device: &dyn Device, most: u32, then: impl FnOnce(&[Arc<EventFd>]) -> T) -> Result<T> {
        let mut wired = lock(&self.wired);
        if wired.is_none() {
            *wired = Some(match self.kind {
                Some(kind) => wire(device, kind, device.irq_count(kind)?.min(most))?,
                None => Vec::new(),
            });
        }
        Ok(then(wired.as_deref().unwrap_or_default()))
    }

    /// How many can be used, of at most `most`.
    pub(crate) fn count(&self, device: &dyn Device, most: u32) -> Result<u16> {
        self.wired(device, most, |fds| fds.len() as u16)
    }

    /// The eventfd of `vector`.
    pub(crate) fn eventfd(&self, device: &dyn Device, most: u32, vector: u16) -> Result<Arc<EventFd>> {
        let (found, count) =
            self.wired(device, most, |fds| (fds.get(usize::from(vector)).cloned(), fds.len()))?;
        found.ok_or_else(|| {
            let reason = match self.kind {
                Some(kind) => {
                    format!("there is no {kind} vector {vector}: the controller has {count} that can be used")
                }
                None => format!("there is no interrupt vector {vector}: this way to the controller has none"),
            };
            Error::Argument { device: device.name().into(), reason }
        })
    }

    /// Notes that interrupts of `vector` don't arrive, and says so the first time.
    pub(crate) fn report_silence(&self, device: &str, vector: u16) {
        if lock(&self.silent).insert(vector) {
            let kind = self.kind.map_or_else(String::new, |kind| format!("{kind} "));
            tracing::warn!(
                device,
                vector,
                "{kind}interrupts of vector {vector} don't arrive: completions were found by looking, every 100 ms at worst. \
                 Its device or server does not raise them, or something else has masked or disabled them; poll instead"
            );
        }
    }

    /// The vectors that [`report_silence`](Self::report_silence) was told of.
    #[cfg(test)]
    pub(crate) fn silent(&self) -> Vec<u16> {
        lock(&self.silent).iter().copied().collect()
    }

    /// Asks for an interrupt of `vector` for whatever has not been acknowledged, and for what comes. No more than a look
    /// with MSI-X.
    pub(crate) fn rearm(&self, device: &dyn Device, registers: &Registers, vector: u16) -> Result<()> {
        match self.kind {
            Some(IrqKind::Intx) => {
                // Masked first: unmasking what is not masked asks for nothing, and a pin that was driven before it was
                // wired (by a controller whose last user was killed) may never have fired.
                device.mask_irq(IrqKind::Intx, 0, true)?;
                Ok(device.mask_irq(IrqKind::Intx, 0, false)?)
            }
            Some(IrqKind::Msi) => {
                // A mask bit that is cleared sends a message if there is cause for one. Behind the head doorbell, as
                // writes stay in order.
                registers.mask_interrupt(vector, true)?;
                registers.mask_interrupt(vector, false)
            }
            _ => Ok(()),
        }
    }
}

/// Wires `count` interrupts, or as many as the system has.
fn wire(device: &dyn Device, kind: IrqKind, count: u32) -> Result<Vec<Arc<EventFd>>> {
    let mut fds = (0..count).map(|_| EventFd::new().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    loop {
        let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        match device.set_irqs(kind, &borrowed) {
            // Several messages need an interrupt remapper, for one.
            Err(error @ upcie_core::Error::Unsupported { .. }) if fds.len() > 1 => {
                tracing::info!(device = device.name(), %error, "trying fewer");
                fds.truncate(fds.len() / 2);
            }
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(fds),
        }
    }
}

/// How to wait for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Look at the completion queue again and again: the shortest latency, a whole core. After 50 µs without result (or
    /// sooner, once that was seen to help) the core is offered to others (`sched_yield`) between looks.
    Poll,
    /// Sleep until the queue's interrupt.
    Interrupt,
    /// Poll for this long, then sleep until the interrupt; or sleep at once while polling has not paid, which is learned from
    /// the waits before and tried again now and then ([`SpinPolicy`](crate::SpinPolicy)).
    Adaptive(Duration),
}

/// The epoll descriptor of one queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Epoll,
    vector: u16,
    silence: Cell<Silence>,
    /// Kept open: the epoll set refers to it.
    _eventfd: Arc<EventFd>,
}

impl Waiter {
    pub(crate) fn new(vector: u16, eventfd: Arc<EventFd>) -> Result<Self> {
        let failed = |e: Errno| upcie_core::Error::Os {
            device: "epoll".into(),
            operation: "waiting for an interrupt vector (raise `ulimit -n` if too many files are open)"
                .into(),
            source: e.into(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        epoll.add(eventfd.as_fd(), event).map_err(failed)?;
        let silence = Cell::new(Silence { since: Instant::now(), found: 0, cursor: 0 });
        Ok(Self { epoll, vector, silence, _eventfd: eventfd })
    }

    pub(crate) fn vector(&self) -> u16 {
        self.vector
    }

    /// Forgets interrupts from before now. `cursor` tells where the completion queue stands: `true` when completions came
    /// again and again, and not one interrupt.
    pub(crate) fn forget(&self, cursor: usize) -> Result<bool> {
        let heard = self.sleep(Duration::ZERO)?;
        Ok(self.is_silent(heard, cursor))
    }

    fn is_silent(&self, heard: bool, cursor: usize) -> bool {
        let Silence { since, found, cursor: before } = self.silence.get();
        let moved = cursor != before;
        let now = Instant::now();
        let silence = match heard {
            true => Silence { since: now, found: 0, cursor },
            false => Silence { since, found: found + u32::from(moved), cursor },
        };
        self.silence.set(silence);
        // A controller raises the interrupt of what it has posted before it posts more. So one that is merely slow has
        // raised some by the time that it is found to have posted three times.
        silence.found > UNHEARD && now.duration_since(since) >= UNHEARD_FOR
    }

    /// Sleeps until an interrupt that is newer than the last [`forget`](Self::forget), at most `timeout`.
    pub(crate) fn sleep(&self, timeout: Duration) -> Result<bool> {
        let end = Instant::now().checked_add(timeout);
        loop {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let mut events = [EpollEvent::empty()];
            match self.epoll.wait(&mut events, EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::ZERO)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => {
                    self.silence.set(Silence { since: Instant::now(), found: 0, ..self.silence.get() });
                    return Ok(true);
                }
                Err(e) => {
                    return Err(upcie_core::Error::Os {
                        device: "epoll".into(),
                        operation: "waiting for an interrupt".into(),
                        source: e.into(),
                    }
                    .into());
                }
            }
        }
    }
}

/// What a queue knows of interrupts that don't come.
#[derive(Debug, Clone, Copy)]
struct Silence {
    /// Since the last interrupt, or since the queue was made.
    since: Instant,
    /// How often completions had come without one.
    found: u32,
    /// Where the completion queue stood at the last look.
    cursor: usize,
}

/// So often may completions come without an interrupt...
const UNHEARD: u32 = 3;
/// ... and for so long.
const UNHEARD_FOR: Duration = Duration::from_millis(100);

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Waiting without an interrupt, for what is not on the hot path: spins at first, then sleeps for growing times.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Patience,
    /// What had been waited when the limit began to count.
    since: Duration,
    limit: Duration,
    /// Rounds without a look at the clock.
    spins: u32,
    rounds: u32,
    /// What had been waited at the last slow check, and by now.
    checked: Duration,
    waited: Duration,
    /// The time is up: what comes now is the last look.
    expired: bool,
}

/// How often whoever waits looks whether the controller is still well: a fault is noticed within 100 ms of a wait's begin.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Rounds that spin: some 20 µs.
const SPINS: u32 = 1000;
/// The longest sleep.
const NAP_MAX: Duration = Duration::from_millis(1);

impl Backoff {
    /// For a look at memory, which costs less than a look at the clock.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            patience: Patience::new(),
            since: Duration::ZERO,
            limit,
            spins: SPINS,
            rounds: 0,
            checked: Duration::ZERO,
            waited: Duration::ZERO,
            expired: false,
        }
    }

    /// For a look at registers: each may be a message that takes seconds, so the clock is read after each.
    pub(crate) fn of_registers(limit: Duration) -> Self {
        Self { spins: 0, ..Self::new(limit) }
    }

    /// For a wait of several, of which each may take `limit` and all of them `whole`, with what `patience` has waited before.
    pub(crate) fn of_several(patience: Patience, limit: Duration, whole: Duration) -> Self {
        let mut backoff = Self { patience, ..Self::new(limit) };
        backoff.renew(limit, whole);
        backoff
    }

    /// Begins the next of several.
    pub(crate) fn renew(&mut self, limit: Duration, whole: Duration) {
        self.since = self.patience.waited();
        self.limit = limit.min(whole.saturating_sub(self.since));
        (self.rounds, self.expired) = (0, false);
        (self.checked, self.waited) = (Duration::ZERO, Duration::ZERO);
    }

    /// How long it waits.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits a little; `false` when the time is up. Once after that it is `true`, for a last look. The clock is read
    /// after the spins only, if there are any.
    pub(crate) fn pause(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds < self.spins {
            std::hint::spin_loop();
            return true;
        }
        let waited = self.patience.waited().saturating_sub(self.since);
        self.waited = waited;
        if waited >= self.limit {
            return !std::mem::replace(&mut self.expired, true);
        }
        // A tenth of what has been waited so far: at most that much is added to what is waited for.
        std::thread::sleep((waited / 10).min(NAP_MAX).min(self.limit - waited));
        true
    }

    /// Whether it is time for a check that is too slow for every round: each [`LOOK`].
    pub(crate) fn is_slow(&mut self) -> bool {
        let is_time = self.waited.saturating_sub(self.checked) >= LOOK;
        if is_time {
            self.checked = self.waited;
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Controller, ControllerOptions, emu};
    use upcie_core::pci::{ConfigSpace, cap};

    /// A PCI device is driven as PCI says: an interrupt that does not come is named, and the commands complete.
    #[test]
    fn interrupts_that_do_not_come_are_named_once() {
        let device = emu::spawn(&"size=1M,vectors=3".parse().unwrap()).unwrap();
        let controller = Controller::from_device(device.clone(), ControllerOptions::default()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
        let mut read = |count| {
            for tag in 0..count {
                let mut turn = queue.turn().unwrap();
                turn.read(&namespace, 0, controller.alloc(512).unwrap(), tag).unwrap();
                drop(turn);
                assert!(queue.wait(Wait::Interrupt, Duration::from_secs(20)).unwrap());
                assert_eq!(queue.turn().unwrap().next().unwrap().into_parts().0, tag);
            }
            controller.silent_vectors()
        };
        assert_eq!(read(200), []);
        let control = device.find_capability(cap::MSIX).unwrap().unwrap() + 2;
        // SAFETY: messages go off, and nothing else changes.
        unsafe { device.set_config_u16(control, 0) }.unwrap();
        assert_eq!(read(8), [1]);
        assert_eq!(read(2), [1], "a wait ends within 100 ms all the same");
        // SAFETY: messages go on, as the driver had them.
        unsafe { device.set_config_u16(control, 1 << 15) }.unwrap();
        assert_eq!(read(200), [1]);
    }
}
