//! What can be done with a piece of DMA memory.

use super::{
    DmaBuf, Region,
    descriptor::{Descriptor, Home, Transfer},
};
use crate::{barrier, mmio};
use std::{
    fmt,
    ops::{Deref, DerefMut, Range},
    sync::Arc,
};

impl DmaBuf {
    /// What the submission path needs, in one cache line.
    #[inline(always)]
    pub fn transfer(&self) -> &Transfer {
        &self.descriptor().transfer
    }

    /// Bytes in this segment; [`total_len`](Self::total_len) counts what is chained to it too.
    #[inline]
    pub fn len(&self) -> usize {
        self.descriptor().len
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The device address of the byte at `offset`. Bytes side by side here are so for the device within a page of the
    /// memory's own page size.
    ///
    /// # Panics
    /// When `offset` is not below [`len`](Self::len).
    pub fn iova(&self, offset: usize) -> u64 {
        let all = self.descriptor();
        assert!(offset < all.len, "offset {offset} in a buffer of {} bytes", all.len);
        self.region().map_or(0, |region| region.iova(self.offset_in_region() + offset))
    }

    /// Where this process sees it: for raw access by code that knows when the device is done.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.descriptor().ptr.as_ptr()
    }

    /// Whether its bytes are in a device, behind a base address register (a controller memory buffer). It derefs to
    /// nothing then: it panics.
    #[inline]
    pub fn is_device_memory(&self) -> bool {
        self.region().is_some_and(|region| region.is_device_memory())
    }

    /// Whether other processes may read and write its bytes at any time ([`Region::export`]). It derefs to nothing then:
    /// it panics.
    pub fn is_shared(&self) -> bool {
        self.region().is_some_and(|region| region.is_shared())
    }

    /// Whether it can only be copied from and to: it derefs to nothing then, which panics.
    #[inline]
    pub fn is_by_copy(&self) -> bool {
        self.descriptor().by_copy
    }

