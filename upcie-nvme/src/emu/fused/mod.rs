//! Fused operations: a Compare and a Write that are carried out as one. (Base, "Fused Operations")
//!
//! The Compare finds the Write behind it in the ring, and carries out both; the Write, when it is fetched, has only its
//! status to report. So no other command comes between them, in whatever round the Write is fetched.

mod pairs;

pub(super) use pairs::{end, end_staged};

/// The bits of a command's flags that make it part of a fused operation: 1 the first, 2 the second command.
pub(super) const FUSE: u8 = 0x03;

/// Marks the number of bytes that a command moved: it is half of a fused operation, and [`end`] has to carry it out.
pub(super) const IS_FUSED: u64 = 1 << 62;
