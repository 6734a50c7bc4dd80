//! Memory of the device itself at addresses of its client, such as NVMe's controller memory buffer.

use super::client_memory::Window;
use crate::{memory::Memory, vfio_user::copy};
use std::{ops::Range, ptr::NonNull, sync::Arc};

/// Memory of the device, in front of the ranges that its client has mapped.
#[derive(Debug)]
pub struct DeviceMemory {
    start: u64,
    memory: Arc<Memory>,
}

impl DeviceMemory {
    /// Makes memory at the address `start`; `None` if it would not end before the last address.
    pub fn new(start: u64, memory: Arc<Memory>) -> Option<Self> {
        start.checked_add(memory.len() as u64)?;
        Some(Self { start, memory })
    }

    /// Returns its addresses.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start + self.memory.len() as u64
    }

    /// Returns `true` if it has an address that another one has, too.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.range(), other.range());
        one.start < other.end && other.start < one.end
    }

    /// Returns all of it, if `iova` is within.
    pub fn window(&self, iova: u64) -> Option<Window> {
        let (start, len) = (self.start, self.memory.len() as u64);
        let base = NonNull::new(self.memory.as_ptr())?;
        self.range().contains(&iova).then_some(Window { start, len, base })
    }

    /// Returns the part of `window` around `iova` that this memory does not cover. `iova` is in the window, and not in this
    /// memory.
    pub fn uncovered(&self, window: Window, iova: u64) -> Window {
        let Range { start, end } = self.range();
        if iova < start {
            return Window { len: window.len.min(start - window.start), ..window };
        }
        let covered = end.saturating_sub(window.start);
        let base = copy::offset(window.base, covered as usize);
        Window { start: window.start + covered, len: window.len - covered, base }
    }

    /// Returns the number of bytes of `len` from `iova` on that this memory does not cover. `iova` is not in this memory.
    pub fn uncovered_len(&self, iova: u64, len: u64) -> u64 {
        if iova < self.start { len.min(self.start - iova) } else { len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PageSize;

    const START: u64 = 1 << 20;

    fn memory(start: u64) -> Option<DeviceMemory> {
        DeviceMemory::new(start, Arc::new(Memory::new(64 << 10, PageSize::Small).unwrap().shared()))
    }

    #[test]
    fn device_memory_has_an_address_for_each_byte() {
        let device = memory(START).unwrap();
        let end = device.range().end;
        assert_eq!(end - START, 64 << 10);
        assert!([START - 1, end].into_iter().all(|iova| device.window(iova).is_none()));
        for iova in [START, end - 1] {
            let window = device.window(iova).unwrap();
            assert_eq!((window.start, window.len), (START, 64 << 10));
            assert_eq!(window.base.as_ptr(), device.memory.as_ptr());
        }
        for (start, overlaps) in [(START - 1, true), (end - 1, true), (START, true), (end, false), (0, false)]
        {
            assert_eq!(device.overlaps(&memory(start).unwrap()), overlaps, "{start:#x}");
        }
        assert!(memory(u64::MAX - (64 << 10)).is_some());
        assert!(memory(u64::MAX - (64 << 10) + 1).is_none());
    }

    #[test]
    fn device_memory_covers_what_the_client_has_there() {
        let device = memory(START).unwrap();
        let end = device.range().end;
        let base = NonNull::<u8>::dangling();
        let cut = |start: u64, to: u64, iova: u64| {
            let cut = device.uncovered(Window { start, len: to - start, base }, iova);
            assert_eq!(cut.base, copy::offset(base, (cut.start - start) as usize));
            (cut.start, cut.start + cut.len)
        };
        for (start, to, iova, wanted) in [
            (0, START / 2, 5, (0, START / 2)),
            (0, START, 5, (0, START)),
            (0, START + 1, START - 1, (0, START)),
            (0, 2 * START, 5, (0, START)),
            (0, 2 * START, end, (end, 2 * START)),
            (START + 1, 2 * START, end, (end, 2 * START)),
            (end, 2 * START, end, (end, 2 * START)),
            (end + 1, 2 * START, end + 5, (end + 1, 2 * START)),
        ] {
            assert_eq!(cut(start, to, iova), wanted, "{iova:#x} in {start:#x}..{to:#x}");
            assert_eq!(device.uncovered_len(iova, to - iova), wanted.1 - iova);
        }
    }
}
