//! A command that waits for its turn: everything but its buffer.

use super::pair::{Half, split};
use crate::{
    Error,
    engine::{
        Cancel, CopySources, Direction, Dwords, Extent, Io, KeyAction, KeyCommand, Refused, RefusedPair,
        ReservationAction, ReservationCommand, Turn, WithMetadata, Zeroes, ZoneSelect,
    },
    error::Refusal,
    protection::Protect,
    spec::{Status, ZoneAction, ZoneFilter},
};
use upcie_core::dma::DmaBuf;

/// The tag of an asynchronous queue's commands: the index of the command's entry in the queue's table, or a
/// [half](Half::of) of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(pub(super) u32);

/// A command without its buffer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Transfer {
        extent: Extent,
        direction: Direction,
        slba: u64,
        flags: Dwords,
        protect: Option<Protect>,
    },
    Flush {
        extent: Extent,
    },
    Zeroes {
        extent: Extent,
        slba: u64,
        blocks: u32,
        flags: Dwords,
    },
    Deallocate {
        extent: Extent,
        count: usize,
    },
    /// Not plain, unlike zeros whose protection information is zeros, too.
    ProtectedZeroes {
        extent: Extent,
        slba: u64,
        blocks: u32,
        flags: Dwords,
        protect: Protect,
    },
    /// A transfer whose buffer is a chain of data and metadata.
    WithMetadata {
        extent: Extent,
        direction: Direction,
        slba: u64,
        flags: Dwords,
        protect: Option<Protect>,
    },
    Append {
        extent: Extent,
        zone: u64,
    },
    Compare {
        extent: Extent,
        slba: u64,
    },
    Verify {
        extent: Extent,
        slba: u64,
        blocks: u32,
        protect: Option<Protect>,
    },
    WriteUncorrectable {
        extent: Extent,
        slba: u64,
        blocks: u32,
    },
    /// The buffer has the ranges.
    Copy {
        extent: Extent,
        count: usize,
        slba: u64,
        placement: Option<u16>,
    },
    /// The buffer has the ranges, if they could be written to it.
    CopyProtected {
        extent: Extent,
        sources: Result<CopySources, Refusal>,
        slba: u64,
        target: Protect,
    },
    /// The buffer is a chain: as many segments are expected, and those behind them are written.
    CompareAndWrite {
        extent: Extent,
        slba: u64,
        segments: usize,
    },
    Key {
        extent: Extent,
        action: KeyAction,
    },
    ManageZones {
        extent: Extent,
        action: ZoneAction,
        zones: ZoneSelect,
        random_writes: bool,
    },
    ReportZones {
        extent: Extent,
        slba: u64,
        filter: ZoneFilter,
        /// With descriptor extensions.
        is_extended: bool,
    },
    SetZoneExtension {
        extent: Extent,
        zone: u64,
    },
    Reservation {
        extent: Extent,
        action: ReservationAction,
    },
    HandleStatus {
        extent: Extent,
    },
    /// The buffer has the identifiers.
    UpdateHandles {
        extent: Extent,
        count: usize,
    },
    Cancel {
        controller: u64,
        extent: Option<Extent>,
        slot: Option<u32>,
    },
}

/// The part that a turn has taken of a command that is not [plain](Command::is_plain).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    One,
    /// Two commands, each of which has the token of a [half](Half).
    Pair,
}

impl From<Io<'_>> for Command {
    #[inline]
    fn from(Io { extent, direction, slba, flags, protect }: Io<'_>) -> Self {
        Self::Transfer { extent: *extent, direction, slba, flags, protect }
    }
}

impl From<Zeroes<'_>> for Command {
    fn from(Zeroes { extent, slba, blocks, flags, protect }: Zeroes<'_>) -> Self {
        match protect {
            None => Self::Zeroes { extent: *extent, slba, blocks, flags },
            Some(protect) => Self::ProtectedZeroes { extent: *extent, slba, blocks, flags, protect },
        }
    }
}

impl From<KeyCommand<'_>> for Command {
    fn from(KeyCommand { extent, kind: action }: KeyCommand<'_>) -> Self {
        Self::Key { extent: *extent, action }
    }
}

impl From<ReservationCommand<'_>> for Command {
    fn from(ReservationCommand { extent, kind: action }: ReservationCommand<'_>) -> Self {
        Self::Reservation { extent: *extent, action }
    }
}

impl From<Cancel<'_>> for Command {
    fn from(Cancel { controller, extent, slot }: Cancel<'_>) -> Self {
        Self::Cancel { controller, extent: extent.copied(), slot }
    }
}

impl Command {
    /// Makes a transfer whose metadata has a buffer of its own.
    pub(super) fn with_metadata(Io { extent, direction, slba, flags, protect }: Io<'_>) -> Self {
        Self::WithMetadata { extent: *extent, direction, slba, flags, protect }
    }

