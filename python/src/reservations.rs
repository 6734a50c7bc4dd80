//! Reservations of a namespace.

use crate::{failure::Failure, namespace::Namespace};
use pyo3::{prelude::*, types::PyBytes};
use upcie_nvme::{
    HostId,
    spec::{PersistenceChange, ReservationType},
};

/// Returns the type with a name.
fn kind_of(name: &str) -> Result<ReservationType, Failure> {
    ReservationType::ALL.into_iter().find(|kind| name_of(*kind) == name).ok_or_else(|| {
        let names = ReservationType::ALL.map(name_of).join(", ");
        Failure::Argument(format!("a reservation of {name:?}: it takes {names}"))
    })
}

/// Returns the name of a type as `upcie resv` has it (`write-exclusive-registrants-only`), or its number.
fn name_of(kind: ReservationType) -> String {
    let joined = |name: &str| name.to_lowercase().replace(" - ", "-").replace(' ', "-");
    kind.name().map_or_else(|| kind.0.to_string(), joined)
}

/// The reservations of a namespace. A host *registers* a key of its own choice, and may then *acquire* the reservation, which keeps
/// others from writing, or from reading as well. A host is the identifier of its controllers (`Controller.set_host_id`).
#[pyclass(frozen, module = "upcie")]
pub struct Reservations {
    namespace: Py<Namespace>,
}

/// A registrant on a controller.
#[pyclass(frozen, get_all, module = "upcie")]
pub struct Registrant {
    /// The controller that the host uses; `None` if it uses none now.
    controller: Option<u16>,
    /// The host holds the reservation.
    holds: bool,
    /// The host's identifier: a number of 64 bits, or 16 bytes.
    host: Py<PyAny>,
    key: u64,
}

/// The reservation and the registrants of a namespace.
#[pyclass(frozen, get_all, module = "upcie")]
pub struct ReservationReport {
    /// A number that changes with each change of registrations.
    generation: u32,
    /// The type of the reservation; `None` if none is held.
    kind: Option<String>,
    /// Registrations and the reservation outlast a loss of power.
    persists: bool,
    registrants: Vec<Py<Registrant>>,
}

impl Reservations {
    pub fn open(py: Python<'_>, namespace: Py<Namespace>) -> PyResult<Self> {
        namespace.get().with(py, |_, native| {
            native.reservations()?;
            Ok(())
        })?;
        Ok(Self { namespace })
    }

    fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&upcie_nvme::Reservations) -> upcie_nvme::Result<R> + Send,
    ) -> PyResult<R> {
        Ok(self.namespace.get().with(py, |_, native| Ok(f(&native.reservations()?)?))?)
    }
}

#[pymethods]
impl Reservations {
    /// Registers this host with a key; `persist` changes whether registrations and reservations outlast a loss of power.
    #[pyo3(signature = (key, *, persist = None))]
    fn register(&self, py: Python<'_>, key: u64, persist: Option<bool>) -> PyResult<()> {
        let change = match persist {
            None => PersistenceChange::NONE,
            Some(true) => PersistenceChange::SET,
            Some(false) => PersistenceChange::CLEAR,
        };
        self.with(py, |reservations| reservations.register_with(key, change))
    }

    /// Replaces this host's key: the current one, or any for `None`.
    fn replace(&self, py: Python<'_>, current: Option<u64>, new: u64) -> PyResult<()> {
        self.with(py, |reservations| reservations.replace(current, new))
    }

    /// Ends this host's registration, with its current key, or with any for `None`.
    fn unregister(&self, py: Python<'_>, current: Option<u64>) -> PyResult<()> {
        self.with(py, |reservations| reservations.unregister(current))
    }

    /// Acquires the reservation for this host.
    fn acquire(&self, py: Python<'_>, key: u64, kind: &str) -> PyResult<()> {
        let kind = kind_of(kind)?;
        self.with(py, |reservations| reservations.acquire(key, kind))
    }

    /// Unregisters all hosts with the key `preempted`, and takes over the reservation if one of them holds it.
    #[pyo3(signature = (key, preempted, kind, *, abort = false))]
    fn preempt(&self, py: Python<'_>, key: u64, preempted: u64, kind: &str, abort: bool) -> PyResult<()> {
        let kind = kind_of(kind)?;
        self.with(py, |reservations| match abort {
            false => reservations.preempt(key, preempted, kind),
            true => reservations.preempt_and_abort(key, preempted, kind),
        })
    }

    /// Releases the reservation that this host holds; its registration stays.
    fn release(&self, py: Python<'_>, key: u64, kind: &str) -> PyResult<()> {
        let kind = kind_of(kind)?;
        self.with(py, |reservations| reservations.release(key, kind))
    }

    /// Releases any reservation, and ends the registration of every host.
    fn clear(&self, py: Python<'_>, key: u64) -> PyResult<()> {
        self.with(py, |reservations| reservations.clear(key))
    }

    /// Reports the reservation and the registrants.
    fn report(&self, py: Python<'_>) -> PyResult<ReservationReport> {
        let report = self.with(py, upcie_nvme::Reservations::report)?;
        let mut registrants = Vec::with_capacity(report.registrants.len());
        for one in report.registrants {
            let host = match one.host {
                HostId::Short(id) => id.into_pyobject(py)?.into_any().unbind(),
                HostId::Extended(id) => PyBytes::new(py, &id).into_any().unbind(),
            };
            let (controller, holds, key) = (one.controller, one.holds, one.key);
            registrants.push(Py::new(py, Registrant { controller, holds, host, key })?);
        }
        let (generation, persists) = (report.generation, report.persists);
        Ok(ReservationReport { generation, kind: report.kind.map(name_of), persists, registrants })
    }

    fn __repr__(&self) -> String {
        format!("<upcie.Reservations of namespace {}>", self.namespace.get().nsid)
    }
}

#[pymethods]
impl Registrant {
    fn __repr__(&self) -> String {
        let holds = if self.holds { ", holds the reservation" } else { "" };
        format!("<upcie.Registrant {}, key {:#x}{holds}>", self.host, self.key)
    }
}

#[pymethods]
impl ReservationReport {
    fn __repr__(&self) -> String {
        let kind = self.kind.as_deref().unwrap_or("no reservation");
        format!("<upcie.ReservationReport: {kind}, {} registrants>", self.registrants.len())
    }
}
