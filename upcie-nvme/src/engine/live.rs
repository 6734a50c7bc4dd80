//! State that tells queues and namespaces whether their controller is still running, since when, and owned by this
//! process.

use super::{CommandLimits, Windows};
use crate::{Error, Result};
use std::{
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use upcie_core::process::{Owner, ProcessWord};

/// Returns an id or stamp: unique in the process and never used again. 0 means none.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The time from a bring-up or reset of the controller to the next one. A queue belongs to one epoch, and reads its stamp
/// once per turn.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// The stamp of valid namespace handles; 0 once the epoch is over, and in a forked child. A queue that reads 0 here
    /// takes no more turns.
    stamp: ProcessWord,
    /// The controller was seen stopped (CSTS.RDY 0) after the epoch: it uses no memory of the epoch any more.
    let_go: AtomicBool,
}

impl Epoch {
    fn new(stamp: u64) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { stamp: ProcessWord::new(stamp)?, let_go: AtomicBool::new(false) }))
    }

    /// Returns the stamp's address, which a queue reads per turn, for as long as it keeps `self`.
    pub(crate) fn stamp_ptr(&self) -> NonNull<AtomicU64> {
        self.stamp.as_ptr()
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Acquire)
    }

    /// Returns `true` if the controller was stopped or reset since, or belongs to another process.
    pub(crate) fn is_over(&self) -> bool {
        self.stamp() == 0
    }

    /// Notes that the controller uses no memory of the epoch any more.
    pub(crate) fn set_let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }

    pub(crate) fn has_let_go(&self) -> bool {
        self.let_go.load(Ordering::Acquire)
    }
}

/// The current epoch, and the stamp that the next one begins with.
#[derive(Debug)]
struct Current {
    epoch: Arc<Epoch>,
    next: u64,
    /// The reason why the controller is down, while it is.
    down: Option<Down>,
}

/// The reason why a controller is down.
#[derive(Debug)]
struct Down {
    reason: String,
    /// No reset brings the controller back.
    is_final: bool,
}

/// The controller's state that its parts share.
#[derive(Debug)]
pub(crate) struct Live {
    /// The controller's id.
    pub(crate) controller: u64,
    current: Mutex<Current>,
    /// The controller is down. Written only while `current` is locked.
    is_down: AtomicBool,
    /// The current epoch was ended by an error of the PCI function. Written only while `current` is locked.
    has_pci_error: AtomicBool,
    owner: Owner,
    /// The data that the controller takes in its own memory.
    pub(crate) device_memory: Windows,
    /// Set once, when the controller has been identified.
    limits: OnceLock<CommandLimits>,
}

impl Live {
    /// Makes the state of a controller that is being brought up.
    pub(crate) fn new() -> Result<Self> {
        Self::of(unique(), unique())
    }

    pub(crate) fn of(controller: u64, stamp: u64) -> Result<Self> {
        let current = Mutex::new(Current { epoch: Epoch::new(stamp)?, next: stamp, down: None });
        let (owner, device_memory) = (Owner::current(), Windows::default());
        let (is_down, has_pci_error, limits) =
            (AtomicBool::new(false), AtomicBool::new(false), OnceLock::new());
        Ok(Self { controller, current, is_down, has_pci_error, owner, device_memory, limits })
    }

    /// Notes the limits of commands, for good.
    pub(crate) fn set_limits(&self, limits: CommandLimits) {
        let _ = self.limits.set(limits);
    }

    /// Returns the limits of commands.
    pub(crate) fn limits(&self) -> CommandLimits {
        self.limits.get().copied().unwrap_or(CommandLimits::NONE)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the current epoch, for a test.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop + '_ {
        self.current()
    }

    /// Returns the epoch that began with the last reset, or with the bring-up.
    pub(crate) fn epoch(&self) -> Arc<Epoch> {
        self.current().epoch.clone()
    }

    /// Returns the stamp of namespace handles that are valid now; 0 while the controller is stopped, and in a forked
    /// child.
    pub(crate) fn stamp(&self) -> u64 {
        // Before the lock: in a forked child a thread that does not exist there may hold it.
        if self.owner.is_current() { self.current().epoch.stamp.load(Ordering::Acquire) } else { 0 }
    }

    /// Makes all existing namespace handles stale. A stopped controller stays stopped. Does nothing in a forked child, where no
    /// handle is valid.
    pub(crate) fn restamp(&self) {
        // Before the lock: a thread that does not exist in the child may hold it.
        if !self.owner.is_current() {
            return;
        }
        let mut current = self.current();
        current.next = unique();
        if !current.epoch.is_over() {
            current.epoch.stamp.store(current.next, Ordering::Release);
        }
    }

