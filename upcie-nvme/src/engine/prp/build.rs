//! Data pointers made for one command: PRPs where they can describe the data and the controller takes as many, otherwise an SGL.

use super::{
    DataPointer, ENTRY, ListPool, Pages, SglUse, Source,
    sgl::SglWriter,
    shape::{Part, Place, TableRange, Whole},
    writer::Writer,
};
use crate::error::Refusal;
use std::ops::Range;
use upcie_core::dma::{DmaBuf, Spans};

/// Segments whose addresses are a PRP list: the first one, and their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageList {
    first: u64,
    pub(crate) len: u64,
}

impl ListPool {
    /// Makes the data pointer for all segments of `buf`; also returns their bytes.
    pub(crate) fn build(&mut self, buf: &DmaBuf) -> Result<(DataPointer, u64), Refusal> {
        if let Some(spans) = buf.spans() {
            return self.build_spans(spans).map(|pointer| (pointer, spans.total_len() as u64));
        }
        if let Some(pages) = self.pages(buf.segments().map(|segment| (segment, 0..segment.len()))) {
            return Ok((self.take_pages(pages)?, pages.len));
        }
        let mut total = 0;
        let pointer = self.describe(&Whole(buf, self.space), |len| total += len)?;
        Ok((pointer, total))
    }

