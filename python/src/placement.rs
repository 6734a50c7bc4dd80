//! Flexible data placement: the reclaim units that writes go to.

use crate::{failure::Failure, namespace::Namespace};
use pyo3::prelude::*;
use upcie_nvme::spec::{HandleStatus, PlacementConfiguration};

/// The placement handles of a namespace whose endurance group has flexible data placement. A placement identifier names a handle and
/// a reclaim group, and so the reclaim unit that a write goes to (`placement=`).
#[pyclass(frozen, module = "upcie")]
pub struct Placement {
    namespace: Py<Namespace>,
    #[pyo3(get)]
    endurance_group: u16,
    /// The number of reclaim groups.
    #[pyo3(get)]
    reclaim_groups: u32,
    /// The bytes of a reclaim unit.
    #[pyo3(get)]
    unit_size: u64,
    configuration: PlacementConfiguration,
}

/// A placement handle in a reclaim group, and the reclaim unit that it refers to, as a status told.
#[pyclass(frozen, get_all, module = "upcie")]
pub struct PlacementHandle {
    /// The placement identifier.
    identifier: u16,
    reclaim_unit_handle: u16,
    /// The blocks that can still be written to the reclaim unit.
    available_blocks: u64,
    /// Estimated seconds until the controller moves on to another unit; 0 if it does not say.
    time_remaining: u32,
}

impl From<HandleStatus> for PlacementHandle {
    fn from(handle: HandleStatus) -> Self {
        Self {
            identifier: handle.placement_identifier,
            reclaim_unit_handle: handle.reclaim_unit_handle,
            available_blocks: handle.available_media_writes,
            time_remaining: handle.estimated_time_remaining,
        }
    }
}

#[pymethods]
impl PlacementHandle {
    fn __repr__(&self) -> String {
        format!(
            "<upcie.PlacementHandle {:#x}: reclaim unit handle {}, {} blocks left>",
            self.identifier, self.reclaim_unit_handle, self.available_blocks
        )
    }
}

impl Placement {
    pub fn open(py: Python<'_>, namespace: Py<Namespace>) -> PyResult<Self> {
        let made = namespace.get().with(py, |_, native| {
            let placement = native.placement()?;
            Ok((placement.endurance_group(), *placement.configuration()))
        });
        let (endurance_group, configuration) = made?;
        let reclaim_groups = configuration.reclaim_groups;
        let unit_size = configuration.reclaim_unit_nominal_size;
        Ok(Self { namespace, endurance_group, reclaim_groups, unit_size, configuration })
    }
}

#[pymethods]
impl Placement {
    /// Returns the placement identifier of a placement handle in a reclaim group.
    #[pyo3(signature = (handle, group = 0))]
    fn identifier(&self, handle: u16, group: u16) -> PyResult<u16> {
        let identifier = self.configuration.identifier(group, handle);
        if self.configuration.parts_of(identifier) != (group, handle) {
            let text = format!(
                "placement handle {handle} in reclaim group {group}: no identifier has room for both"
            );
            return Err(Failure::Argument(text).into());
        }
        Ok(identifier)
    }

    /// Returns the state of each placement handle in each reclaim group.
    fn handles(&self, py: Python<'_>) -> PyResult<Vec<PlacementHandle>> {
        let handles = self.namespace.get().with(py, |_, native| Ok(native.placement()?.handles()?))?;
        Ok(handles.into_iter().map(PlacementHandle::from).collect())
    }

    /// Lets the reclaim unit handles of these identifiers refer to other, empty reclaim units.
    fn update(&self, py: Python<'_>, identifiers: Vec<u16>) -> PyResult<()> {
        Ok(self.namespace.get().with(py, |_, native| Ok(native.placement()?.update(&identifiers)?))?)
    }

    fn __repr__(&self) -> String {
        format!(
            "<upcie.Placement of endurance group {}: reclaim units of {} bytes in {} groups>",
            self.endurance_group, self.unit_size, self.reclaim_groups
        )
    }
}
