//! A Compare and Write: one entry of the table, two commands of the queue pair.

use std::mem;
use upcie_core::dma::DmaBuf;

/// One of both commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Compare,
    Write,
}

const HALF: u32 = 1 << 31;
const WRITE: u32 = 1 << 30;

impl Half {
    /// The last index that leaves room for the bits of a half.
    pub(super) const MOST: u32 = WRITE - 1;

    /// Makes the token of a half of an entry. No entry has it for an index.
    pub(super) fn of(self, index: u32) -> u32 {
        match self {
            Self::Compare => index | HALF,
            Self::Write => index | HALF | WRITE,
        }
    }

    /// Takes a token apart: the index of the entry, and the half; `None` for the token of a whole command.
    pub(super) fn from(token: u32) -> (u32, Option<Self>) {
        let half = match (token & HALF, token & WRITE) {
            (0, _) => return (token, None),
            (_, 0) => Self::Compare,
            _ => Self::Write,
        };
        (token & Self::MOST, Some(half))
    }
}

/// Takes a chain apart: the first `segments` segments, and the others.
pub(super) fn split(buffer: DmaBuf, segments: usize) -> [DmaBuf; 2] {
    let (mut first, mut rest) = (DmaBuf::empty(), buffer);
    for _ in 0..segments {
        if rest.is_empty() {
            break;
        }
        let next = rest.unchain();
        first.chain(mem::replace(&mut rest, next.unwrap_or_default()));
    }
    [first, rest]
}