    /// Writes the addresses of segments into the next free chunk if they are a list as they are: single pages from the
    /// second on, of linear memory in the queue's address space. Otherwise, or if no chunk is free, returns `None`.
    #[inline(always)]
    pub(crate) fn pages<'b>(
        &mut self,
        mut segments: impl Iterator<Item = (&'b DmaBuf, Range<usize>)>,
    ) -> Option<PageList> {
        let mask = self.page_mask();
        if !self.shape.sgl.keeps_to_prps() || self.free == 0 {
            return None;
        }
        let space = self.space;
        let linear = move |(buffer, part): (&DmaBuf, Range<usize>)| {
            let (data, len) = (buffer.prepared(), part.end.wrapping_sub(part.start));
            let good = part.end <= buffer.len()
                && len.wrapping_sub(1) < buffer.len()
                && data.space == space
                && buffer.is_linear();
            good.then(|| (data.iova + part.start as u64, len as u64))
        };
        let (first, mut len) = linear(segments.next()?)?;
        if first & 3 != 0 || (first & mask) + len > mask + 1 {
            return None;
        }
        let start = (self.free as usize - 1) * self.capacity;
        assert!((start + self.capacity) * ENTRY <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for a chunk's entries from there on.
        let entries = unsafe { self.memory.as_ptr().cast::<u64>().add(start) };
        let (mut end, mut count) = (first + len, 0);
        for segment in segments {
            let (address, next) = linear(segment)?;
            // The one before ends with its page, and this one begins with its own.
            if (end | address) & mask != 0 || next > mask + 1 || count == self.capacity {
                return None;
            }
            // SAFETY: one of the chunk's entries, which no command uses; no reference to them exists.
            unsafe { entries.wrapping_add(count).write(address.to_le()) };
            (end, len, count) = (address.wrapping_add(next), len + next, count + 1);
        }
        (count > 1).then_some(PageList { first, len })
    }

    /// Takes the list that [`pages`](Self::pages) has just written.
    #[inline(always)]
    pub(crate) fn take_pages(&mut self, pages: PageList) -> Result<DataPointer, Refusal> {
        let list = self.take()?;
        Ok(DataPointer { prp1: pages.first, prp2: self.iova(list), list, psdt: 0 })
    }

    /// Makes the data pointer for all bytes of a gathered chain.
    #[inline(always)]
    fn build_spans(&mut self, spans: &Spans) -> Result<DataPointer, Refusal> {
        if !spans.is_in(self.space) {
            return Err(Refusal::ForeignBuffer);
        }
        let mask = self.page_mask();
        if let ([first, rest @ ..], [len, _, .., last]) = (spans.addresses(), spans.lens()) {
            // Single pages from the second on: their addresses are the entries of the list.
            if spans.joints() & mask == 0
                && spans.are_inner(mask + 1)
                && (first & mask) + len <= mask + 1
                && *last <= mask + 1
                && first & 3 == 0
                && (2..=self.capacity).contains(&rest.len())
                && self.shape.sgl.keeps_to_prps()
            {
                let list = self.take()?;
                self.store_all(list, rest);
                return Ok(DataPointer { prp1: *first, prp2: self.iova(list), list, psdt: 0 });
            }
        }
        self.describe(spans, |_| ())
    }

    /// Makes the data pointer for `len` bytes from `start` on of all segments of `buf`, which are in the queue's address
    /// space.
    pub(crate) fn build_range(
        &mut self,
        buf: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        if let Some(spans) = buf.spans() {
            if (start, len) == (0, spans.total_len()) {
                return self.build_spans(spans);
            }
            let place = Place::default().further(spans, start as u64);
            return self.describe(&TableRange { spans, place, len: len as u64 }, |_| ());
        }
        self.describe(&Part(buf, start..start + len), |_| ())
    }

    /// Makes the data pointer for all pieces of `source`, which are in the queue's address space: PRPs if they can describe
    /// them, otherwise an SGL if the queue may use one. `count` is called with the bytes of each piece.
    #[inline(always)]
    pub(crate) fn describe(
        &mut self,
        source: &impl Source,
        mut count: impl FnMut(u64),
    ) -> Result<DataPointer, Refusal> {
        let (pointer, total) = if self.shape.sgl.keeps_to_prps() {
            match self.by_prps(source) {
                (Err(Refusal::Unaligned), _) if self.shape.sgl == SglUse::WhereNeeded => self.by_sgl(source),
                done => done,
            }
        } else {
            self.by_choice(source)
        };
        count(total);
        pointer
    }

    /// Makes PRPs for all pieces; also returns their bytes.
    #[inline(always)]
    fn by_prps(&mut self, source: &impl Source) -> (Result<DataPointer, Refusal>, u64) {
        let (mut pages, mut total) = (Pages::new(self.page_shift), 0);
        let mut writer = Writer::new(self);
        let end = source.each(&mut |address, len| {
            total += len;
            writer.add(&mut pages, address, len)
        });
        (writer.finish(end), total)
    }

    /// Makes an SGL for all pieces; also returns their bytes.
    #[cold]
    #[inline(never)]
    fn by_sgl(&mut self, source: &impl Source) -> (Result<DataPointer, Refusal>, u64) {
        let (mut writer, mut total) = (SglWriter::new(self), 0);
        let end = source.each(&mut |address, len| {
            total += len;
            writer.add(address, len)
        });
        (writer.finish(end), total)
    }

    /// Makes an SGL, or PRPs for few pages where the queue wants an SGL for more alone: the other one, if the first can't
    /// describe the data.
    #[cold]
    #[inline(never)]
    fn by_choice(&mut self, source: &impl Source) -> (Result<DataPointer, Refusal>, u64) {
        let SglUse::Beyond(most) = self.shape.sgl else { return self.by_sgl(source) };
        let is_short = self.has_pages(source, most.max(2));
        let first = if is_short { self.by_prps(source) } else { self.by_sgl(source) };
        match first {
            (Err(Refusal::Unaligned), _) if is_short => self.by_sgl(source),
            (Err(Refusal::Unaligned), _) => self.by_prps(source),
            done => done,
        }
    }

    /// Returns `true` if PRPs can describe all pieces, and are at most `most`.
    fn has_pages(&self, source: &impl Source, most: u16) -> bool {
        let (mut pages, mut count) = (Pages::new(self.page_shift), 0);
        let end = source.each(&mut |address, len| {
            let run = pages.piece(address, len)?;
            count += u64::from(run.start.is_some()) + run.further;
            Ok(())
        });
        end.is_ok() && count <= u64::from(most)
    }
}
