//! Data pointers: from pieces of memory to two PRP entries, or an entry and a list (Base, "Physical Region Page Entry
//! and List").

use crate::{
    abi::IoVec,
    errors::{Failure, Result},
    lists::Place,
    translation::Translation,
};

/// A command's data pointer in the making.
pub(crate) struct Pages {
    mask: u64,
    place: Place,
    first: u64,
    second: u64,
    /// Entries so far.
    count: usize,
    /// Entries of the list so far, with its pointers.
    at: usize,
    /// The device address behind the last piece.
    end: u64,
}

#[cold]
fn unaligned() -> Failure {
    Failure::argument(
        "the data can't be named by PRPs: it must begin at a multiple of 4, and where two pieces are not adjacent for the \
         controller, the first must end and the second begin at a page's boundary",
    )
}

#[cold]
pub(crate) fn too_long() -> Failure {
    Failure::new(libc::EMSGSIZE, "the data is longer than the queue's commands may be (max_transfer)")
}

#[cold]
pub(crate) fn foreign(at: usize, len: usize) -> Failure {
    Failure::new(
        libc::EFAULT,
        format!("the {len} bytes at {at:#x} are not all memory of the controller's heap"),
    )
}

impl Pages {
    pub(crate) fn new(mask: u64, place: Place) -> Self {
        Self { mask, place, first: 0, second: 0, count: 0, at: 0, end: 0 }
    }

    /// Adds memory by its address in this process; returns the bytes.
    pub(crate) fn add(&mut self, translation: &Translation, at: usize, len: usize) -> Result<()> {
        let mut done = 0;
        while done < len {
            let here = at.checked_add(done).and_then(|here| translation.find(here));
            let run = here.ok_or_else(|| foreign(at, len))?;
            let bytes = run.len.min(len - done);
            self.piece(run.iova, bytes as u64)?;
            done += bytes;
        }
        Ok(())
    }

    /// Adds `len` bytes (at least one) that are contiguous for the controller.
    fn piece(&mut self, iova: u64, len: u64) -> Result<()> {
        let (inside, touches) = (iova & self.mask, self.count > 0 && self.end == iova);
        if self.count == 0 {
            if iova % 4 != 0 {
                return Err(unaligned());
            }
        } else if !(touches && inside != 0) && (inside != 0 || self.end & self.mask != 0) {
            return Err(unaligned());
        }
        self.end = iova + len;
        if !(touches && inside != 0) {
            self.entry(iova)?;
        }
        let mut page = (iova | self.mask) + 1;
        while page < self.end {
            self.entry(page)?;
            page += self.mask + 1;
        }
        Ok(())
    }

    fn entry(&mut self, page: u64) -> Result<()> {
        match self.count {
            0 => self.first = page,
            1 => self.second = page,
            2 => {
                self.store(self.second)?;
                self.store(page)?;
            }
            _ => self.store(page)?,
        }
        self.count += 1;
        Ok(())
    }

    /// Adds an entry to the list. The last entry of a full page of it moves on, and a pointer replaces it.
    fn store(&mut self, page: u64) -> Result<()> {
        let per_page = (self.mask as usize + 1) / 8;
        let is_start = self.at > 0 && self.at % per_page == 0;
        if self.at + usize::from(is_start) >= self.place.room {
            return Err(too_long());
        }
        let entry = |index: usize| self.place.entries.wrapping_add(index);
        if is_start {
            // SAFETY: an entry of the list that was written before.
            let last = unsafe { entry(self.at - 1).read() };
            // SAFETY: within the list's room, which is checked.
            unsafe { entry(self.at).write(last) };
            let next = self.place.iova + self.at as u64 * 8;
            // SAFETY: an entry of the list that was written before.
            unsafe { entry(self.at - 1).write(next.to_le()) };
            self.at += 1;
        }
        // SAFETY: within the list's room, which is checked; the slot is free, so that no controller reads the list.
        unsafe { entry(self.at).write(page.to_le()) };
        self.at += 1;
        Ok(())
    }

