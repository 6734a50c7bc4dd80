//! Scatter gather lists: the location of a command's data, in pieces of any length.
//!
//! Base, "Scatter Gather List (SGL)". The descriptors are not trusted: each is read once and checked, and a list has at
//! most [`MOST`], so that one that leads to itself ends.

use super::HostMemory;
use crate::spec::{SglDescriptor, Status};
use zerocopy::{FromZeros, IntoBytes};

/// Descriptors of a segment to read at a time.
const CHUNK: usize = 64;
/// The most descriptors of a command, in all segments.
const MOST: u64 = 1 << 16;
/// The bytes of a descriptor.
const SIZE: u32 = size_of::<SglDescriptor>() as u32;

const TYPE: Status = Status::SGL_TYPE_INVALID.with_do_not_retry();
const LENGTH: Status = Status::DATA_SGL_LENGTH_INVALID.with_do_not_retry();
const SEGMENT: Status = Status::INVALID_SGL_SEGMENT.with_do_not_retry();
const COUNT: Status = Status::INVALID_SGL_COUNT.with_do_not_retry();
const GRANULARITY: Status = Status::SGL_GRANULARITY_INVALID.with_do_not_retry();

/// The rules for a command's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The bytes of the command's data.
    pub len: u64,
    /// The data goes to the host, so bit buckets take some of it.
    pub reads: bool,
    /// Data blocks have whole dwords (SGLS 10b).
    pub dwords: bool,
}

/// Calls `piece` for each piece of a command's data, in order, with its address and length; without an address for data
/// to discard. `first` is the command's data pointer.
///
/// # Errors
/// The status of the specification for each wrong list, Data Transfer Error for one that can't be read, or the error of
/// `piece`. It has been called for the pieces before the error.
#[cold]
pub(super) fn walk<H: HostMemory>(
    host: &mut H,
    first: SglDescriptor,
    rules: Rules,
    piece: impl FnMut(&mut H, Option<u64>, usize) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut walk = Walk { rules, left: rules.len, seen: 1, piece };
    match first.kind() {
        SglDescriptor::SEGMENT | SglDescriptor::LAST_SEGMENT => {
            let mut next = Some(Segment::of(first)?);
            while let Some(segment) = next {
                next = walk.segment(host, segment)?;
            }
        }
        _ => walk.data(host, first)?,
    }
    if walk.left == 0 { Ok(()) } else { Err(LENGTH) }
}

/// Checks as much of a data pointer as needs no read of the host's memory.
pub(super) fn check(first: SglDescriptor, rules: Rules) -> Result<(), Status> {
    match first.kind() {
        SglDescriptor::SEGMENT | SglDescriptor::LAST_SEGMENT => Segment::of(first).map(|_| ()),
        _ => {
            let mut walk = Walk { rules, left: rules.len, seen: 1, piece: |_: &mut (), _, _| Ok(()) };
            walk.data(&mut (), first)?;
            if walk.left == 0 { Ok(()) } else { Err(LENGTH) }
        }
    }
}

/// A segment of a list.
#[derive(Debug, Clone, Copy)]
struct Segment {
    address: u64,
    count: u64,
    last: bool,
}

impl Segment {
    /// Returns the segment that a descriptor of one leads to.
    fn of(descriptor: SglDescriptor) -> Result<Self, Status> {
        let SglDescriptor { address, length, .. } = descriptor;
        if descriptor.subtype() != 0 {
            return Err(TYPE);
        }
        if length == 0 || length % SIZE != 0 || address % 8 != 0 {
            return Err(SEGMENT);
        }
        let last = descriptor.kind() == SglDescriptor::LAST_SEGMENT;
        Ok(Self { address, count: u64::from(length / SIZE), last })
    }
}

/// A walk over a list.
struct Walk<F> {
    rules: Rules,
    /// Bytes of data that no descriptor has named yet.
    left: u64,
    /// Descriptors so far.
    seen: u64,
    piece: F,
}

impl<F> Walk<F> {
    /// Walks a segment; returns the one that its last descriptor leads to.
    fn segment<H: HostMemory>(&mut self, host: &mut H, segment: Segment) -> Result<Option<Segment>, Status>
    where
        F: FnMut(&mut H, Option<u64>, usize) -> Result<(), Status>,
    {
        self.seen += segment.count;
        if self.seen > MOST {
            return Err(COUNT);
        }
        let mut descriptors = [SglDescriptor::new_zeroed(); CHUNK];
        let mut at = 0;
        while at < segment.count {
            let chunk = &mut descriptors[..(segment.count - at).min(CHUNK as u64) as usize];
            let address = segment.address.checked_add(at * u64::from(SIZE));
            let address = address.ok_or(Status::DATA_TRANSFER_ERROR)?;
            host.read(address, chunk.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            for descriptor in &*chunk {
                at += 1;
                if matches!(descriptor.kind(), SglDescriptor::SEGMENT | SglDescriptor::LAST_SEGMENT) {
                    return match (at == segment.count, segment.last) {
                        (false, _) => Err(COUNT),
                        (true, true) => Err(SEGMENT),
                        (true, false) => Segment::of(*descriptor).map(Some),
                    };
                }
                self.data(host, *descriptor)?;
            }
        }
        // A segment that is not the last ends with a descriptor of the next one.
        if segment.last { Ok(None) } else { Err(SEGMENT) }
    }

    /// Walks a descriptor of data.
    fn data<H>(&mut self, host: &mut H, descriptor: SglDescriptor) -> Result<(), Status>
    where
        F: FnMut(&mut H, Option<u64>, usize) -> Result<(), Status>,
    {
        let SglDescriptor { address, length, .. } = descriptor;
        let address = match (descriptor.kind(), descriptor.subtype()) {
            (SglDescriptor::DATA_BLOCK, 0) => Some(address),
            (SglDescriptor::BIT_BUCKET, 0) if !self.rules.reads => return Ok(()),
            (SglDescriptor::BIT_BUCKET, 0) => None,
            _ => return Err(TYPE),
        };
        if self.rules.dwords && (address.unwrap_or(0) | u64::from(length)) % 4 != 0 {
            return Err(GRANULARITY);
        }
        let len = u64::from(length);
        self.left = self.left.checked_sub(len).ok_or(LENGTH)?;
        if len == 0 {
            return Ok(());
        }
        if address.is_some_and(|address| address.checked_add(len).is_none()) {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        (self.piece)(host, address, length as usize)
    }
}
