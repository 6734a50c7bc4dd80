//! An open controller, which its Python objects share until it is closed.

use crate::failure::Failure;
use pyo3::{PyResult, Python};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair, upcie_core::process::Owner};

/// Locks a mutex that is never held while Python code runs. Check the owner first: in a forked child nobody releases a lock that
/// another thread held at the fork.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver's handles of one controller.
pub struct Open {
    /// The queue pair of batches, between two of them. It is deleted before the controller is shut down.
    pub queue: Mutex<Option<QueuePair<usize>>>,
    namespaces: Mutex<(u64, BTreeMap<u64, Namespace>)>,
    pub controller: Controller,
    /// The controller's timeout: batches and measurements end once nothing is completed for so long.
    pub timeout: Duration,
}

impl Open {
    pub fn namespace(&self, key: u64) -> Result<Namespace, Failure> {
        let found = lock(&self.namespaces).1.get(&key).cloned();
        found.ok_or_else(|| Failure::Closed(format!("{}: the namespace is closed", self.controller.name())))
    }

    /// Keeps a namespace; returns its key.
    pub fn keep(&self, namespace: Namespace) -> u64 {
        let mut namespaces = lock(&self.namespaces);
        namespaces.0 += 1;
        let key = namespaces.0;
        namespaces.1.insert(key, namespace);
        key
    }
}

/// A controller, open or closed.
pub struct Shared {
    name: String,
    /// The process that opened it. A forked child does not wait for the locks below.
    owner: Owner,
    open: Mutex<Option<Arc<Open>>>,
}

impl Shared {
    /// Keeps a controller that was opened with this timeout.
    pub fn new(controller: Controller, timeout: Duration) -> Arc<Self> {
        let name = controller.name().to_owned();
        let open = Open { queue: Mutex::new(None), namespaces: Mutex::default(), controller, timeout };
        Arc::new(Self { name, owner: Owner::current(), open: Mutex::new(Some(Arc::new(open))) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_closed(&self) -> Result<bool, Failure> {
        check_owner(self.owner, &self.name, "using the controller")?;
        Ok(lock(&self.open).is_none())
    }

    /// Calls `f` with the open controller, without the interpreter's lock. A close meanwhile takes effect afterwards.
    pub fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Open) -> Result<R, Failure> + Send,
    ) -> Result<R, Failure> {
        check_owner(self.owner, &self.name, "using the controller")?;
        py.detach(|| {
            let open = lock(&self.open).clone();
            let open =
                open.ok_or_else(|| Failure::Closed(format!("{}: the controller is closed", self.name)))?;
            f(&open)
        })
    }

    /// Closes the controller once the calls in progress have ended; in a forked child it stays the parent's.
    pub fn close(&self, py: Python<'_>) {
        if !self.owner.is_current() {
            return;
        }
        let open = lock(&self.open).take();
        // The shutdown waits for the controller.
        py.detach(|| drop(open));
    }

    /// Drops the handle of a namespace.
    pub fn forget(&self, key: u64) {
        if !self.owner.is_current() {
            return;
        }
        let open = lock(&self.open).clone();
        if let Some(open) = open {
            let namespace = lock(&open.namespaces).1.remove(&key);
            drop(namespace);
        }
    }
}

impl Drop for Shared {
    /// Closes a controller whose last object goes before a `close`.
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else { return };
        // The shutdown waits for the controller, and this thread has the interpreter's lock. Without an interpreter there is none.
        Python::try_attach(|py| py.detach(|| drop(open)));
    }
}

/// Runs the handlers of signals that have come. Without an interpreter, at the end of the process, there are none.
pub fn check_signals() -> PyResult<()> {
    Python::try_attach(|py| py.check_signals()).unwrap_or(Ok(()))
}

/// Refuses `operation` on `device` in a child that was forked since.
pub fn check_owner(owner: Owner, device: &str, operation: &str) -> Result<(), Failure> {
    Ok(owner.check(device, operation).map_err(upcie_nvme::Error::from)?)
}

/// Allocates `len` bytes, and a few behind them: the memory is freed when both parts are dropped.
pub fn allocate(controller: &Controller, len: usize) -> Result<(DmaBuf, DmaBuf), Failure> {
    /// The bytes behind a buffer, which keep its memory.
    const TAIL: usize = 64;
    if len == 0 {
        return Err(Failure::Argument("a buffer of 0 bytes: it takes at least 1".into()));
    }
    let too_long = || Failure::Argument(format!("a buffer of {len} bytes is too long"));
    let all = len.checked_add(TAIL).filter(|all| *all <= isize::MAX as usize).ok_or_else(too_long)?;
    Ok(controller.alloc(all)?.split_at(len))
}
