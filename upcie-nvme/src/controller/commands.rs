//! Admin commands, and what Identify tells.

use super::{Inner, Limit, admin::Sent, late::Late, pending::Pending};
use crate::{
    Error, Failure, Result,
    spec::{Cns, Command, CompletionEntry, Csi, NamespaceDescriptors, Status},
    wait::LOOK,
};
use std::{fmt, time::Duration};
use upcie_core::{
    clock::{Clock, SharedClock},
    deadline::Backoff,
    dma::DmaBuf,
    events::emit,
};

/// Shows a number in hexadecimal in the log.
struct Hex(u32);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

impl Inner {
    /// Runs an admin command with `data`, a buffer of whole pages (or the empty one) that it reads or writes, within `limit`.
    /// Returns dword 0 of the completion and the buffer.
    pub(crate) fn admin_data(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        limit: &mut Limit<'_>,
    ) -> Result<(u32, DmaBuf)> {
        self.admin_late(command, data, what, limit, Late::Nothing)
    }

    /// Runs an admin command like [`admin_data`](Self::admin_data); `late` is the meaning of an answer after the deadline. A
    /// command that misses its deadline keeps its slot and its buffer until the controller answers or is reset.
    pub(super) fn admin_late(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        limit: &mut Limit<'_>,
        late: Late,
    ) -> Result<(u32, DmaBuf)> {
        let mut command = *command;
        if !data.is_empty() {
            // Whole pages of the driver's own heap: their PRP list is prepared.
            let transfer = data.prepared();
            command.set_data_pointer(transfer.iova, transfer.second);
        }
        let done = self.exchange(&command, data, what, limit, late);
        if done.is_ok() {
            // The controller answers again, and may have answered earlier deletions.
            self.finish_deletions(limit);
        }
        done.map_err(|(error, _)| error)
    }

    /// Runs an admin command whose data pointer is set, within `limit`. Commands of other threads run beside it.
    ///
    /// # Errors
    /// The `bool` says whether the command was sent: if so, the controller may still carry it out.
    pub(super) fn exchange(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        limit: &mut Limit<'_>,
        late: Late,
    ) -> Result<(u32, DmaBuf), (Error, bool)> {
        let (entry, data) = self.exchange_whole(command, data, what, limit, late)?;
        if entry.is_success() {
            return Ok((entry.dw0, data));
        }
        Err((Error::of_status(self.link.name.to_string(), what, entry.status()), true))
    }

    /// Runs an admin command like [`exchange`](Self::exchange), and returns the controller's whole completion entry,
    /// whatever its status.
    pub(super) fn exchange_whole(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        limit: &mut Limit<'_>,
        late: Late,
    ) -> Result<(CompletionEntry, DmaBuf), (Error, bool)> {
        self.check_owner(what).map_err(|error| (error, false))?;
        let mut pending = Pending::new(self, late);
        let _budget = limit.budget();
        let mut backoff = limit.backoff(Duration::MAX);
        let tag = match self.send(command, data, what, limit, &mut backoff, &mut pending) {
            Ok(tag) => tag,
            Err(error) => {
                pending.end();
                return Err((error, false));
            }
        };
        let start = self.clock().now();
        let ended = loop {
            if let Err(error) = self.reap_admin() {
                break Err(error);
            }
            if let Some(done) = self.admin.take(tag) {
                break Ok(done);
            }
            if self.admin.is_released(tag) {
                let reset = || Error::reset_call(self.link.name.to_string(), what);
                break Err(self.check_alive(&|| what.into()).err().unwrap_or_else(reset));
            }
            if let Err(error) = self.pause(&mut backoff, &|| what.into()) {
                break Err(limit.tell(error));
            }
        };
        // The answer may have come at the last moment, through another thread.
        let ended = ended.or_else(|error| pending.give_up().ok_or(error));
        match ended {
            Ok((done, dword2)) => {
                let entry = done.entry(dword2);
                let (_, result, data) = done.into_parts();
                pending.answered(result);
                // Both call code of the program.
                drop(backoff);
                self.log_admin(command, what, result, self.clock().now().saturating_sub(start));
                pending.end();
                Ok((entry, data))
            }
            Err(error) => {
                if !matches!(error.failure(), Failure::Timeout { .. }) {
                    self.release_if_let_go();
                }
                Err((error, true))
            }
        }
    }

