//! Asynchronous events: what a controller reports without being asked (Base, "Asynchronous Event Request command").
//!
//! The controller holds requests, each of which it completes with one event. Whoever reaps the admin queue notes the
//! event and sends the next request (`admin`). A reported type of event is masked until the log page that the event
//! names was read with Retain Asynchronous Event cleared: `try_next` reads the page before it hands out the event, so
//! nothing that happens after the program has looked is lost.

use super::{Controller, Inner, Limit, event::Event};
use crate::{
    Error, Result,
    spec::{
        ALL_NAMESPACES, AsyncEvent, AsyncEventConfiguration, Command, EventKind, FeatureId, LogPageId,
        NoticeEvent, Version,
    },
    wait::{LOOK, Waiter},
};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};
use upcie_core::{
    deadline::nap,
    dma::DmaBuf,
    irq::{EventFd, wait_readable},
};

/// The bits of OAES that ask for the same event as the same bit of feature 0Bh: namespace attributes, firmware
/// activation, ANA, predictable latency, LBA status, endurance groups, subsystem shutdown, zone descriptors.
const OPTIONAL: u32 = 0x0800_fb00;
/// SMART critical warnings: those of version 1.0, and the one of the persistent memory region (1.4).
const WARNINGS: (u8, u8) = (0x1f, 0x20);
/// LPA: the controller has the telemetry logs.
const LPA_TELEMETRY: u8 = 1 << 3;
/// Entries of the Error Information log that are read: a page.
const ERRORS: u32 = 64;

/// The asynchronous events of a controller, from [`Controller::events`].
///
/// While it exists, requests for events are pending at the controller, and a new one is sent for each that completes. A
/// change of namespaces makes the namespace handles of the NVM subsystem in this process stale as soon as the driver
/// sees the event: in a call of this type, in any admin command, at the beginning of a blocking call or of a wait for
/// completions unless a look was made in the last 25 ms, every 50 ms in both, and by a queue's turns after 1,024
/// without work or some 1,024 completions (of a queue pair that was made, or waited for, since). Get new handles after
/// the event: a later change is reported again. Dropping it ends this; events that the controller reports after that
/// are kept for the next one.
///
/// ```
/// let controller = upcie_nvme::Controller::open("emu:size=1M")?;
/// let mut events = controller.events()?;
/// // Takes what was reported so far, and does not wait for more.
/// while let Some(event) = events.try_next()? {
///     println!("{event}");
/// }
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    controller: Controller,
    /// The interrupt of the admin queue; `None` if the transport has none.
    interrupt: Option<Interrupt>,
}

/// Both ways by which an event makes itself known: the admin queue's interrupt, and another thread that reaped it.
#[derive(Debug)]
struct Interrupt {
    both: Epoll,
    waiter: Waiter,
}

