//! Operations on a buffer in DMA memory.

use super::{
    DmaBuf, Region, Spans,
    descriptor::{Descriptor, Home, Prepared},
};
use crate::{barrier, mmio};
use std::{fmt, ops::Range, sync::Arc};

impl DmaBuf {
    /// Returns the fields that the submission path needs, in one cache line.
    #[inline(always)]
    pub fn prepared(&self) -> &Prepared {
        &self.descriptor().prepared
    }

    /// Returns the bytes in this segment; [`total_len`](Self::total_len) includes the chained segments.
    #[inline]
    pub fn len(&self) -> usize {
        self.descriptor().len
    }

    /// Returns whether the buffer has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the device address of the byte at `offset`. Bytes that are contiguous here are contiguous for the device
    /// within one page of the memory's own page size.
    ///
    /// # Panics
    /// Panics if `offset` is not below [`len`](Self::len).
    pub fn iova(&self, offset: usize) -> u64 {
        let all = self.descriptor();
        assert!(offset < all.len, "offset {offset} in a buffer of {} bytes", all.len);
        self.region().map_or(0, |region| region.iova(self.offset_in_region() + offset))
    }

    /// Returns the address in this process: for raw access by code that knows when the device is done.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.descriptor().ptr.as_ptr()
    }

    /// Returns whether the bytes are in a device, behind a base address register (a controller memory buffer). They can
    /// only be [copied](Self::is_by_copy).
    #[inline]
    pub fn is_device_memory(&self) -> bool {
        self.region().is_some_and(|region| region.is_device_memory())
    }

    /// Returns whether other processes may read and write the bytes at any time ([`Region::export`]). They
    /// can only be [copied](Self::is_by_copy).
    pub fn is_shared(&self) -> bool {
        self.region().is_some_and(|region| region.is_shared())
    }

    /// Returns whether the buffer can only be copied from and to: [`as_slice`](Self::as_slice) is `None`.
    #[inline]
    pub fn is_by_copy(&self) -> bool {
        self.descriptor().by_copy
    }

    /// Returns the bytes of this segment; `None` if the buffer can only be [copied](Self::is_by_copy) from and to.
    #[inline]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let all = self.descriptor();
        if all.by_copy {
            return None;
        }
        // SAFETY: this handle owns the `len` initialised bytes. The device writes only to buffers in flight (the module's
        // trust model), and the command owns those.
        Some(unsafe { std::slice::from_raw_parts(all.ptr.as_ptr(), all.len) })
    }

    /// Returns the bytes of this segment for writing; `None` as for [`as_slice`](Self::as_slice).
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        let all = self.descriptor();
        if all.by_copy {
            return None;
        }
        // SAFETY: this handle owns the `len` initialised bytes and is borrowed mutably. The device writes only to buffers
        // in flight (the module's trust model), and the command owns those.
        Some(unsafe { std::slice::from_raw_parts_mut(all.ptr.as_ptr(), all.len) })
    }

    /// Returns a copy of the bytes of this segment, of any buffer.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Returns the region of the buffer; `None` for the empty buffer.
    pub fn region(&self) -> Option<&Arc<Region>> {
        self.home().region()
    }

    /// Returns the offset of the first byte in the [`region`](Self::region), in bytes: another process that has the
    /// region finds the buffer by it.
    pub fn offset_in_region(&self) -> usize {
        // The buffer lies in the region.
        self.region().map_or(0, |region| self.as_ptr().addr() - region.as_ptr().addr())
    }

    /// Returns whether all bytes are contiguous for the device. Without an IOMMU different huge pages may not be.
    pub fn is_contiguous(&self) -> bool {
        let (at, len) = (self.offset_in_region(), self.len());
        self.region().is_none_or(|region| region.addresses().is_contiguous(at, len))
    }

    /// Returns whether all bytes of this segment are in host memory and contiguous for the device, from
    /// [`prepared`](Self::prepared)`().iova` on. The answer is prepared, so it is cheap enough for every command. A large
    /// buffer can be linear although it is not [ready](Prepared::len).
    #[inline(always)]
    pub fn is_linear(&self) -> bool {
        self.descriptor().linear
    }

    /// Reads the bytes from `offset` on. Data from a device's memory, even write-combining memory, is at least as new as
    /// each completion seen before this call.
    ///
    /// # Panics
    /// Panics if the range is not within the buffer.
    pub fn read_at(&self, offset: usize, data: &mut [u8]) {
        let from = self.range(offset, data.len());
        match self.as_slice() {
            Some(bytes) => data.copy_from_slice(&bytes[offset..offset + data.len()]),
            None => {
                barrier::mmio_rmb();
                // SAFETY: `range` checked that the bytes are in the buffer, whose mapping lives.
                unsafe { mmio::copy_from(from, data) }
            }
        }
    }

    /// Writes `data` to the bytes from `offset` on. Data for a device's memory, even write-combining memory, arrives
    /// before each doorbell rung after this call.
    ///
    /// # Panics
    /// Panics if the range is not within the buffer.
    pub fn write_at(&mut self, offset: usize, data: &[u8]) {
        let to = self.range(offset, data.len());
        match self.as_mut_slice() {
            Some(bytes) => bytes[offset..offset + data.len()].copy_from_slice(data),
            None => {
                // SAFETY: `range` checked that the bytes are in the buffer, whose mapping lives; the buffer is borrowed
                // mutably.
                unsafe { mmio::copy_to(to, data) };
                barrier::mmio_wmb();
            }
        }
    }

    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        let all = self.len();
        let fits = offset.checked_add(len).is_some_and(|end| end <= all);
        assert!(fits, "{len} bytes at {offset} of a buffer of {all} bytes");
        self.as_ptr().wrapping_add(offset)
    }

    /// Sets all bytes of this segment to `value`.
    pub fn fill(&mut self, value: u8) {
        if let Some(bytes) = self.as_mut_slice() {
            return bytes.fill(value);
        }
        let bytes = [value; 4096];
        for offset in (0..self.len()).step_by(bytes.len()) {
            self.write_at(offset, &bytes[..bytes.len().min(self.len() - offset)]);
        }
    }

    /// Takes the part `range` (in bytes) of the buffer as a buffer of its own. The remaining bytes are out of reach until
    /// [`try_reunite`](Self::try_reunite) restores the buffer.
    ///
    /// # Panics
    /// Panics if the range is empty or not within the buffer, or the buffer is chained.
    #[must_use]
    pub fn slice(self, range: Range<usize>) -> Self {
        let parent = Arc::new(self);
        Self::part(&parent, range)
    }

    /// Splits the buffer at `mid`. The memory is freed when both halves are dropped.
    ///
    /// # Panics
    /// Panics if a half would be empty, or the buffer is chained.
    #[must_use]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (len, parent) = (self.len(), Arc::new(self));
        (Self::part(&parent, 0..mid), Self::part(&parent, mid..len))
    }

    /// Restores the buffer that a part was cut from.
    ///
    /// # Errors
    /// Returns the buffer unchanged when it is not a part, is chained, or other parts of the same buffer exist.
    pub fn try_reunite(mut self) -> Result<Self, Self> {
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
        let second = all.home.prepare().and_then(|prepare| prepare.prepare(&iova, len, None));
        let (region, by_copy) = (all.home.region().cloned(), all.by_copy);
        // SAFETY: the start is within the parent's bytes, as asserted.
        let ptr = unsafe { all.ptr.add(range.start) };
        let linear = region
            .as_ref()
            .is_some_and(|region| region.is_linear(ptr.as_ptr().addr() - region.as_ptr().addr(), len));
        let whole = second.and(u32::try_from(len).ok()).unwrap_or(0);
        let prepared =
            Prepared { iova: iova(0), second: second.unwrap_or(0), space: all.prepared.space, len: whole };
        Self::from_descriptor(Box::new(Descriptor {
            prepared,
            whole,
            linear,
            ptr,
            len,
            by_copy,
            next: None,
            spans: None,
            home: Home::Part(parent.clone(), region),
        }))
    }

    /// Appends `next`, which may be a chain, as a further segment: a command with the first segment transfers all of
    /// them. [`gather`](Self::gather) makes a chain that commands are prepared from in less time.
    pub fn chain(&mut self, mut next: Self) {
        // The tables of addresses are no longer those of the whole chain.
        [&mut *self, &mut next].into_iter().filter_map(Self::descriptor_mut).for_each(|all| all.spans = None);
        let mut last = self;
        while last.descriptor().next.is_some() {
            last = last.descriptor_mut().and_then(|d| d.next.as_mut()).expect("just seen");
        }
        match last.descriptor_mut() {
            Some(all) => {
                all.prepared.len = 0;
                all.next = Some(next);
            }
            // The empty buffer is immutable and has nothing to transfer: `next` replaces it.
            None => *last = next,
        }
    }

    /// Chains buffers, each of which may be a chain, in their order; empty ones are left out.
    /// [`into_segments`](Self::into_segments) takes the chain apart.
    ///
    /// The device addresses of all bytes are noted in a [table](Self::spans), so that a command with the chain is prepared
    /// in less time. [`chain`](Self::chain) and [`unchain`](Self::unchain) discard the table.
    ///
    pub fn gather(buffers: impl IntoIterator<Item = Self>) -> Self {
        let buffers: Vec<Self> = buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect();
        let mut spans = Spans::default();
        buffers.iter().flat_map(Self::segments).for_each(|segment| segment.add_to(&mut spans));
        let mut chain = Self::empty();
        for mut buffer in buffers.into_iter().rev() {
            if !chain.is_empty() {
                buffer.chain(chain);
            }
            chain = buffer;
        }
        match chain.descriptor_mut() {
            Some(all) if all.next.is_some() => all.spans = Some(Box::new(spans)),
            _ => {}
        }
        chain
    }

    /// Adds the device addresses of this segment to a table.
    fn add_to(&self, spans: &mut Spans) {
        /// No memory has smaller pages.
        const STEP: usize = 4096;
        let Prepared { space, iova, .. } = *self.prepared();
        if self.is_linear() {
            return spans.push(space, iova, self.len() as u64);
        }
        let mut at = 0;
        while at < self.len() {
            let len = (STEP - (self.offset_in_region() + at) % STEP).min(self.len() - at);
            spans.push(space, self.iova(at), len as u64);
            at += len;
        }
    }

    /// Takes a chain apart; returns its segments in order.
    pub fn into_segments(mut self) -> Vec<Self> {
        let mut segments = Vec::new();
        loop {
            let next = self.unchain();
            segments.push(self);
            match next {
                Some(next) => self = next,
                None => return segments,
            }
        }
    }

    /// Detaches and returns the segments that follow this one.
    pub fn unchain(&mut self) -> Option<Self> {
        let all = self.descriptor_mut()?;
        let next = all.next.take();
        all.prepared.len = all.whole;
        all.spans = None;
        next
    }

    /// Returns the device addresses of all bytes of a chain that [`gather`](Self::gather) made; `None` for other buffers.
    #[inline(always)]
    pub fn spans(&self) -> Option<&Spans> {
        self.descriptor().spans.as_deref()
    }

    /// Returns the next segment of a chain.
    pub fn next_segment(&self) -> Option<&Self> {
        self.descriptor().next.as_ref()
    }

    /// Iterates over this segment and the chained ones.
    pub fn segments(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |segment| segment.next_segment())
    }

    /// Returns the bytes in all segments.
    pub fn total_len(&self) -> usize {
        match self.spans() {
            Some(spans) => spans.total_len(),
            None => self.segments().map(Self::len).sum(),
        }
    }
}

impl Default for DmaBuf {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("iova", &format_args!("{:#x}", self.prepared().iova))
            .field("len", &self.len())
            .field("segments", &self.segments().count())
            .finish()
    }
}
