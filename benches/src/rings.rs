//! Rings and doorbells of the peers: the hand-written loop and the C path.

use crate::standin::Device;

/// A pair of rings, their doorbells and the stand-in device on them. Never freed: a bench makes them once.
#[derive(Debug)]
pub struct Rings {
    /// Submission queue entries of 64 bytes.
    pub sq: *mut u64,
    /// Completion queue entries of 16 bytes.
    pub cq: *mut u64,
    /// The submission queue's doorbell, then the completion queue's.
    pub doorbells: *mut u32,
    /// Entries of each ring.
    pub entries: usize,
    /// The device, which completes the commands.
    pub device: Device,
}

/// Allocates pages of zeroes, which are never freed: a bench makes them once.
pub fn pages(bytes: usize) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a layout");
    // SAFETY: the size is not 0.
    unsafe { std::alloc::alloc_zeroed(layout) }
}

impl Rings {
    /// Allocates rings of `entries`, zeroed.
    pub fn new(entries: usize) -> Self {
        let (sq, cq, doorbells) = (pages(entries * 64), pages(entries * 16), pages(4096).cast());
        // SAFETY: the memory has these sizes and is never freed.
        let device = unsafe { Device::over(sq, cq, doorbells, entries as u16) };
        Self { sq: sq.cast(), cq: cq.cast(), doorbells, entries, device }
    }
}
