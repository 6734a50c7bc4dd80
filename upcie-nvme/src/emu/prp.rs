//! Physical region pages: the location of a command's data in the client's memory.
//!
//! Base, "Physical Region Page Entry and List". The entries are not trusted: each is read once and checked.

use super::HostMemory;
use crate::spec::Status;
use zerocopy::IntoBytes;

/// Entries of a list to read at a time.
const CHUNK: usize = 64;

const OFFSET: Status = Status::PRP_OFFSET_INVALID.with_do_not_retry();

/// Calls `segment` for each piece of `len` bytes of data, in order, with its address and length. Adjacent
/// pages are one piece. `page` is CC.MPS in bytes.
///
/// # Errors
/// PRP Offset Invalid, Data Transfer Error for a list that can't be read, or the error of `segment`. It has
/// been called for the pieces before the error.
#[inline]
pub(super) fn walk<H: HostMemory>(
    host: &mut H,
    page: u64,
    (prp1, prp2): (u64, u64),
    len: u64,
    mut segment: impl FnMut(&mut H, u64, usize) -> Result<(), Status>,
) -> Result<(), Status> {
    let rest = check(page, (prp1, prp2), len)?;
    if rest == 0 {
        return segment(host, prp1, len as usize);
    }
    let mut pieces = Pieces { start: prp1, len: len - rest, segment };
    if rest <= page {
        pieces.add(host, prp2, rest)?;
    } else {
        walk_list(host, page, prp2, rest, &mut pieces, |_, _| true)?;
    }
    pieces.finish(host)
}

/// The position in a command's data at which a walk goes on: its beginning, or a page that an entry of a list names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    /// Bytes of data before it.
    pub at: u64,
    /// The address of the entry; unused at the beginning.
    entry: u64,
}

/// Calls `segment` like [`walk`], for the data from a position on. From the beginning it walks over all of the data, so
/// that the whole list is checked once; from any other position to the byte `end` at least. Returns the last position
/// up to `end`: walks of one piece after the other read the list twice in all. From a list, the first call may have no
/// bytes.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn walk_from<H: HostMemory>(
    host: &mut H,
    page: u64,
    (prp1, prp2): (u64, u64),
    len: u64,
    (from, end): (Position, u64),
    segment: impl FnMut(&mut H, u64, usize) -> Result<(), Status>,
) -> Result<Position, Status> {
    let rest = check(page, (prp1, prp2), len)?;
    if rest <= page {
        walk(host, page, (prp1, prp2), len, segment)?;
        return Ok(Position::default());
    }
    let is_first = from.at == 0;
    let (list, rest, start) = match is_first {
        true => (prp2, rest, (prp1, len - rest)),
        false => (from.entry, len - from.at, (0, 0)),
    };
    let (mut reached, mut pieces) = (from, Pieces { start: start.0, len: start.1, segment });
    walk_list(host, page, list, rest, &mut pieces, |rest, entry| {
        let at = len - rest;
        if at <= end {
            reached = Position { at, entry };
        }
        is_first || at < end
    })?;
    pieces.finish(host)?;
    Ok(reached)
}

/// Checks everything that needs no read of the client's memory; returns the number of bytes beyond the first
/// page.
#[inline(always)]
pub(super) fn check(page: u64, (prp1, prp2): (u64, u64), len: u64) -> Result<u64, Status> {
    let rest = len.saturating_sub(page - (prp1 & (page - 1)));
    let second_is_wrong = match rest {
        0 => false,
        _ if rest <= page => prp2 & (page - 1) != 0,
        _ => prp2 & 7 != 0,
    };
    if prp1 & 3 != 0 || second_is_wrong { Err(OFFSET) } else { Ok(rest) }
}

/// Merges adjacent pages.
struct Pieces<F> {
    start: u64,
    len: u64,
    segment: F,
}

impl<F> Pieces<F> {
    fn add<H: HostMemory>(&mut self, host: &mut H, iova: u64, len: u64) -> Result<(), Status>
    where
        F: FnMut(&mut H, u64, usize) -> Result<(), Status>,
    {
        if self.start.checked_add(self.len) == Some(iova) {
            self.len += len;
            return Ok(());
        }
        (self.segment)(host, self.start, self.len as usize)?;
        (self.start, self.len) = (iova, len);
        Ok(())
    }

    fn finish<H: HostMemory>(mut self, host: &mut H) -> Result<(), Status>
    where
        F: FnMut(&mut H, u64, usize) -> Result<(), Status>,
    {
        (self.segment)(host, self.start, self.len as usize)
    }
}

/// Walks over a list of `rest` bytes of data. Calls `goes_on` before each page, with the bytes from it on and the
/// address of its entry, and ends if it returns `false`.
fn walk_list<H: HostMemory, F: FnMut(&mut H, u64, usize) -> Result<(), Status>>(
    host: &mut H,
    page: u64,
    mut list: u64,
    mut rest: u64,
    pieces: &mut Pieces<F>,
    mut goes_on: impl FnMut(u64, u64) -> bool,
) -> Result<(), Status> {
    let mut entries = [0_u64; CHUNK];
    while rest > 0 {
        let in_page = (page - (list & (page - 1))) / 8;
        let count = in_page.min(rest.div_ceil(page)).min(CHUNK as u64);
        let chunk = &mut entries[..count as usize];
        host.read(list, chunk.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        let first = list;
        list = list.wrapping_add(count * 8);
        for (index, &entry) in (1..).zip(&*chunk) {
            if entry & (page - 1) != 0 {
                return Err(OFFSET);
            }
            if index == in_page && rest > page {
                // The last entry of a list page, with more than a page to go: the next list page. It starts with its
                // page, so each one but the first brings the walk on.
                list = entry;
                break;
            }
            if !goes_on(rest, first.wrapping_add((index - 1) * 8)) {
                return Ok(());
            }
            let len = rest.min(page);
            pieces.add(host, entry, len)?;
            rest -= len;
        }
    }
    Ok(())
}
