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
        walk_list(host, page, prp2, rest, &mut pieces)?;
    }
    pieces.finish(host)
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

fn walk_list<H: HostMemory, F: FnMut(&mut H, u64, usize) -> Result<(), Status>>(
    host: &mut H,
    page: u64,
    mut list: u64,
    mut rest: u64,
    pieces: &mut Pieces<F>,
) -> Result<(), Status> {
    let mut entries = [0_u64; CHUNK];
    while rest > 0 {
        let in_page = (page - (list & (page - 1))) / 8;
        let count = in_page.min(rest.div_ceil(page)).min(CHUNK as u64);
        let chunk = &mut entries[..count as usize];
        host.read(list, chunk.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
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
            let len = rest.min(page);
            pieces.add(host, entry, len)?;
            rest -= len;
        }
    }
    Ok(())
}