    /// Its bytes, where nobody else has them; `None` where deref would panic, because it can only be
    /// [copied](Self::is_by_copy) from and to.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        (!self.is_by_copy()).then(|| &**self)
    }

    /// The same to write to.
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        (!self.is_by_copy()).then(|| &mut **self)
    }

    /// The region that it lies in; `None` for the empty buffer.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.home().region()
    }

    /// Where it begins in its [`region`](Self::region), in bytes: what another process that has the region needs to know.
    pub fn offset_in_region(&self) -> usize {
        // The buffer lies in the region.
        self.region().map_or(0, |region| self.as_ptr().addr() - region.as_ptr().addr())
    }

    /// Whether all bytes are side by side for the device. Without an IOMMU those of different huge pages may not be.
    pub fn is_contiguous(&self) -> bool {
        let (at, len) = (self.offset_in_region(), self.len());
        self.region().is_none_or(|region| region.addresses().is_contiguous(at, len))
    }

    /// Whether one device address leads to all bytes of this segment ([`transfer`](Self::transfer)`().iova` and what
    /// follows), and none is in a device. Prepared, and so cheap enough for every command; a large buffer that is not
    /// [ready](Transfer::ready) as a whole can be.
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.descriptor().linear
    }

    /// Reads the bytes from `offset` on. What is read of a device's memory, write-combined too, is no older than any
    /// completion that was seen before this.
    ///
    /// # Panics
    /// When they are not all in the buffer.
    pub fn read_at(&self, offset: usize, data: &mut [u8]) {
        let from = self.range(offset, data.len());
        if self.descriptor().by_copy {
            barrier::mmio_rmb();
            // SAFETY: as many bytes of a live mapping, as just checked.
            unsafe { mmio::copy_from(from, data) }
        } else {
            data.copy_from_slice(&self[offset..offset + data.len()]);
        }
    }

    /// Writes `data` to the bytes from `offset` on. What is written to a device's memory, write-combined too, comes before
    /// every doorbell that is rung after this.
    ///
    /// # Panics
    /// When they are not all in the buffer.
    pub fn write_at(&mut self, offset: usize, data: &[u8]) {
        let to = self.range(offset, data.len());
        if self.descriptor().by_copy {
            // SAFETY: as many bytes of a live mapping, as just checked, and the buffer is borrowed mutably.
            unsafe { mmio::copy_to(to, data) };
            barrier::mmio_wmb();
        } else {
            self[offset..offset + data.len()].copy_from_slice(data);
        }
    }

    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        let all = self.len();
        let fits = offset.checked_add(len).is_some_and(|end| end <= all);
        assert!(fits, "{len} bytes at {offset} of a buffer of {all} bytes");
        self.as_ptr().wrapping_add(offset)
    }

    /// Sets all bytes to zero.
    pub fn zero(&mut self) {
        if !self.descriptor().by_copy {
            return self.fill(0);
        }
        const ZEROES: [u8; 4096] = [0; 4096];
        for offset in (0..self.len()).step_by(ZEROES.len()) {
            self.write_at(offset, &ZEROES[..ZEROES.len().min(self.len() - offset)]);
        }
    }

    /// What deref checks.
    #[inline]
    fn assert_host(all: &Descriptor) {
        #[cold]
        #[inline(never)]
        fn by_copy_only() -> ! {
            panic!(
                "the buffer can only be copied from and to (read_at, write_at): it is memory of a device, or shared with \
                 other processes, or its device is not trusted"
            );
        }
        if all.by_copy {
            by_copy_only();
        }
    }

    /// The part `range` (in bytes) of the buffer, as a buffer of its own. The rest stays with it, out of reach:
    /// [`whole`](Self::whole) gives all of it back.
    ///
    /// # Panics
    /// When the range is empty or not within the buffer, or the buffer is chained.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> Self {
        let parent = Arc::new(self);
        Self::part(&parent, range)
    }

    /// Cuts it in two at `mid`. The memory goes back when both are dropped.
    ///
    /// # Panics
    /// When a half would be empty, or the buffer is chained.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (len, parent) = (self.len(), Arc::new(self));
        (Self::part(&parent, 0..mid), Self::part(&parent, mid..len))
    }

    /// What a part was cut from, as one buffer again.
    ///
    /// # Errors
    /// The part itself, when it is not one, is chained, or when other parts of the same buffer still exist.
    pub fn whole(mut self) -> Result<Self, Self> {
        let Some(all) = self.descriptor_mut() else { return Err(self) };
        if all.next.is_some() {
            return Err(self);
        }
        match std::mem::replace(&mut all.home, Home::None) {
            Home::Part(parent, region) => match Arc::try_unwrap(parent) {
                Ok(parent) => Ok(parent),
                Err(parent) => {
                    all.home = Home::Part(parent, region);
                    Err(self)
                }
            },
            home => {
                all.home = home;
                Err(self)
            }
        }
    }

    fn part(parent: &Arc<Self>, range: Range<usize>) -> Self {
        let all = parent.descriptor();
        assert!(all.next.is_none(), "a chained buffer can't be cut");
        assert!(
            range.start < range.end && range.end <= all.len,
            "{range:?} of a buffer of {} bytes",
            all.len
        );
        let len = range.end - range.start;
        let iova = |offset: usize| parent.iova(range.start + offset);
        let companion = all.home.prepare().and_then(|prepare| prepare.prepare(&iova, len, None));
        let (region, by_copy) = (all.home.region().cloned(), all.by_copy);
        // SAFETY: within the parent's bytes, as asserted.
        let ptr = unsafe { all.ptr.add(range.start) };
        let linear = region
            .as_ref()
            .is_some_and(|region| region.is_linear(ptr.as_ptr().addr() - region.as_ptr().addr(), len));
        let whole = companion.and(u32::try_from(len).ok()).unwrap_or(0);
        let transfer = Transfer {
            iova: iova(0),
            companion: companion.unwrap_or(0),
            space: all.transfer.space,
            ready: whole,
        };
        Self::from_descriptor(Box::new(Descriptor {
            transfer,
            whole,
            linear,
            ptr,
            len,
            by_copy,
            next: None,
            home: Home::Part(parent.clone(), region),
        }))
    }

    /// Appends `next` (which may be a chain) as a further segment: a command given the first transfers all of them.
    pub fn chain(&mut self, next: Self) {
        let mut last = self;
        while last.descriptor().next.is_some() {
            last = last.descriptor_mut().and_then(|d| d.next.as_mut()).expect("just seen");
        }
        match last.descriptor_mut() {
            Some(all) => {
                all.transfer.ready = 0;
                all.next = Some(next);
            }
            // Nothing can hang on the empty buffer, which has nothing to transfer either.
            None => *last = next,
        }
    }

    /// Takes off what was chained to this segment.
    pub fn unchain(&mut self) -> Option<Self> {
        let all = self.descriptor_mut()?;
        let next = all.next.take();
        all.transfer.ready = all.whole;
        next
    }

    /// The next segment of a chain.
    pub fn next(&self) -> Option<&Self> {
        self.descriptor().next.as_ref()
    }

    /// This segment and those chained to it.
    pub fn segments(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |segment| segment.next())
    }

    /// Bytes in all segments.
    pub fn total_len(&self) -> usize {
        self.segments().map(Self::len).sum()
    }
}

impl Default for DmaBuf {
    fn default() -> Self {
        Self::empty()
    }
}

impl Deref for DmaBuf {
    type Target = [u8];

    /// Its bytes.
    ///
    /// # Panics
    /// When it can only be [copied](DmaBuf::is_by_copy) from and to; [`as_slice`](DmaBuf::as_slice) asks first.
    #[inline]
    fn deref(&self) -> &[u8] {
        let all = self.descriptor();
        Self::assert_host(all);
        // SAFETY: `len` initialised bytes that this handle owns; the device writes to no buffer that is not in flight
        // (the module's trust model), and one in flight is owned by its command.
        unsafe { std::slice::from_raw_parts(all.ptr.as_ptr(), all.len) }
    }
}

impl DerefMut for DmaBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let all = self.descriptor();
        Self::assert_host(all);
        // SAFETY: as in `deref`, and the handle is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(all.ptr.as_ptr(), all.len) }
    }
}

impl AsRef<[u8]> for DmaBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for DmaBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("iova", &format_args!("{:#x}", self.transfer().iova))
            .field("len", &self.len())
            .field("segments", &self.segments().count())
            .finish()
    }
}
