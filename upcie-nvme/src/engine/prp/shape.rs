//! The forms of data pointers that a queue may use, and the segments that none of them describes.

use super::Pages;
use crate::error::{Refusal, SegmentFault};
use std::ops::Range;
use upcie_core::dma::{DmaBuf, Spans};

/// The use of scatter gather lists (SGLs) in place of PRPs, where the controller takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SglUse {
    /// Data that PRPs can't describe is refused.
    Never,
    /// For data that PRPs can't describe: segments that begin or end within a page, and data that is not aligned to dwords.
    /// A controller that is known to take few PRPs has [`Beyond`](Self::Beyond) in its place.
    #[default]
    WhereNeeded,
    /// For the same, and for data of more memory pages than this (fewer than 2 count as 2): for controllers that take fewer PRPs
    /// than a command of their longest transfer has. Transfers of the queues of a controller that was
    /// [opened](crate::ControllerBuilder::sgl) with it are on the fast path up to one page less.
    Beyond(u16),
    /// For all data. No command is on the fast path then.
    Always,
}

impl SglUse {
    /// Returns `true` if data that PRPs can describe always takes them.
    #[inline(always)]
    pub(super) fn keeps_to_prps(self) -> bool {
        matches!(self, Self::Never | Self::WhereNeeded)
    }
}

/// The forms of data pointers that a queue may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) page_shift: u32,
    /// [`SglUse::Never`] if the controller takes none.
    pub(crate) sgl: SglUse,
    /// The most bytes of a buffer whose prepared PRPs need no look: 0 for none.
    pub(crate) plain_bytes: u64,
    /// Bits that are 0 in addresses and lengths of an SGL.
    pub(crate) sgl_mask: u64,
}

impl Shape {
    /// Makes the shape of PRPs alone.
    pub(crate) fn prps(page_shift: u32) -> Self {
        Self { page_shift, sgl: SglUse::Never, plain_bytes: u64::MAX, sgl_mask: 0 }
    }

    /// Returns `reason`, with the number of the segment where there is one.
    #[cold]
    pub(crate) fn explain(self, reason: Refusal, buffer: &DmaBuf, part: Range<usize>) -> Refusal {
        match reason {
            Refusal::Unaligned => self.refuse(buffer, part).unwrap_or(reason),
            _ => reason,
        }
    }

    /// Returns the refusal of the bytes `part` of all segments of `buffer`, if neither PRPs nor an SGL describe them: with
    /// the number of the segment, where there are several.
    #[cold]
    pub(crate) fn refuse(self, buffer: &DmaBuf, part: Range<usize>) -> Option<Refusal> {
        let mut first = 0;
        let segments = buffer.segments().map(|segment| {
            let (from, to) = (part.start.max(first), part.end.min(first + segment.len()));
            let part = from - first..to.max(from) - first;
            first += segment.len();
            (segment, part)
        });
        let number = self.odd(segments)?;
        Some(match buffer.next_segment() {
            None => Refusal::Unaligned,
            Some(_) => Refusal::Segment { number, fault: SegmentFault::Unaligned },
        })
    }

    /// Returns `reason`, with the number of the segment where it is [`Refusal::Unaligned`].
    #[cold]
    pub(crate) fn explain_segments<'b>(
        self,
        reason: Refusal,
        segments: impl Iterator<Item = (&'b DmaBuf, Range<usize>)>,
    ) -> Refusal {
        match reason {
            Refusal::Unaligned => self
                .odd(segments)
                .map_or(reason, |number| Refusal::Segment { number, fault: SegmentFault::Unaligned }),
            _ => reason,
        }
    }

