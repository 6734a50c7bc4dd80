//! Completion queue entries: Base, "Completion Queue Entry".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::macros::assert_size;
use super::status::Status;

/// A completion queue entry: 16 bytes. The controller wrote them, so none is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CompletionEntry {
    /// Command-specific result.
    pub dw0: u32,
    /// Command-specific result, or reserved.
    pub dw1: u32,
    /// Submission queue head: the controller has fetched all entries before it.
    pub sqhd: u16,
    /// The submission queue of the command.
    pub sqid: u16,
    /// The identifier of the command.
    pub cid: u16,
    /// Bit 0 the phase tag, bits 15:1 the status.
    pub status_phase: u16,
}
assert_size!(CompletionEntry, 16);

impl CompletionEntry {
    /// Returns the status, without the phase tag.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_bits(self.status_phase >> 1)
    }

    /// Returns the phase tag: an entry is new when its tag differs from that of the round before.
    #[inline]
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.status_phase & 1 != 0
    }

    /// Returns `true` if the command succeeded: one compare.
    #[inline]
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status_phase & 0x0ffe == 0
    }

    /// Returns dword 0, or the status as an error.
    ///
    /// # Errors
    ///
    /// The status, if it isn't success.
    #[inline]
    pub const fn result(&self) -> Result<u32, Status> {
        if self.is_success() { Ok(self.dw0) } else { Err(self.status()) }
    }
}
