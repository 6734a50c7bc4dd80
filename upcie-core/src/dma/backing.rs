//! What stands behind a region.

use crate::{memory::Memory, mmio::Mapping};
use std::sync::Arc;

/// What a region is made of.
#[derive(Debug)]
pub(super) enum Backing {
    /// Memory of the host.
    Host(Memory),
    /// A part of a base address register: memory in a device.
    Device {
        mapping: Arc<Mapping>,
        /// Where the region begins in `mapping`, in bytes.
        offset: usize,
        len: usize,
        /// What the way in was asked to map for other devices: device address and bytes.
        shared: Option<(u64, u64)>,
    },
}
