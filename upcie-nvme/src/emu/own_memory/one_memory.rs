//! The rule that a queue is in one memory, and the data of a command, too: the host's, or one of the controller's own.

use super::super::HostMemory;
use crate::spec::Status;
use std::ops::Range;

const INVALID: Status = Status::INVALID_USE_OF_CMB.with_do_not_retry();

/// The memory that the pieces of a queue, or of a command's data, are in.
#[derive(Debug)]
pub struct OneMemory {
    /// The addresses of the controller's own memories; the second only beside the first.
    own: [Option<Range<u64>>; 2],
    /// The memory of the pieces so far: the index of one of the controller's own, `None` for the host's.
    of_pieces: Option<Option<usize>>,
}

impl OneMemory {
    /// Makes the state before the first piece.
    #[inline]
    pub fn of(host: &impl HostMemory) -> Self {
        Self { own: [host.own_memory(0), host.own_memory(1)], of_pieces: None }
    }

    /// Checks the next piece.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer: it is not in the memory of the pieces before it, or in both.
    #[inline(always)]
    pub fn check(&mut self, iova: u64, len: usize) -> Result<(), Status> {
        if self.own[0].is_none() { Ok(()) } else { self.check_piece(iova, len as u64) }
    }

    #[cold]
    fn check_piece(&mut self, iova: u64, len: u64) -> Result<(), Status> {
        let Some(more) = len.checked_sub(1) else { return Ok(()) };
        let last = iova.saturating_add(more);
        let own = || self.own.iter().flatten();
        let found = own().position(|own| own.contains(&iova));
        let is_whole = own().enumerate().all(|(index, own)| match found == Some(index) {
            true => own.contains(&last),
            false => last < own.start || iova >= own.end,
        });
        if is_whole && *self.of_pieces.get_or_insert(found) == found { Ok(()) } else { Err(INVALID) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Range<u64> = 0x1_0000..0x2_0000;
    const OTHER: Range<u64> = 0x2_0000..0x2_1000;

    fn check(pieces: &[(u64, usize)]) -> Result<(), Status> {
        let mut memory = OneMemory { own: [Some(OWN), Some(OTHER)], of_pieces: None };
        pieces.iter().try_for_each(|&(iova, len)| memory.check(iova, len))
    }

    #[test]
    fn all_pieces_are_in_the_memory_of_the_first() {
        let (own, other, host) = ((OWN.start, 0x1_0000), (OTHER.start, 4096), (OTHER.end, 4096));
        let before = (OWN.start - 4096, 4096);
        for good in [
            &[own, (OWN.end - 1, 1), own][..],
            &[host, before, (0, 1), (u64::MAX, 1)],
            &[other, (0, 0), other],
        ] {
            assert_eq!(check(good), Ok(()), "{good:x?}");
        }
        for wrong in [
            &[own, host][..],
            &[host, own],
            &[before, own],
            &[own, other],
            &[other, own],
            &[host, other],
            // Across a border, or around all of it.
            &[(OWN.start - 1, 2)],
            &[(OWN.end - 1, 2)],
            &[(OTHER.end - 1, 2)],
            &[(0, 0x3_0000)],
            &[(OWN.start, usize::MAX)],
        ] {
            assert_eq!(check(wrong), Err(INVALID), "{wrong:x?}");
            assert!(check(wrong).is_err_and(Status::do_not_retry), "{wrong:x?}");
        }
    }

    #[test]
    fn a_controller_without_own_memory_has_no_rule() {
        let mut memory = OneMemory { own: [None, None], of_pieces: None };
        assert_eq!(memory.check(u64::MAX, usize::MAX), Ok(()));
    }
}