impl Controller {
    /// Turns asynchronous events on: asks the controller for every event that it offers (feature 0Bh: all SMART
    /// critical warnings and the notices of Identify's OAES and LPA) unless the program has set that feature, and sends
    /// as many requests as it holds (AERL), 8 at most. Turns interrupts on where the transport has them. The admin
    /// queue has vector 0.
    ///
    /// One [`Events`] of a controller can exist at a time; it keeps the controller open.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use upcie_nvme::{
    ///     Controller,
    ///     spec::{Command, EventKind, FeatureId},
    /// };
    ///
    /// let controller = Controller::open("emu:size=1M")?;
    /// let mut events = controller.events()?;
    /// // A threshold of 290 K, below the temperature of the embedded controller.
    /// controller.admin(&Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, 290), &mut [])?;
    /// let event = events.wait(Duration::from_secs(30))?.expect("the controller reports it");
    /// assert!(matches!(event.kind(), EventKind::Smart(_)), "{event}");
    /// assert_eq!(event.smart().map(|log| log.temperature()), Some(300));
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::InUse`](crate::Failure::InUse) while another [`Events`] of the controller exists. The controller's
    /// status, a timeout of all of it, or an error of turning interrupts on.
    pub fn events(&self) -> Result<Events> {
        let inner = &self.inner;
        let what = "turning asynchronous events on";
        inner.check_owner(what)?;
        let mut limit = inner.limit();
        let _budget = limit.budget();
        let bell = Arc::new(EventFd::new()?);
        let interrupt = match inner.vectors.kind() {
            Some(_) => Some(Interrupt::new(inner, &bell, &mut limit)?),
            None => None,
        };
        let most = usize::from(inner.properties.identify.aerl) + 1;
        if !inner.admin.events().begin(most, bell) {
            let way_out = "another `Events` of the controller exists: use that one, or drop it first";
            return Err(Error::in_use(self.name(), what, way_out));
        }
        // From here on a failure drops `events`, which ends it.
        let events = Events { controller: self.clone(), interrupt };
        inner.configure_events(&mut limit)?;
        inner.reap_now(what, &limit)?;
        events.arm()?;
        Ok(events)
    }
}

impl Inner {
    /// Asks the controller for every event that it offers, unless the program has chosen some.
    fn configure_events(&self, limit: &mut Limit<'_>) -> Result<()> {
        if self.features.has(FeatureId::ASYNC_EVENT_CONFIGURATION) {
            return Ok(());
        }
        let identify = &self.properties.identify;
        let with_region = self.properties.version >= Version::of(1, 4, 0);
        let warnings = if with_region { WARNINGS.0 | WARNINGS.1 } else { WARNINGS.0 };
        let wanted = AsyncEventConfiguration::from_bits(identify.oaes & OPTIONAL)
            .with_smart(warnings)
            .with_telemetry(identify.lpa & LPA_TELEMETRY != 0);
        let command = Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, wanted.into_bits());
        let what = "Set Features (Asynchronous Event Configuration)";
        self.admin_data(&command, DmaBuf::empty(), what, limit).map(drop)
    }

    /// Asks for events and sends the requests again, if a program wants events: after a reset of the controller has
    /// cleared both, and the table of admin commands was released.
    pub(super) fn request_events(&self, limit: &mut Limit<'_>) -> Result<()> {
        if !self.admin.events().is_wanted() {
            return Ok(());
        }
        self.configure_events(limit)?;
        self.reap_now("requesting asynchronous events again", limit)
    }

    /// Reaps the admin queue for events, without waiting, if a program wants events.
    pub(super) fn notice_events(&self) {
        if self.admin.events().is_wanted() {
            // An error will also fail the next command.
            let _ = self.reap_admin();
        }
    }

    /// Notices events like [`notice_events`](Self::notice_events), unless a thread has a moment ago: for a call that
    /// may end before it looks at the controller, and for a busy queue.
    pub(crate) fn notice_events_once(&self) {
        let events = self.admin.events();
        if events.is_wanted() {
            // An error will also fail the next command.
            let _ = events.look.run(self.clock(), || self.reap_admin());
        }
    }

    /// Returns `true` if a program wants events.
    pub(crate) fn wants_events(&self) -> bool {
        self.admin.events().is_wanted()
    }

    /// Reaps the admin queue, once other threads have left it.
    fn reap_now(&self, what: &str, limit: &Limit<'_>) -> Result<()> {
        let mut rings = self.link.enter(self.admin.rings(), limit, || what.into(), "admin commands")?;
        let reaped = self.admin.reap(&mut rings, self.affected());
        drop(rings);
        // If the queue is closed, the controller's state tells the reason.
        reaped.map_err(|error| self.check_alive(&|| what.into()).err().unwrap_or(error))
    }

    /// Reads the log page of an event, which lets the controller report the next one of its type. `None` for a page
    /// whose length is not known here or that other readers of it would miss, and if the controller refuses it.
    fn read_event_log(
        &self,
        (event, dword1): (AsyncEvent, u32),
        limit: &mut Limit<'_>,
    ) -> Result<Option<Box<[u8]>>> {
        let mut nsid = ALL_NAMESPACES;
        let bytes = match event.log_page() {
            LogPageId::ERROR_INFORMATION => (u32::from(self.properties.identify.elpe) + 1).min(ERRORS) * 64,
            LogPageId::SMART | LogPageId::FIRMWARE_SLOT => 512,
            LogPageId::CHANGED_NAMESPACES => 4096,
            LogPageId::CHANGED_ZONES => {
                nsid = dword1;
                4096
            }
            _ => return Ok(None),
        };
        let command = Command::get_log_page(event.log_page(), nsid, bytes, 0);
        let what = format!("Get Log Page of {}", event.log_page());
        match self.admin_data(&command, self.memory.heap.alloc(4096)?, &what, limit) {
            Ok((_, data)) => {
                let mut log = vec![0; bytes as usize];
                data.read_at(0, &mut log);
                Ok(Some(log.into()))
            }
            Err(error) if error.status().is_some() => {
                let device = &self.link.name;
                tracing::warn!(%device, %error, "the controller reports no such event again before its log is read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Events {
    /// Returns the next event, if one has arrived. Reads its log page first ([`Event::log`]), which takes an admin
    /// command: all of it takes the controller's timeout at most, the wait for admin commands of other threads
    /// included.
    ///
    /// # Errors
    /// The controller is gone or fails, or it refused the request for events or did not answer the read of the log page
    /// in time. The event is not lost: the next call tries again.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        self.take(&mut self.controller.inner.limit())
    }

    fn take(&self, limit: &mut Limit<'_>) -> Result<Option<Event>> {
        let inner = &self.controller.inner;
        let what = "taking an asynchronous event";
        inner.check_owner(what)?;
        let _budget = limit.budget();
        // In this order no interrupt is lost: forget earlier ones, ask for the next, look.
        self.arm()?;
        inner.reap_now(what, limit)?;
        let queue = inner.admin.events();
        if let Some(status) = queue.take_refusal() {
            return Err(Error::of_status(inner.name(), "Asynchronous Event Request", status));
        }
        let Some((raw, dword1)) = queue.front() else {
            inner.check_alive_once(&|| what.into())?;
            return Ok(None);
        };
        let log = inner.read_event_log((raw, dword1), limit)?;
        if raw.subject() == EventKind::Notice(NoticeEvent::NAMESPACE_ATTRIBUTES) {
            // A change between the event and the read of its log was masked.
            inner.subsystem.make_stale();
        }
        queue.pop();
        let event = Event { raw, dword1, log };
        tracing::debug!(device = inner.name(), %event, "an asynchronous event");
        Ok(Some(event))
    }

    /// Waits for the next event, at most `timeout`; `None` if none came. Sleeps until the admin queue's interrupt, and
    /// looks every 50 ms whether the controller is well. Without interrupts it looks for events every millisecond.
    ///
    /// An event that arrives within `timeout` is taken as by [`try_next`](Self::try_next). So all of it takes `timeout`
    /// and, if the controller is slow to answer, its own timeout.
    ///
    /// # Errors
    /// Those of [`try_next`](Self::try_next).
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let inner = &self.controller.inner;
        let (clock, each) = (inner.clock(), inner.timeout());
        let whole = timeout.saturating_add(each);
        let mut limit = inner.limit_of(whole);
        loop {
            if let Some(event) = self.take(&mut limit.part(each))? {
                return Ok(Some(event));
            }
            let waited = whole.saturating_sub(limit.left());
            let left = timeout.saturating_sub(waited);
            if left.is_zero() {
                return Ok(None);
            }
            match self.fd() {
                Some(fd) if clock.runs() => drop(wait_readable(fd, left.min(LOOK))?),
                _ => clock.sleep(nap(waited).min(left)),
            }
        }
    }

    /// Returns a descriptor that becomes readable when an event has arrived, for poll(2) beside other events; `None`
    /// where the transport has no interrupts. When it is readable, call [`try_next`](Self::try_next) until it returns
    /// `None`. It may be readable without an event, because vector 0 tells of every admin command and of queues that
    /// share it. Look every few seconds all the same: a controller that is gone raises no interrupt.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(|interrupt| interrupt.both.0.as_fd())
    }

    /// Forgets past interrupts, and asks for the next one.
    fn arm(&self) -> Result<()> {
        let Some(Interrupt { waiter, .. }) = &self.interrupt else { return Ok(()) };
        let inner = &self.controller.inner;
        if waiter.forget(inner.clock(), inner.admin.events().total())? {
            inner.report_silence(waiter.vector());
        }
        inner.rearm(waiter.vector())
    }
}

impl Interrupt {
    fn new(inner: &Inner, bell: &EventFd, limit: &mut Limit<'_>) -> Result<Self> {
        let waiter = inner.waiter(0, limit)?;
        let failed = |e: Errno| {
            let what = "waiting for asynchronous events (raise `ulimit -n` if too many files are open)";
            upcie_core::Error::os("epoll", what, e)
        };
        let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for fd in [waiter.as_fd(), bell.as_fd()] {
            both.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        }
        Ok(Self { both, waiter })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.controller.inner.is_inherited() {
            self.controller.inner.admin.events().end();
        }
    }
}
