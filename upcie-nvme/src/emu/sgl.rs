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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io, ptr::NonNull};
    use upcie_core::testing::{Random, fuzz};
    use zerocopy::FromBytes;

    /// Memory from this address on.
    const BASE: u64 = 0x1_0000;

    /// A host whose memory is a few bytes.
    struct Flat(Vec<u8>);

    // SAFETY: no memory is translated.
    unsafe impl HostMemory for Flat {
        fn translate(&mut self, _: u64, _: usize) -> Option<NonNull<u8>> {
            None
        }

        fn generation(&self) -> u64 {
            0
        }

        fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
            let start = iova.checked_sub(BASE).and_then(|start| usize::try_from(start).ok());
            let found = start.and_then(|start| self.0.get(start..start.checked_add(data.len())?));
            data.copy_from_slice(found.ok_or(io::ErrorKind::InvalidInput)?);
            Ok(())
        }

        fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Pieces of data: their addresses, none for data to discard, and lengths.
    type Pieces = Vec<(Option<u64>, usize)>;

    fn pieces(memory: Vec<u8>, first: SglDescriptor, rules: Rules) -> (Result<(), Status>, Pieces) {
        let mut all = Vec::new();
        let end = walk(&mut Flat(memory), first, rules, |_, address, len| {
            all.push((address, len));
            Ok(())
        });
        (end, all)
    }

    /// Segments of random descriptors, with the pieces that they name.
    fn list(random: &mut Random, reads: bool) -> (Vec<u8>, SglDescriptor, Pieces) {
        let segments = 1 + random.below(4);
        let mut counts: Vec<usize> = (0..segments).map(|_| 1 + random.below(80)).collect();
        counts[..segments - 1].iter_mut().for_each(|count| *count += 1);
        let starts: Vec<usize> =
            counts.iter().scan(0, |sum, count| Some(std::mem::replace(sum, *sum + count))).collect();
        let lead = |to: usize| {
            let kind = if to + 1 == segments { SglDescriptor::LAST_SEGMENT } else { SglDescriptor::SEGMENT };
            SglDescriptor::new(kind, BASE + (starts[to] * 16) as u64, (counts[to] * 16) as u32)
        };
        let (mut memory, mut wanted) = (Vec::new(), Vec::new());
        for (segment, &count) in counts.iter().enumerate() {
            for at in 0..count {
                let len = [0, 1, 512, 4096, random.below(5000)][random.below(5)];
                // The rule for dwords holds for empty blocks, too, which are no pieces.
                let address = if len == 0 { 0 } else { random.next() >> 8 };
                let descriptor = if segment + 1 < segments && at + 1 == count {
                    lead(segment + 1)
                } else if random.one_in(5) {
                    wanted.extend((reads && len > 0).then_some((None, len)));
                    SglDescriptor::new(SglDescriptor::BIT_BUCKET, 0, len as u32)
                } else {
                    wanted.extend((len > 0).then_some((Some(address), len)));
                    SglDescriptor::new(SglDescriptor::DATA_BLOCK, address, len as u32)
                };
                memory.extend(descriptor.as_bytes());
            }
        }
        (memory, lead(0), wanted)
    }

    #[test]
    fn lists_name_their_pieces_in_order() {
        let mut random = Random(3);
        for _ in 0..2_000 {
            let reads = random.one_in(2);
            let (memory, first, wanted) = list(&mut random, reads);
            let len = wanted.iter().map(|piece| piece.1 as u64).sum();
            let rules = Rules { len, reads, dwords: false };
            assert_eq!(pieces(memory.clone(), first, rules), (Ok(()), wanted.clone()));
            for wrong in [len.wrapping_sub(1), len + 1].into_iter().filter(|&wrong| wrong < u64::MAX) {
                let (end, _) = pieces(memory.clone(), first, Rules { len: wrong, ..rules });
                assert_eq!(end, Err(LENGTH));
            }
            let odd = wanted.iter().any(|(address, len)| (address.unwrap_or(0) | *len as u64) % 4 != 0);
            let (end, _) = pieces(memory, first, Rules { dwords: true, ..rules });
            // A bit bucket of a write has no effect.
            assert_eq!(end.is_err(), odd);
        }
    }

    #[test]
    fn fuzz_any_list_ends_with_a_status() {
        let mut random = Random(4);
        let seeds: Vec<Vec<u8>> = (0..40)
            .map(|_| {
                let (memory, first, wanted) = list(&mut random, true);
                let len: usize = wanted.iter().map(|piece| piece.1).sum();
                [first.as_bytes(), &(len as u32).to_le_bytes(), &memory].concat()
            })
            .collect();
        fuzz("sgl", 20_000, &seeds, |input| {
            let Some((head, memory)) = input.split_at_checked(20) else { return };
            let first = SglDescriptor::read_from_bytes(&head[..16]).expect("16 bytes");
            let len = u64::from(u32::from_le_bytes(head[16..].try_into().expect("4 bytes")));
            let rules = Rules { len, reads: true, dwords: head[16] & 3 == 3 };
            let (end, found) = pieces(memory.to_vec(), first, rules);
            let sum: u64 = found.iter().map(|piece| piece.1 as u64).sum();
            assert!(sum <= len && (end.is_err() || sum == len));
            assert!(
                found
                    .iter()
                    .all(|(address, len)| address.is_none_or(|at| at.checked_add(*len as u64).is_some()))
            );
        });
    }

    #[test]
    fn a_list_that_leads_to_itself_ends() {
        // Four thousand empty blocks, and the way back to the first.
        let count = 4096;
        let mut memory = vec![0; count * 16];
        let way = SglDescriptor::new(SglDescriptor::SEGMENT, BASE, (count * 16) as u32);
        memory[(count - 1) * 16..].copy_from_slice(way.as_bytes());
        let rules = Rules { len: 512, reads: true, dwords: false };
        assert_eq!(pieces(memory, way, rules).0, Err(COUNT));
        let vast = SglDescriptor::new(SglDescriptor::LAST_SEGMENT, BASE, u32::MAX - 15);
        assert_eq!(pieces(Vec::new(), vast, rules).0, Err(COUNT));
    }
}
