//! The rule that a queue is in one memory, and the data of a command, too: the host's, or the controller's own.

use super::HostMemory;
use crate::spec::Status;
use std::ops::Range;

const INVALID: Status = Status::INVALID_USE_OF_CMB.with_do_not_retry();

/// The memory that the pieces of a queue, or of a command's data, are in.
#[derive(Debug)]
pub(super) struct OneMemory {
    /// The addresses of the controller's own memory, while it has some.
    own: Option<Range<u64>>,
    /// The pieces so far are in the controller's own memory.
    is_own: Option<bool>,
}

impl OneMemory {
    /// Makes the state before the first piece.
    #[inline]
    pub fn of(host: &impl HostMemory) -> Self {
        Self { own: host.own_memory(), is_own: None }
    }

    /// Checks the next piece.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer: it is not in the memory of the pieces before it, or in both.
    #[inline(always)]
    pub fn check(&mut self, iova: u64, len: usize) -> Result<(), Status> {
        if self.own.is_none() { Ok(()) } else { self.check_piece(iova, len as u64) }
    }

    #[cold]
    fn check_piece(&mut self, iova: u64, len: u64) -> Result<(), Status> {
        let (Some(own), Some(more)) = (&self.own, len.checked_sub(1)) else { return Ok(()) };
        let last = iova.saturating_add(more);
        let is_own = own.contains(&iova);
        let is_apart = last < own.start || iova >= own.end;
        let is_whole = if is_own { own.contains(&last) } else { is_apart };
        if is_whole && *self.is_own.get_or_insert(is_own) == is_own { Ok(()) } else { Err(INVALID) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Range<u64> = 0x1_0000..0x2_0000;

    fn check(pieces: &[(u64, usize)]) -> Result<(), Status> {
        let mut memory = OneMemory { own: Some(OWN), is_own: None };
        pieces.iter().try_for_each(|&(iova, len)| memory.check(iova, len))
    }

    #[test]
    fn all_pieces_are_in_the_memory_of_the_first() {
        let (own, host) = ((OWN.start, 0x1_0000), (OWN.end, 4096));
        let before = (OWN.start - 4096, 4096);
        for good in
            [&[own, (OWN.end - 1, 1), own][..], &[host, before, (0, 1), (u64::MAX, 1)], &[own, (0, 0)]]
        {
            assert_eq!(check(good), Ok(()), "{good:x?}");
        }
        for wrong in [
            &[own, host][..],
            &[host, own],
            &[before, own],
            // Across a border, or around all of it.
            &[(OWN.start - 1, 2)],
            &[(OWN.end - 1, 2)],
            &[(0, 0x3_0000)],
            &[(OWN.start, usize::MAX)],
        ] {
            assert_eq!(check(wrong), Err(INVALID), "{wrong:x?}");
            assert!(check(wrong).is_err_and(Status::do_not_retry), "{wrong:x?}");
        }
    }

    #[test]
    fn a_controller_without_own_memory_has_no_rule() {
        let mut memory = OneMemory { own: None, is_own: None };
        assert_eq!(memory.check(u64::MAX, usize::MAX), Ok(()));
    }
}