    /// Sends an admin command, once there is room and no other thread resets the controller, and returns its tag. A step of the
    /// creation or deletion of a queue pair is sent only while that goes on.
    ///
    /// # Errors
    /// Nothing was sent. That is so, too, when earlier commands of the call have used up its time.
    fn send(
        &self,
        command: &Command,
        mut data: DmaBuf,
        what: &str,
        limit: &mut Limit<'_>,
        backoff: &mut Backoff<'_>,
        pending: &mut Pending<'_>,
    ) -> Result<u64> {
        let step = pending.step();
        if limit.left().is_zero() {
            return Err(Error::timeout(self.link.name.to_string(), what, limit.whole()));
        }
        loop {
            self.wait_for_reset(limit, &|| what.into())?;
            self.check_pci_error(&|| what.into())?;
            let rings = self.admin.rings();
            let mut rings = self.link.enter(rings, limit, || what.into(), "admin commands")?;
            if self.resets.is_elsewhere() {
                continue;
            }
            // A reset ends the creation or deletion of a queue pair.
            if step.is_some_and(|ticket| self.queue_ids.is_gone(ticket)) {
                return Err(Error::reset_call(self.link.name.to_string(), what));
            }
            // Late answers free slots. If the queue is closed, the controller's state tells the reason.
            if let Err(error) = self.admin.reap(&mut rings, self.affected()) {
                drop(rings);
                return Err(self.check_alive(&|| what.into()).err().unwrap_or(error));
            }
            match self.admin.send(&mut rings, command, data)? {
                Sent::Yes(tag) => {
                    // Before the rings are left, which emits log events.
                    pending.sent(tag);
                    return Ok(tag);
                }
                Sent::Full(count) => return Err(Error::unanswered(self.link.name.to_string(), what, count)),
                Sent::Later(back) => data = back,
            }
            drop(rings);
            let what = || format!("{what}: waiting for admin commands of other threads");
            self.pause(backoff, &what).map_err(|error| limit.tell(error))?;
            // A stopwatch counts at most 250 ms between two readings: the next wait may be for a reset.
            limit.left();
        }
    }

    /// Reaps admin completions for all threads, unless another one does just now.
    pub(super) fn reap_admin(&self) -> Result<()> {
        let Some(mut rings) = self.admin.enter_now() else { return Ok(()) };
        self.admin.reap(&mut rings, self.affected())
    }

    /// Returns the clock of the controller's waits.
    pub(crate) fn clock(&self) -> &dyn Clock {
        self.link.clock()
    }

    pub(crate) fn shared_clock(&self) -> &SharedClock {
        &self.link.options.clock
    }

    /// Reaps completions that came after their deadline, without sending anything.
    pub(crate) fn reap_late(&self) {
        // An error will also fail the next command.
        let _ = self.reap_admin();
    }

    /// Logs an admin command that has ended.
    fn log_admin(&self, command: &Command, what: &str, result: Result<(), Status>, took: Duration) {
        let (device, nsid, what) = (self.link.name.clone(), command.nsid, what.to_owned());
        let (opcode, cdw10) = (Hex(command.opcode.into()), Hex(command.cdw10));
        emit(move || match result {
            Ok(()) => tracing::trace!(%device, ?opcode, nsid, ?cdw10, ?took, "{what}"),
            Err(status) => tracing::debug!(%device, ?opcode, nsid, ?cdw10, ?took, %status, "{what} failed"),
        });
    }

    /// Waits a little for a completion; returns an error when the time is up, or when the controller is gone
    /// or fails.
    pub(crate) fn pause(&self, backoff: &mut Backoff<'_>, what: &dyn Fn() -> String) -> Result<()> {
        if !backoff.pause() {
            let (device, after) = (self.link.name.to_string(), backoff.limit());
            return Err(Error::timeout(device, what(), after));
        }
        if backoff.is_due(LOOK) { self.check_alive(what) } else { Ok(()) }
    }

    /// Returns a buffer of whole pages, with `len` bytes at least, within `limit`; empty for 0 bytes.
    pub(crate) fn whole_pages(&self, len: usize, limit: &mut Limit<'_>) -> Result<DmaBuf> {
        if len == 0 {
            return Ok(DmaBuf::empty());
        }
        let _budget = limit.budget();
        let page = 1 << self.page_shift();
        Ok(self.memory.heap.alloc_aligned(len.next_multiple_of(page), page)?)
    }

