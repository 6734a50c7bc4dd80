//! Controllers.

use crate::{buffer::Buffer, failure::Failure, namespace::Namespace, open::Shared};
use pyo3::{prelude::*, types::PyBytes};
use std::{sync::Arc, time::Duration};
use upcie_nvme::{
    Address,
    spec::{ExtendedHostIdentifier, ExtendedHostIdentifierData, HostIdentifier, HostIdentifierData},
};

/// An NVMe controller that this process drives: `Controller("emu")`, `Controller("vfio:0000:01:00.0")`.
#[pyclass(frozen, module = "upcie")]
pub struct Controller {
    shared: Arc<Shared>,
}

#[pymethods]
impl Controller {
    #[new]
    #[pyo3(signature = (address, *, timeout = 30.0))]
    fn new(py: Python<'_>, address: &str, timeout: f64) -> PyResult<Self> {
        let shared = py.detach(|| {
            let limit = Duration::try_from_secs_f64(timeout).ok().filter(|limit| !limit.is_zero());
            let bad = || Failure::Argument(format!("a timeout of {timeout} seconds: it must be positive"));
            let limit = limit.ok_or_else(bad)?;
            let address: Address = address.parse()?;
            let controller = upcie_nvme::Controller::builder().timeout(limit).open(&address)?;
            Ok::<_, Failure>(Shared::new(controller, limit))
        })?;
        Ok(Self { shared })
    }

    /// Returns the controller's address.
    #[getter]
    fn name(&self) -> &str {
        self.shared.name()
    }

    /// Returns the model number (MN).
    #[getter]
    fn model(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared.with(py, |open| Ok(open.controller.identify().model()))?)
    }

    /// Returns the serial number (SN).
    #[getter]
    fn serial(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared.with(py, |open| Ok(open.controller.identify().serial()))?)
    }

    /// Returns the firmware revision (FR).
    #[getter]
    fn firmware(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.shared.with(py, |open| Ok(open.controller.identify().firmware()))?)
    }

    /// Tells whether the controller was closed.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.shared.is_closed()?)
    }

    /// Returns the bytes of DMA memory in use, the driver's own included: for tests.
    #[getter(_in_use)]
    fn in_use(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.shared.with(py, |open| Ok(open.controller.heap().in_use()))?)
    }

    /// Lists the ids of the active namespaces.
    fn namespace_ids(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        Ok(self.shared.with(py, |open| Ok(open.controller.namespace_ids()?))?)
    }

    /// Opens a namespace.
    #[pyo3(signature = (nsid = 1))]
    fn namespace(&self, py: Python<'_>, nsid: u32) -> PyResult<Namespace> {
        Namespace::open(py, &self.shared, nsid)
    }

    /// Opens all active namespaces.
    fn namespaces(&self, py: Python<'_>) -> PyResult<Vec<Namespace>> {
        let ids = self.namespace_ids(py)?;
        ids.into_iter().map(|nsid| Namespace::open(py, &self.shared, nsid)).collect()
    }

    /// Allocates memory for transfers, zeroed.
    fn alloc(&self, py: Python<'_>, len: usize) -> PyResult<Buffer> {
        Ok(self.shared.with(py, |open| Buffer::new(&open.controller, len))?)
    }

    /// Tells the controller which host this is, for reservations: a number of 64 bits, or 16 bytes. Once, before it registers; a
    /// reset sets it again.
    fn set_host_id(&self, py: Python<'_>, identifier: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = identifier.cast::<PyBytes>() {
            let len = bytes.as_bytes().len();
            let identifier = <[u8; 16]>::try_from(bytes.as_bytes()).map_err(|_| {
                Failure::Argument(format!("a host identifier of {len} bytes: it takes 16, or a number"))
            })?;
            let data = ExtendedHostIdentifierData { identifier };
            return Ok(self.shared.with(py, |open| {
                open.controller.set_feature(&ExtendedHostIdentifier { data })?;
                Ok(())
            })?);
        }
        let data = HostIdentifierData { identifier: identifier.extract()? };
        Ok(self.shared.with(py, |open| {
            open.controller.set_feature(&HostIdentifier { data })?;
            Ok(())
        })?)
    }

    /// Resets the controller.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.shared.with(py, |open| {
            open.controller.reset()?;
            Ok(())
        })?)
    }

    /// Shuts the controller down once the calls in progress have ended. Buffers and their views stay.
    fn close(&self, py: Python<'_>) {
        self.shared.close(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let state = match self.shared.is_closed() {
            Ok(false) => "",
            Ok(true) => ", closed",
            Err(_) => ", of another process",
        };
        format!("<upcie.Controller {}{state}>", self.shared.name())
    }
}
