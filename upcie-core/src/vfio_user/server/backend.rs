//! A device in software, as the server calls it.

use super::Guest;
use crate::memory::Memory;
use nix::errno::Errno;
use std::sync::Arc;

/// One region of a device: a BAR or its configuration space.
#[derive(Debug, Clone, Default)]
pub struct RegionLayout {
    /// Bytes; 0 where there is no such region.
    pub size: u64,
    /// What a client may map of it. A page outside is accessed by message only.
    pub mappable: Option<Mappable>,
}

/// Memory that stands behind parts of a region.
#[derive(Debug, Clone)]
pub struct Mappable {
    /// The byte at offset `o` of the region is the byte at `o` of this memory.
    pub memory: Arc<Memory>,
    /// Offset and length in bytes of each part, page aligned.
    pub areas: Vec<(u64, u64)>,
}

/// What a device consists of: fixed while it is served.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// By region number: BAR 0–5, ROM, configuration space, VGA.
    pub regions: [RegionLayout; 9],
    /// Interrupts by kind ([`IrqKind`](crate::irq::IrqKind)'s numbers).
    pub irqs: [u32; 5],
}

/// A device behind a server. One thread calls all of this.
pub trait Backend {
    /// Its regions and interrupts.
    fn layout(&self) -> &Layout;

    /// A client reads `data.len()` bytes at `offset` of a region; the range is within the region.
    ///
    /// # Errors
    /// The number that the client is told.
    fn read(&mut self, guest: &mut Guest, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// A client writes `data` at `offset` of a region; the range is within the region.
    ///
    /// # Errors
    /// The number that the client is told.
    fn write(&mut self, guest: &mut Guest, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno>;

    /// Looks at the doorbells and works; says how much was done (0: nothing to do). Called again and again at native
    /// speed; it must return after a bounded batch.
    fn poll(&mut self, guest: &mut Guest) -> usize;

    /// The client is about to wire, mask or unmask interrupts: brings the [pin](Guest::set_pin) up to date with what the
    /// client has done to the device's memory since the last poll. A pin that is still said to be driven, though its
    /// cause has been acknowledged, would interrupt the client once more with each unmasking. Does nothing by default.
    fn update_interrupts(&mut self, guest: &mut Guest) {
        let _ = guest;
    }

    /// The client resets the device, or is gone: back to the state after power-on, memory of the client forgotten.
    fn reset(&mut self);
}