    /// Returns the number of the first of the segments that no form of data pointer describes, after those before it.
    fn odd<'b>(self, segments: impl Iterator<Item = (&'b DmaBuf, Range<usize>)>) -> Option<u32> {
        let mut pages = Pages::new(self.page_shift);
        let (mut by_prps, mut by_sgl) = (None, None);
        // Contiguous pieces are one data block: of this address and length, up to this segment.
        let mut block = (0_u64, 0_u64, 0_u32);
        let is_odd = |(address, len, _): (u64, u64, u32)| (address | len) & self.sgl_mask != 0;
        for (number, (segment, part)) in (0..).zip(segments) {
            let walked = pieces(segment, part, &mut |address, len| {
                if by_prps.is_none() && pages.piece(address, len).is_err() {
                    by_prps = Some(number);
                }
                if block.1 > 0 && block.0.wrapping_add(block.1) == address {
                    (block.1, block.2) = (block.1 + len, number);
                    return Ok(());
                }
                by_sgl = by_sgl.or(is_odd(block).then_some(block.2));
                block = (address, len, number);
                Ok(())
            });
            debug_assert!(walked.is_ok());
        }
        by_sgl = by_sgl.or(is_odd(block).then_some(block.2));
        match self.sgl {
            SglUse::Never => by_prps,
            SglUse::WhereNeeded | SglUse::Beyond(_) => by_prps.and(by_sgl),
            SglUse::Always => by_sgl,
        }
    }
}

/// Calls `piece` for the device address and the length of each contiguous piece of the bytes `part` of a segment.
#[inline(always)]
pub(crate) fn pieces(
    segment: &DmaBuf,
    part: Range<usize>,
    piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    /// No memory has smaller pages.
    const STEP: usize = 4096;
    if segment.is_linear() && part.start < part.end {
        return piece(segment.prepared().iova + part.start as u64, part.len() as u64);
    }
    let mut at = part.start;
    while at < part.end {
        let len = (STEP - (segment.offset_in_region() + at) % STEP).min(part.end - at);
        piece(segment.iova(at), len as u64)?;
        at += len;
    }
    Ok(())
}

/// A source of contiguous pieces of data, in order.
pub(crate) trait Source {
    /// Calls `piece` for the device address and the length (at least 1) of each piece.
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal>;
}

/// The bytes of all segments, in the address space with this id.
pub(super) struct Whole<'b>(pub(super) &'b DmaBuf, pub(super) u64);

impl Source for Whole<'_> {
    #[inline(always)]
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.0.segments().try_for_each(|segment| {
            if segment.prepared().space != self.1 && !segment.is_empty() {
                return Err(Refusal::ForeignBuffer);
            }
            pieces(segment, 0..segment.len(), piece)
        })
    }
}

/// A range of the bytes of all segments.
pub(super) struct Part<'b>(pub(super) &'b DmaBuf, pub(super) Range<usize>);

impl Source for Part<'_> {
    #[inline(always)]
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let (mut first, part) = (0, &self.1);
        for segment in self.0.segments() {
            let (from, to) = (part.start.max(first), part.end.min(first + segment.len()));
            if from < to {
                pieces(segment, from - first..to - first, piece)?;
            }
            first += segment.len();
            if first >= part.end {
                break;
            }
        }
        Ok(())
    }
}

/// So many bytes of a table, from a place in it on.
#[derive(Debug)]
pub(crate) struct TableRange<'s> {
    pub(crate) spans: &'s Spans,
    pub(crate) place: Place,
    pub(crate) len: u64,
}

/// A place in a table: the number of a span, and bytes into it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    span: usize,
    inside: u64,
}

impl Place {
    /// Returns the place `len` bytes further on.
    pub(crate) fn further(mut self, spans: &Spans, len: u64) -> Self {
        self.inside += len;
        while let Some(&whole) = spans.lens().get(self.span).filter(|whole| self.inside >= **whole) {
            self.inside -= whole;
            self.span += 1;
        }
        self
    }
}

impl Source for TableRange<'_> {
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let Place { span, mut inside } = self.place;
        let mut left = self.len;
        let all = self.spans.addresses().iter().zip(self.spans.lens());
        for (address, len) in all.skip(span) {
            let take = (len - inside).min(left);
            if take == 0 {
                break;
            }
            piece(address + inside, take)?;
            (left, inside) = (left - take, 0);
        }
        Ok(())
    }
}

impl Source for Spans {
    #[inline(always)]
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.addresses().iter().zip(self.lens()).try_for_each(|(&address, &len)| piece(address, len))
    }
}