    /// Returns a buffer of [whole pages](Self::whole_pages) that begins with `bytes`.
    pub(crate) fn pages_with(&self, bytes: &[u8], limit: &mut Limit<'_>) -> Result<DmaBuf> {
        let mut buffer = self.whole_pages(bytes.len(), limit)?;
        if !bytes.is_empty() {
            buffer.write_at(0, bytes);
        }
        Ok(buffer)
    }

    /// Runs an Identify command within `limit`, and returns its page of data.
    pub(crate) fn identify_page(
        &self,
        command: &Command,
        what: &str,
        limit: &mut Limit<'_>,
    ) -> Result<Box<[u8; 4096]>> {
        self.retrying(self.retries(), &|| what.into(), limit, |limit| {
            let _budget = limit.budget();
            let buffer = self.memory.heap.alloc(4096)?;
            let (_, data) = self.admin_data(command, buffer, what, limit)?;
            let mut page = Box::new([0; 4096]);
            data.read_at(0, &mut *page);
            Ok(page)
        })
    }

    /// Asks for the command set of a namespace: NVM on a controller that takes no I/O.
    pub(crate) fn command_set(&self, nsid: u32, limit: &mut Limit<'_>) -> Result<Csi> {
        if self.no_io().is_some() {
            return Ok(Csi::NVM);
        }
        // Optional before version 1.3: a controller without the list has the NVM command set only.
        let command = Command::identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0);
        let page = match self.identify_page(&command, "Identify (namespace descriptors)", limit) {
            Ok(page) => page,
            Err(error) if error.status().is_some() => return Ok(Csi::NVM),
            Err(error) => return Err(error),
        };
        Ok(NamespaceDescriptors::new(&page[..]).find_map(|descriptor| descriptor.csi()).unwrap_or(Csi::NVM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Controller,
        controller::lock,
        spec::{FeatureId, FeatureSelect},
    };
    use std::{
        mem,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
    };
    use upcie_core::clock::SystemClock;

    /// A clock that jumps instead of sleeping, once it is told to, and calls a function when it has jumped over 5 s.
    #[derive(Default)]
    struct Jumping {
        jumps: AtomicBool,
        /// Nanoseconds.
        jumped: AtomicU64,
        hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl Jumping {
        fn jumped(&self) -> Duration {
            Duration::from_nanos(self.jumped.load(Ordering::Relaxed))
        }
    }

    impl fmt::Debug for Jumping {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Jumping").field("jumped", &self.jumped()).finish_non_exhaustive()
        }
    }

    impl Clock for Jumping {
        fn now(&self) -> Duration {
            SystemClock.now() + self.jumped()
        }

        fn sleep(&self, time: Duration) {
            if !self.jumps.load(Ordering::Relaxed) {
                return SystemClock.sleep(time);
            }
            self.jumped.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
            if self.jumped() > Duration::from_secs(5) {
                let hook = lock(&self.hook).take();
                if let Some(hook) = hook {
                    hook();
                }
            }
        }

        fn runs(&self) -> bool {
            false
        }
    }

    /// A wait for room on the admin queue did not count for the wait for a reset that came after it.
    #[test]
    fn a_wait_for_a_reset_ends_with_its_call() {
        let clock = Arc::new(Jumping::default());
        let timeout = Duration::from_secs(30);
        let options = Controller::builder().timeout(timeout).clock(clock.clone());
        let controller = options.open("emu:size=1M").unwrap();
        let inner = controller.inner();
        let get = Command::get_features(FeatureId::TEMPERATURE_THRESHOLD, FeatureSelect::CURRENT);
        let mut rings = inner.admin.rings().enter(|| Duration::from_secs(60)).unwrap();
        // Nobody takes the answers, which take all room.
        while matches!(inner.admin.send(&mut rings, &get, DmaBuf::empty()).unwrap(), Sent::Yes(_)) {}
        drop(rings);
        let other = inner.clone();
        let begins = move || thread::spawn(move || mem::forget(other.resets.begin())).join().unwrap();
        *lock(&clock.hook) = Some(Box::new(begins));
        clock.jumps.store(true, Ordering::Relaxed);
        let done = inner.admin_data(&get, DmaBuf::empty(), "a command", &mut inner.limit());
        clock.jumps.store(false, Ordering::Relaxed);
        // The reset of that thread ends.
        mem::forget(inner.resets.begin());
        let error = done.unwrap_err();
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("waiting for a reset"), "{error}");
        assert!(clock.jumped() < timeout + Duration::from_secs(1), "{:?}", clock.jumped());
    }
}