    /// Ends the epoch: its queues take no more turns, and an open turn rings no more doorbell.
    pub(crate) fn end(&self) -> Arc<Epoch> {
        let current = self.current();
        current.epoch.stamp.store(0, Ordering::Release);
        current.epoch.clone()
    }

    /// Begins an epoch after [`end`](Self::end): the controller is up. Namespace handles from before stay valid until
    /// [`restamp`](Self::restamp).
    ///
    /// # Errors
    /// No memory is left.
    pub(crate) fn begin(&self) -> Result<Arc<Epoch>> {
        let mut current = self.current();
        current.epoch = Epoch::new(current.next)?;
        if current.down.take().is_some() {
            self.is_down.store(false, Ordering::Release);
        }
        self.has_pci_error.store(false, Ordering::Release);
        Ok(current.epoch.clone())
    }

    /// Ends `epoch` for an error of the PCI function, unless a reset has begun another since.
    pub(crate) fn fail(&self, epoch: &Arc<Epoch>) {
        let current = self.current();
        if Arc::ptr_eq(&current.epoch, epoch) {
            // Before the stamp: who reads 0 there asks why.
            self.has_pci_error.store(true, Ordering::Release);
            epoch.stamp.store(0, Ordering::Release);
        }
    }

    /// Closes everything for `reason`: the controller did not come back, or was given up, which is final.
    pub(crate) fn set_down(&self, reason: String, is_final: bool) {
        let mut current = self.current();
        // The first reason counts.
        current.down.get_or_insert(Down { reason, is_final });
        self.is_down.store(true, Ordering::Release);
        // Last: who reads 0 there asks why.
        current.epoch.stamp.store(0, Ordering::Release);
    }

    /// Refuses `operation` on `device` if the controller is down.
    pub(crate) fn check_up(&self, device: &str, operation: impl FnOnce() -> String) -> Result<()> {
        if !self.is_down.load(Ordering::Acquire) {
            return Ok(());
        }
        match &self.current().down {
            None => Ok(()),
            Some(down) => Err(Error::down(device, operation(), down.reason.clone())),
        }
    }

    /// Returns `true` if the controller is down, and a reset that reaches further may bring it back.
    pub(crate) fn may_come_back(&self) -> bool {
        self.current().down.as_ref().is_some_and(|down| !down.is_final)
    }

    /// Refuses `operation` on `device` if the controller is down, or if its PCI function has had an error since the last reset.
    pub(crate) fn check_usable(&self, device: &str, operation: impl Fn() -> String) -> Result<()> {
        self.check_up(device, &operation)?;
        if self.has_pci_error.load(Ordering::Acquire) {
            return Err(Error::pci_error(device, operation()));
        }
        Ok(())
    }

    /// Returns the process that drives the controller.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Refuses `operation` on `device` in a forked child.
    pub(crate) fn check_owner(&self, device: &str, operation: &str) -> Result<()> {
        self.owner.check(device, operation).map_err(Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure;

    #[test]
    fn a_controller_is_down_until_it_comes_back() {
        let live = Live::new().unwrap();
        live.set_down("first".into(), false);
        live.set_down("second".into(), true);
        let error = live.check_up("test", || "a call".into()).unwrap_err();
        assert!(error.to_string().contains("first") && live.epoch().is_over(), "{error}");
        assert!(live.may_come_back());
        let epoch = live.begin().unwrap();
        assert!(
            live.check_usable("test", || "a call".into()).is_ok()
                && !epoch.is_over()
                && !live.may_come_back()
        );
        live.set_down("given up".into(), true);
        assert!(live.check_up("test", || "a call".into()).is_err() && !live.may_come_back());
    }

    #[test]
    fn an_error_ends_its_own_epoch_until_a_reset() {
        let (live, call) = (Live::new().unwrap(), || "a call".into());
        let before = live.epoch();
        live.end();
        let now = live.begin().unwrap();
        // Another thread saw the error before the reset, which has answered it since.
        live.fail(&before);
        assert!(live.check_usable("test", call).is_ok() && !now.is_over());
        live.fail(&now);
        let error = live.check_usable("test", call).unwrap_err();
        assert!(matches!(error.failure(), Failure::PciError { .. }) && now.is_over(), "{error}");
        assert!(live.check_up("test", || "a reset".into()).is_ok());
        live.end();
        let next = live.begin().unwrap();
        assert!(live.check_usable("test", call).is_ok() && !next.is_over());
    }
}
