//! Zones of a namespace: reports, appends, and changes of their states.

use crate::{failure::Failure, namespace::Namespace};
use pyo3::{
    buffer::PyBuffer,
    prelude::*,
    types::{PyBytes, PyMemoryView},
};
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
    /// The blocks of a zone's random write area; 0 if zones can't have one.
    #[pyo3(get)]
    random_write_area: u64,
    /// The bytes of a zone's descriptor extension; 0 if zones have none.
    #[pyo3(get)]
    extension_size: usize,
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
            let limits = (zones.max_append(), zones.max_open(), zones.max_active());
            let optional = (zones.random_write_area(), zones.extension_size());
            Ok((zones.count(), zones.zone_blocks(), limits, optional))
        });
        let (count, zone_blocks, (max_append, max_open, max_active), optional) = made?;
        let (random_write_area, extension_size) = optional;
        Ok(Self {
            namespace,
            count,
            zone_blocks,
            max_append,
            max_open,
            max_active,
            random_write_area,
            extension_size,
        })
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
            Ok(buffer.with(|data| zones.append(zone, data))??)
        });
        Ok(block?)
    }

    /// Opens a zone, or all closed ones for `None`; with `random_writes` an empty zone with a random write area.
    #[pyo3(signature = (zone, *, random_writes = false))]
    fn open_zone(&self, py: Python<'_>, zone: Option<u64>, random_writes: bool) -> PyResult<()> {
        match (zone, random_writes) {
            (_, false) => self.change(py, zone, upcie_nvme::Zones::open),
            (Some(zone), true) => Ok(self.namespace.get().with(py, |_, native| {
                native.zones()?.open_for_random_writes(zone)?;
                Ok(())
            })?),
            (None, true) => Err(Failure::Argument("random_writes=True: name one zone".into()).into()),
        }
    }

    /// Commits the random write area of a zone up to and with a block.
    fn flush_random_writes(&self, py: Python<'_>, last: u64) -> PyResult<()> {
        Ok(self.namespace.get().with(py, |_, native| Ok(native.zones()?.flush_random_writes(last)?))?)
    }

    /// Takes a read-only zone, or all for `None`, offline: its data is lost for good.
    fn offline_zone(&self, py: Python<'_>, zone: Option<u64>) -> PyResult<()> {
        self.change(py, zone, upcie_nvme::Zones::offline)
    }

    /// Sets the descriptor extension of an empty zone, which is closed then, to as many bytes as it has.
    fn set_extension(&self, py: Python<'_>, zone: u64, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = PyMemoryView::from(data)?.call_method1("cast", ("B",))?;
        let bytes = PyBuffer::<u8>::get(&bytes)?.to_vec(py)?;
        Ok(self.namespace.get().with(py, |_, native| Ok(native.zones()?.set_extension(zone, &bytes)?))?)
    }

    /// Reports zones like `report`, each with the bytes of its descriptor extension.
    #[pyo3(signature = (first = 0, most = None))]
    fn report_extended<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        most: Option<usize>,
    ) -> PyResult<Vec<(Zone, Bound<'py, PyBytes>)>> {
        let most = most.unwrap_or(usize::MAX);
        let report =
            self.namespace.get().with(py, |_, native| Ok(native.zones()?.report_extended(first, most)?));
        Ok(report?.into_iter().map(|(zone, bytes)| (Zone::from(zone), PyBytes::new(py, &bytes))).collect())
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