    /// Returns `true` for a command that [`send`](Self::send) submits: a turn that calls nothing out of line stays in registers.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        matches!(
            self,
            Self::Transfer { .. } | Self::Flush { .. } | Self::Zeroes { .. } | Self::Deallocate { .. }
        )
    }

    /// Returns the segments that a Compare and Write expects.
    #[inline]
    pub(super) fn segments(&self) -> usize {
        if let Self::CompareAndWrite { segments, .. } = self { *segments } else { 0 }
    }

    /// Submits the command with `buffer`, whatever it is; `index` is that of its entry.
    pub(super) fn send_any(
        &self,
        turn: &mut Turn<'_, Token>,
        buffer: DmaBuf,
        index: u32,
    ) -> Result<Sent, Refused<Token>> {
        let token = Token(index);
        match self {
            Self::WithMetadata { extent, direction, slba, flags, protect } => {
                let io = Io { flags: *flags, protect: *protect, ..Io::new(*direction, extent, *slba) };
                turn.submit_with_metadata(io, WithMetadata::from(buffer), token)?;
            }
            Self::Append { extent, zone } => turn.append(extent, *zone, buffer, token)?,
            Self::Compare { extent, slba } => turn.compare(extent, *slba, buffer, token)?,
            Self::Verify { extent, slba, blocks, protect: None } => {
                turn.verify(extent, *slba, *blocks, token)?;
            }
            Self::Verify { extent, slba, blocks, protect: Some(protect) } => {
                turn.verify_protected(extent, *slba, *blocks, *protect, token)?;
            }
            Self::WriteUncorrectable { extent, slba, blocks } => {
                turn.write_uncorrectable(extent, *slba, *blocks, token)?;
            }
            Self::Copy { extent, count, slba, placement: None } => {
                turn.copy(extent, buffer, *count, *slba, token)?;
            }
            Self::Copy { extent, count, slba, placement: Some(placement) } => {
                turn.copy_placed(extent, buffer, *count, *slba, *placement, token)?;
            }
            Self::CopyProtected { extent, sources, slba, target } => {
                turn.copy_sources(extent, *sources, buffer, *slba, *target, token)?;
            }
            Self::ProtectedZeroes { extent, slba, blocks, flags, protect } => {
                let protect = Some(*protect);
                let zeroes = Zeroes { flags: *flags, protect, ..Zeroes::new(extent, *slba, *blocks) };
                turn.write_zeroes(zeroes, token)?;
            }
            Self::Key { extent, action } => {
                turn.submit_key(KeyCommand { extent, kind: *action }, buffer, token)?;
            }
            Self::ManageZones { extent, action, zones, random_writes } => {
                turn.manage_zones(extent, *action, *zones, *random_writes, token)?;
            }
            Self::ReportZones { extent, slba, filter, is_extended: false } => {
                turn.report_zones(extent, *slba, *filter, buffer, token)?;
            }
            Self::ReportZones { extent, slba, filter, is_extended: true } => {
                turn.report_extended(extent, *slba, *filter, buffer, token)?;
            }
            Self::SetZoneExtension { extent, zone } => {
                turn.set_zone_extension(extent, *zone, buffer, token)?;
            }
            Self::Reservation { extent, action } => {
                turn.submit_reservation(ReservationCommand { extent, kind: *action }, buffer, token)?;
            }
            Self::HandleStatus { extent } => turn.handle_status(extent, buffer, token)?,
            Self::UpdateHandles { extent, count } => turn.update_handles(extent, buffer, *count, token)?,
            // Slots are this queue's own: the program has no number of one.
            Self::Cancel { slot: Some(_), .. } => {
                return Err(Refused { reason: Refusal::NotInFlight, buffer, tag: token });
            }
            Self::Cancel { controller, extent, slot: None } => {
                let cancel = Cancel { controller: *controller, extent: extent.as_ref(), slot: None };
                turn.cancel(cancel, token)?;
            }
            Self::CompareAndWrite { extent, slba, segments } => {
                let [expected, new] = split(buffer, *segments);
                let tokens = [Half::Compare, Half::Write].map(|half| Token(half.of(index)));
                let sent = turn.compare_and_write(extent, *slba, expected, new, tokens);
                return match sent {
                    Ok(()) => Ok(Sent::Pair),
                    Err(RefusedPair { reason, expected: mut buffer, new, .. }) => {
                        buffer.chain(new);
                        Err(Refused { reason, buffer, tag: token })
                    }
                };
            }
            plain => plain.send(turn, buffer, token)?,
        }
        Ok(Sent::One)
    }

    /// Submits a plain command with `buffer`.
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
            // `send_any` submits the others.
            _ => Err(Refused { reason: Refusal::NoCommand, buffer, tag: token }),
        }
    }
}

/// The end of a command. One that was completed has dwords 0 and 1 of its completion.
#[derive(Debug)]
pub(super) enum Ended {
    Completed(Result<u64, Status>),
    Refused(Refusal),
    Failed(Error),
}

impl Ended {
    /// Makes the result of a command of `device`; `buffer` is the command's.
    #[inline]
    pub(super) fn into_result(self, device: &str, command: &Command, buffer: &DmaBuf) -> Result<u64, Error> {
        match self {
            Self::Completed(Ok(value)) => Ok(value),
            Self::Completed(Err(status)) => Err(Error::of_status(device, command.describe(buffer), status)),
            Self::Refused(reason) => Err(Error::refused(device, command.describe(buffer), reason)),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Makes the end of a command of the ends of its halves, with both buffers in one chain.
pub(super) fn join(
    half: Half,
    last: (Ended, DmaBuf),
    (first, buffer): (Option<Ended>, DmaBuf),
) -> (Ended, DmaBuf) {
    let first = (first.unwrap_or(Ended::Completed(Ok(0))), buffer);
    let ((compare, mut expected), (write, new)) = match half {
        Half::Compare => (last, first),
        Half::Write => (first, last),
    };
    expected.chain(new);
    let is_cause = match (&compare, &write) {
        (Ended::Completed(Ok(_)), _) => false,
        // The Write is why the Compare was aborted.
        (Ended::Completed(Err(status)), Ended::Completed(Err(_))) => *status != Status::ABORTED_FAILED_FUSED,
        _ => true,
    };
    (if is_cause { compare } else { write }, expected)
}

/// Makes the error of a command that was not sent, because its queue was closed.
#[cold]
pub(super) fn closed_before(device: &str, command: &Command, buffer: &DmaBuf) -> Error {
    let what = command.describe(buffer);
    Error::argument(device, format!("{what} was not sent: the asynchronous queue is closed; create another"))
}
