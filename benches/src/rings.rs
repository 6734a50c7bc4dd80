//! Rings and doorbells of what is not ours: the hand-written loop and the C path.

use crate::standin::Device;

/// A submission ring, a completion ring, their doorbells and the stand-in device on them. Leaked: a bench makes it once.
#[derive(Debug)]
pub struct Rings {
    /// Entries of 64 bytes.
    pub sq: *mut u64,
    /// Entries of 16 bytes.
    pub cq: *mut u64,
    /// The submission queue's, then the completion queue's.
    pub doorbells: *mut u32,
    /// Entries of each ring.
    pub entries: usize,
    /// The completer of the commands.
    pub device: Device,
}

/// Pages of zeroes, never freed: a bench makes them once.
pub fn pages(bytes: usize) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a layout");
    // SAFETY: not of size 0.
    unsafe { std::alloc::alloc_zeroed(layout) }
}

impl Rings {
    /// Rings of `entries`, zeroed.
    pub fn new(entries: usize) -> Self {
        let (sq, cq, doorbells) = (pages(entries * 64), pages(entries * 16), pages(4096).cast());
        // SAFETY: just made of these sizes, never freed.
        let device = unsafe { Device::over(sq, cq, doorbells, entries as u16) };
        Self { sq: sq.cast(), cq: cq.cast(), doorbells, entries, device }
    }
}
