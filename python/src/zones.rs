//! Zones of a namespace: reports, appends, and changes of their states.

use crate::{failure::Failure, namespace::Namespace};
use pyo3::prelude::*;
use upcie_nvme::{ZoneSelect, spec::ZoneDescriptor};

/// The zones of a namespace of the zoned command set: parts of one size that are written from their first block on, in order.
#[pyclass(frozen, module = "upcie")]
pub struct Zones {
    namespace: Py<Namespace>,
    #[pyo3(get)]
    count: u64,
    #[pyo3(get)]
    zone_blocks: u64,
    #[pyo3(get)]
    max_append: usize,
    #[pyo3(get)]
    max_open: Option<u32>,
    #[pyo3(get)]
    max_active: Option<u32>,
}

/// A zone, as a report told.
#[pyclass(frozen, get_all, module = "upcie")]
pub struct Zone {
    start: u64,
    capacity: u64,
    /// The next block to write; `None` in a zone that takes none.
    write_pointer: Option<u64>,
    state: String,
}

impl From<ZoneDescriptor> for Zone {
    fn from(zone: ZoneDescriptor) -> Self {
        let (start, capacity, state) = (zone.start, zone.capacity, zone.state());
        let write_pointer = state.has_write_pointer().then_some(zone.write_pointer);
        let state = state.name().map_or_else(|| state.to_string(), str::to_owned);
        Self { start, capacity, write_pointer, state }
    }
}

#[pymethods]
impl Zone {
    fn __repr__(&self) -> String {
        let pointer = self.write_pointer.map_or_else(|| "None".into(), |block| block.to_string());
        format!(
            "<upcie.Zone at block {}: {}, write pointer {pointer}, capacity {} blocks>",
            self.start, self.state, self.capacity
        )
    }
}

impl Zones {
    pub fn open(py: Python<'_>, namespace: Py<Namespace>) -> PyResult<Self> {
        let made = namespace.get().with(py, |_, native| {
            let zones = native.zones()?;
            Ok((zones.count(), zones.zone_blocks(), zones.max_append(), zones.max_open(), zones.max_active()))
        });
        let (count, zone_blocks, max_append, max_open, max_active) = made?;
        Ok(Self { namespace, count, zone_blocks, max_append, max_open, max_active })
    }

    /// Changes one zone, or all that the change applies to.
    fn change(
        &self,
        py: Python<'_>,
        zone: Option<u64>,
        change: fn(&upcie_nvme::Zones, ZoneSelect) -> upcie_nvme::Result<()>,
    ) -> PyResult<()> {
        let select = zone.map_or(ZoneSelect::All, ZoneSelect::At);
        Ok(self.namespace.get().with(py, |_, native| Ok(change(&native.zones()?, select)?))?)
    }
}

#[pymethods]
impl Zones {
    /// Reports zones in the order of their blocks, from the one that has block `first` on.
    #[pyo3(signature = (first = 0, most = None))]
    fn report(&self, py: Python<'_>, first: u64, most: Option<usize>) -> PyResult<Vec<Zone>> {
        let most = most.unwrap_or(usize::MAX);
        let report = self.namespace.get().with(py, |_, native| Ok(native.zones()?.report(first, most)?));
        Ok(report?.into_iter().map(Zone::from).collect())
    }

    /// Appends data to the zone that begins with block `zone`; returns the first block that was written.
    fn append(&self, py: Python<'_>, zone: u64, data: &Bound<'_, PyAny>) -> PyResult<u64> {
        let buffer = self.namespace.get().source(py, data)?;
        let buffer = buffer.get();
        let block = self.namespace.get().with(py, |_, native| {
            let zones = native.zones()?;
            let mut data = buffer.take()?;
            let block = zones.append(zone, &mut data);
            buffer.put(data);
            Ok::<_, Failure>(block?)
        });
        Ok(block?)
    }

    /// Opens a zone, or all closed ones for `None`.
    fn open_zone(&self, py: Python<'_>, zone: Option<u64>) -> PyResult<()> {
        self.change(py, zone, upcie_nvme::Zones::open)
    }

    /// Closes a zone, or all open ones for `None`.
    fn close_zone(&self, py: Python<'_>, zone: Option<u64>) -> PyResult<()> {
        self.change(py, zone, upcie_nvme::Zones::close)
    }

    /// Finishes a zone, or all active ones for `None`: it is full.
    fn finish_zone(&self, py: Python<'_>, zone: Option<u64>) -> PyResult<()> {
        self.change(py, zone, upcie_nvme::Zones::finish)
    }

    /// Resets a zone, or all for `None`: its data is lost.
    fn reset_zone(&self, py: Python<'_>, zone: Option<u64>) -> PyResult<()> {
        self.change(py, zone, upcie_nvme::Zones::reset)
    }

    fn __len__(&self) -> usize {
        self.count as usize
    }

    fn __repr__(&self) -> String {
        format!("<upcie.Zones: {} zones of {} blocks>", self.count, self.zone_blocks)
    }
}
