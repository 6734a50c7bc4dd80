//! The memory behind a region.

use crate::{memory::Memory, mmio::Mapping};
use std::sync::Arc;

/// The memory that a region is made of.
#[derive(Debug)]
pub(super) enum Backing {
    /// Memory of the host.
    Host(Memory),
    /// A part of a base address register: memory in a device.
    Device {
        mapping: Arc<Mapping>,
        /// The region's first byte in `mapping`, in bytes.
        offset: usize,
        len: usize,
        /// Device address and bytes that the transport has mapped for other devices.
        shared: Option<(u64, u64)>,
    },
}