    /// Returns both entries of the data pointer.
    pub(crate) fn finish(self) -> (u64, u64) {
        (self.first, if self.count > 2 { self.place.iova } else { self.second })
    }
}

/// Returns the bytes of all pieces.
pub(crate) fn total(pieces: &[IoVec]) -> Result<usize> {
    let sum = pieces.iter().try_fold(0_usize, |sum, piece| sum.checked_add(piece.len));
    sum.ok_or_else(|| Failure::argument("the lengths of the pieces overflow"))
}

/// Returns the device address of memory that must be contiguous: metadata, or what a program asks for.
pub(crate) fn contiguous(translation: &Translation, at: usize, len: usize) -> Result<u64> {
    let first = translation.find(at).ok_or_else(|| foreign(at, len))?;
    let mut known = first.len;
    while known < len {
        let here = at.checked_add(known).and_then(|here| translation.find(here));
        let run = here.ok_or_else(|| foreign(at, len))?;
        if run.iova != first.iova + known as u64 {
            return Err(Failure::new(
                libc::ERANGE,
                format!("the {len} bytes at {at:#x} are not contiguous for the controller"),
            ));
        }
        known += run.len;
    }
    Ok(first.iova)
}

/// Refuses memory that is not all the heap's.
pub(crate) fn covered(translation: &Translation, at: usize, len: usize) -> Result<()> {
    let mut known = 0;
    while known < len {
        let here = at.checked_add(known).and_then(|here| translation.find(here));
        known += here.ok_or_else(|| foreign(at, len))?.len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the data pointer of pieces, and lists all pages as a controller would find them.
    fn walk(pieces: &[(u64, u64)], room: usize) -> Result<Vec<u64>> {
        let mut list = vec![0_u64; room];
        let place = Place { entries: list.as_mut_ptr(), iova: 0x100_0000, room };
        let mut pages = Pages::new(4095, place);
        for &(iova, len) in pieces {
            pages.piece(iova, len)?;
        }
        let count = pages.count;
        let (first, second) = pages.finish();
        let mut all = vec![first];
        let mut at = match count {
            0 | 1 => return Ok(all),
            2 => {
                all.push(second);
                return Ok(all);
            }
            _ => second,
        };
        while all.len() < count {
            let index = (at - 0x100_0000) as usize / 8;
            if index % 512 == 511 && count - all.len() > 1 {
                at = list[index];
                continue;
            }
            all.push(list[index]);
            at += 8;
        }
        Ok(all)
    }

    #[test]
    fn pages_are_named_in_order_and_lists_are_chained() {
        assert_eq!(walk(&[(0x1004, 100)], 0).unwrap(), [0x1004]);
        assert_eq!(walk(&[(0x1ffc, 8)], 0).unwrap(), [0x1ffc, 0x2000]);
        assert_eq!(walk(&[(0x1200, 8192)], 2).unwrap(), [0x1200, 0x2000, 0x3000]);
        // Pieces side by side in one page, and across a boundary.
        assert_eq!(
            walk(&[(0x1000, 512), (0x1200, 512), (0x1400, 0xc00), (0x9000, 4096)], 0).unwrap(),
            [0x1000, 0x9000]
        );
        let long = 1300 * 4096;
        let all = walk(&[(0x20_0000, long)], 1400).unwrap();
        assert_eq!(all, (0..1300).map(|page| 0x20_0000 + page * 4096).collect::<Vec<_>>());
        assert_eq!(walk(&[(0x20_0000, long)], 512).unwrap_err().errno, libc::EMSGSIZE);
    }

    #[test]
    fn pieces_that_prps_cannot_join_are_refused() {
        for pieces in [&[(0x1002, 4)][..], &[(0x1000, 512), (0x5000, 512)], &[(0x1000, 4096), (0x5200, 512)]]
        {
            assert_eq!(walk(pieces, 8).unwrap_err().errno, libc::EINVAL, "{pieces:x?}");
        }
        let overflow = [IoVec { base: std::ptr::null_mut(), len: usize::MAX }; 2];
        assert_eq!(total(&overflow).unwrap_err().errno, libc::EINVAL);
    }
}
