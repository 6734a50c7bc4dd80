//! The outcomes of commands: what their futures resolve to.

use super::{pair::split, remote::Answer};
use crate::{
    Result,
    engine::WithMetadata,
    spec::{CancelResult, Status},
};
use upcie_core::dma::DmaBuf;

/// The outcome of a command: its result, and its buffers.
pub trait Outcome: Sized {
    /// Makes the outcome of a command whose buffer begins with `segments` segments of its own.
    fn of(answer: Answer, segments: usize) -> Self;
}

impl Outcome for (Result<()>, DmaBuf) {
    #[inline(always)]
    fn of((result, buffer): Answer, _: usize) -> Self {
        (result.map(drop), buffer)
    }
}

/// The first block of a Zone Append.
impl Outcome for (Result<u64>, DmaBuf) {
    fn of(answer: Answer, _: usize) -> Self {
        answer
    }
}

/// The length of a value in bytes.
impl Outcome for (Result<usize>, DmaBuf) {
    fn of((result, buffer): Answer, _: usize) -> Self {
        (result.map(|value| value as u32 as usize), buffer)
    }
}

/// The commands that a Cancel has ended.
impl Outcome for (Result<CancelResult>, DmaBuf) {
    fn of((result, buffer): Answer, _: usize) -> Self {
        (result.map(|value| CancelResult::from_bits(value as u32)), buffer)
    }
}

impl Outcome for (Result<()>, WithMetadata) {
    fn of((result, buffer): Answer, _: usize) -> Self {
        (result.map(drop), buffer.into())
    }
}

/// The outcome of a comparison.
impl Outcome for (Result<bool>, DmaBuf) {
    fn of((result, buffer): Answer, _: usize) -> Self {
        (is_same(result), buffer)
    }
}

/// The outcome of a comparison, and of what was written after it.
impl Outcome for (Result<bool>, [DmaBuf; 2]) {
    fn of((result, buffer): Answer, segments: usize) -> Self {
        (is_same(result), split(buffer, segments))
    }
}

fn is_same(result: Result<u64>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Some(Status::COMPARE_FAILURE) => Ok(false),
        Err(error) => Err(error),
    }
}
