//! The interrupt vectors of a controller, wired when they are first asked for.

use super::{Limit, Registers, lock};
use crate::{Error, Result};
use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::{Arc, Mutex},
};
use upcie_core::{
    device::Device,
    events::emit,
    gate::{Gate, Pass},
    irq::{EventFd, IrqKind},
};

/// The interrupt kinds that completions can use, the best first.
const KINDS: [IrqKind; 3] = [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx];

/// The interrupts of a controller: of one kind, wired when they are first asked for.
#[derive(Debug)]
pub(crate) struct Vectors {
    /// `None` if the transport has no interrupts.
    kind: Option<IrqKind>,
    wired: Gate<Option<Vec<Arc<EventFd>>>>,
    /// Wakes all that wait for an interrupt. Nobody else has it, so that a write to it never waits.
    pub(super) wake: Arc<EventFd>,
    /// Vectors whose interrupts were found not to arrive.
    silent: Mutex<BTreeSet<u16>>,
}

impl Vectors {
    /// Chooses the kind that was `asked` for, or else the best kind that the device has.
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
                return Err(Error::unsupported(device.name(), reason));
            }
        };
        let wake = Arc::new(EventFd::new()?);
        Ok(Self { kind, wired: Gate::default(), wake, silent: Mutex::default() })
    }

    pub(crate) fn kind(&self) -> Option<IrqKind> {
        self.kind
    }

    /// Enters the vectors. If another thread is wiring them, waits for it within `limit`.
    fn enter(&self, device: &dyn Device, limit: &Limit<'_>) -> Result<Pass<'_, Option<Vec<Arc<EventFd>>>>> {
        limit.enter(&self.wired).ok_or_else(|| {
            let what = "turning interrupts on: waiting for calls of other threads";
            Error::timeout(device.name(), what, limit.whole())
        })
    }

    /// Returns the wired vectors, at most `most`. The first call wires all of them, since old kernels can't
    /// add any later. If another thread is wiring them, waits for it. All of it is within `limit`.
    fn with_vectors<T>(
        &self,
        device: &dyn Device,
        most: u32,
        limit: &mut Limit<'_>,
        then: impl FnOnce(&[Arc<EventFd>]) -> T,
    ) -> Result<T> {
        let mut wired = self.enter(device, limit)?;
        let _budget = limit.budget();
        if wired.is_none() {
            *wired = Some(match self.kind {
                Some(kind) => wire(device, kind, device.irq_count(kind)?.min(most))?,
                None => Vec::new(),
            });
        }
        Ok(then(wired.as_deref().unwrap_or_default()))
    }

    /// Returns the number of vectors that can be used, of at most `most`.
    pub(crate) fn count(&self, device: &dyn Device, most: u32, limit: &mut Limit<'_>) -> Result<u16> {
        self.with_vectors(device, most, limit, |fds| fds.len() as u16)
    }

    /// Returns the eventfd of `vector`.
    pub(crate) fn eventfd(
        &self,
        device: &dyn Device,
        most: u32,
        limit: &mut Limit<'_>,
        vector: u16,
    ) -> Result<Arc<EventFd>> {
        let (found, count) =
            self.with_vectors(device, most, limit, |fds| (fds.get(usize::from(vector)).cloned(), fds.len()))?;
        found.ok_or_else(|| {
            let reason = match self.kind {
                Some(kind) => {
                    format!("there is no {kind} vector {vector}: the controller has {count} that can be used")
                }
                None => format!("there is no interrupt vector {vector}: this transport has none"),
            };
            Error::argument(device.name(), reason)
        })
    }

    /// Wires the vectors that were wired again: a reset may have turned them off. If another thread is wiring them, which the reset
    /// may have undone, waits for it within `limit`.
    pub(super) fn wire_again(&self, device: &dyn Device, limit: &Limit<'_>) -> Result<()> {
        let Some(kind) = self.kind else { return Ok(()) };
        let wired = self.enter(device, limit)?;
        let Some(fds) = &*wired else { return Ok(()) };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        device.set_irqs(kind, &[])?;
        Ok(device.set_irqs(kind, &fds)?)
    }

    /// Wakes all that wait for an interrupt of any vector: what has happened raises none.
    pub(super) fn wake_all(&self, device: &str) {
        if let Err(error) = self.wake.signal() {
            let device = device.to_owned();
            emit(move || tracing::warn!(device, %error, "who waits for an interrupt is not told of a reset"));
        }
    }

    /// Notes that interrupts of `vector` don't arrive, and logs it the first time.
    pub(crate) fn report_silence(&self, device: &str, vector: u16) {
        if lock(&self.silent).insert(vector) {
            let kind = self.kind.map_or_else(String::new, |kind| format!("{kind} "));
            tracing::warn!(
                device,
                vector,
                "{kind}interrupts of vector {vector} don't arrive: completions were found by polling, every 100 ms at worst. \
                 Its device or server does not raise them, or something else has masked or disabled them; poll instead"
            );
        }
    }

    /// Returns the vectors that [`report_silence`](Self::report_silence) has noted.
    #[cfg(test)]
    pub(crate) fn silent(&self) -> Vec<u16> {
        lock(&self.silent).iter().copied().collect()
    }

    /// Asks for an interrupt of `vector` for every completion that was not acknowledged yet, and for those to
    /// come. Does nothing with MSI-X.
    pub(crate) fn rearm(&self, device: &dyn Device, registers: &Registers, vector: u16) -> Result<()> {
        match self.kind {
            Some(IrqKind::Intx) => {
                // Mask first: unmasking an unmasked interrupt does nothing, and a pin that was asserted
                // before it was wired (by a controller whose last user was killed) may never have fired.
                device.mask_irq(IrqKind::Intx, 0, true)?;
                Ok(device.mask_irq(IrqKind::Intx, 0, false)?)
            }
            Some(IrqKind::Msi) => {
                // Clearing a mask bit sends a message if a completion waits. Writes stay in order, so this
                // comes after the head doorbell.
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
            // The system may lack an interrupt remapper, which several messages need.
            Err(error)
                if matches!(error.failure(), upcie_core::Failure::Unsupported { .. }) && fds.len() > 1 =>
            {
                let device = device.name().to_owned();
                emit(move || tracing::info!(device, %error, "trying fewer"));
                fds.truncate(fds.len() / 2);
            }
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(fds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, emu, wait::Waiter};
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::{fs::File, io::Write, sync::mpsc, time::Duration};
    use upcie_core::{
        clock::{Clock, SystemClock},
        irq::wait_readable,
        pci::{ConfigSpace, cap},
    };

    /// The system's time; tells a test of each reading.
    #[derive(Debug)]
    struct Telling(Mutex<mpsc::Sender<()>>);

    impl Clock for Telling {
        fn now(&self) -> Duration {
            // The test may have ended.
            let _ = lock(&self.0).send(());
            SystemClock.now()
        }

        fn sleep(&self, time: Duration) {
            SystemClock.sleep(time);
        }
    }

    #[test]
    fn vectors_that_a_thread_is_wiring_are_wired_again() {
        const LONG: Duration = Duration::from_secs(60);
        let device = emu::spawn(&"size=1M,vectors=3".parse().unwrap()).unwrap();
        let device = &*device;
        let control = device.find_capability(cap::MSIX).unwrap().unwrap() + 2;
        let is_on = || device.config_u16(control).unwrap() >> 15 == 1;
        let vectors = Vectors::new(device, Some(IrqKind::Msix)).unwrap();
        vectors.count(device, 3, &mut Limit::new(&SystemClock, LONG)).unwrap();
        // A reset leaves them so.
        device.set_irqs(IrqKind::Msix, &[]).unwrap();
        assert!(!is_on());
        let (tells, told) = mpsc::channel();
        let clock = Telling(Mutex::new(tells.clone()));
        // This thread is wiring them.
        let wiring = vectors.enter(device, &Limit::new(&SystemClock, LONG)).unwrap();
        let limit = Limit::new(&clock, LONG);
        told.recv().unwrap();
        std::thread::scope(|scope| {
            let (vectors, tells) = (&vectors, tells);
            let again = scope.spawn(move || {
                let again = vectors.wire_again(device, &limit);
                tells.send(()).unwrap();
                again
            });
            // It waits, or has ended.
            told.recv_timeout(LONG).unwrap();
            drop(wiring);
            again.join().unwrap().unwrap();
        });
        assert!(is_on());
    }

    /// It waited for a thread that wired the vectors, and for whoever shares an eventfd and had filled its counter.
    #[test]
    fn waking_waits_for_nobody() {
        const LONG: Duration = Duration::from_secs(60);
        let device = emu::spawn(&"size=1M".parse().unwrap()).unwrap();
        let vectors = Arc::new(Vectors::new(&*device, Some(IrqKind::Msix)).unwrap());
        let interrupt = vectors.eventfd(&*device, 1, &mut Limit::new(&SystemClock, LONG), 0).unwrap();
        // The device's server may do this.
        let mut shared = File::from(interrupt.as_fd().try_clone_to_owned().unwrap());
        shared.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        fcntl(&shared, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let waiter = Waiter::new(0, interrupt, vectors.wake.clone(), &SystemClock).unwrap();
        waiter.forget(&SystemClock, 0).unwrap();
        assert!(!wait_readable(waiter.as_fd(), Duration::ZERO).unwrap());
        let wiring = vectors.enter(&*device, &Limit::new(&SystemClock, LONG)).unwrap();
        let (tells, told) = mpsc::channel();
        let other = vectors.clone();
        std::thread::spawn(move || {
            other.wake_all("a device");
            tells.send(()).unwrap();
        });
        told.recv_timeout(LONG).expect("it ends");
        assert!(wait_readable(waiter.as_fd(), LONG).unwrap());
        let count = |within| vectors.count(&*device, 1, &mut Limit::new(&SystemClock, within));
        let error = count(Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
        drop(wiring);
        assert_eq!(count(LONG).unwrap(), 1);
    }
}
