//! A command that waits for its turn: everything but its buffer.

use crate::{
    Error,
    engine::{Direction, Dwords, Extent, Io, Refused, Turn, Zeroes},
    error::Refusal,
    protection::Protect,
    spec::{NvmOpcode, Status},
};
use upcie_core::dma::DmaBuf;

/// The tag of an asynchronous queue's commands: the index of the command's entry in the queue's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(pub(super) u32);

/// A command without its buffer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Transfer { extent: Extent, direction: Direction, slba: u64, flags: Dwords, protect: Option<Protect> },
    Flush { extent: Extent },
    Zeroes { extent: Extent, slba: u64, blocks: u32, flags: Dwords },
    Deallocate { extent: Extent, count: usize },
}

impl From<Io<'_>> for Command {
    #[inline]
    fn from(Io { extent, direction, slba, flags, protect }: Io<'_>) -> Self {
        Self::Transfer { extent: *extent, direction, slba, flags, protect }
    }
}

impl From<Zeroes<'_>> for Command {
    fn from(Zeroes { extent, slba, blocks, flags, .. }: Zeroes<'_>) -> Self {
        Self::Zeroes { extent: *extent, slba, blocks, flags }
    }
}

impl Command {
    /// Submits the command with `buffer`.
    #[inline(always)]
    pub(super) fn send(
        &self,
        turn: &mut Turn<'_, Token>,
        buffer: DmaBuf,
        token: Token,
    ) -> Result<(), Refused<Token>> {
        match self {
            Self::Transfer { extent, direction, slba, flags, protect } => {
                let io = Io { flags: *flags, protect: *protect, ..Io::new(*direction, extent, *slba) };
                turn.submit(io, buffer, token)
            }
            Self::Flush { extent } => turn.flush(extent, token),
            Self::Zeroes { extent, slba, blocks, flags } => {
                turn.write_zeroes(Zeroes { flags: *flags, ..Zeroes::new(extent, *slba, *blocks) }, token)
            }
            Self::Deallocate { extent, count } => turn.deallocate(extent, buffer, *count, token),
        }
    }

    /// Names the command for messages.
    #[cold]
    pub(super) fn describe(&self, buffer: &DmaBuf) -> String {
        match self {
            Self::Transfer { extent, direction, slba, .. } => format!(
                "{} of {} bytes at block {slba} of namespace {}",
                direction.opcode(),
                buffer.total_len(),
                extent.nsid()
            ),
            Self::Flush { extent } => format!("{} of namespace {}", NvmOpcode::FLUSH, extent.nsid()),
            Self::Zeroes { extent, slba, blocks, .. } => format!(
                "{} to {blocks} blocks from block {slba} on of namespace {}",
                NvmOpcode::WRITE_ZEROES,
                extent.nsid()
            ),
            Self::Deallocate { extent, count } => {
                format!("{} of {count} ranges of namespace {}", NvmOpcode::DATASET_MANAGEMENT, extent.nsid())
            }
        }
    }
}

/// The end of a command.
#[derive(Debug)]
pub(super) enum Ended {
    Completed(Result<(), Status>),
    Refused(Refusal),
    Failed(Error),
}

impl Ended {
    /// Makes the result of a command of `device`; `buffer` is the command's.
    #[inline]
    pub(super) fn into_result(self, device: &str, command: &Command, buffer: &DmaBuf) -> Result<(), Error> {
        match self {
            Self::Completed(Ok(())) => Ok(()),
            Self::Completed(Err(status)) => Err(Error::of_status(device, command.describe(buffer), status)),
            Self::Refused(reason) => Err(Error::refused(device, command.describe(buffer), reason)),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Makes the error of a command that was not sent, because its queue was closed.
#[cold]
pub(super) fn closed_before(device: &str, command: &Command, buffer: &DmaBuf) -> Error {
    let what = command.describe(buffer);
    Error::argument(device, format!("{what} was not sent: the asynchronous queue is closed; create another"))
}
