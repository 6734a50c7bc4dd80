//! A command that is served in stages.

use super::{faults::Effects, formats::Layout, prp::Position, rest::Rest};
use crate::spec::{Command, Status};
use std::time::Duration;

/// A completion before it is posted: dword 0, command and status.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub dw0: u32,
    pub cid: u16,
    pub status: Status,
}

/// A command between its fetch and its last stage.
#[derive(Debug)]
pub(super) struct Flight {
    pub command: Command,
    /// Index of the command's entry in the submission queue.
    pub entry: u32,
    /// The earliest time of its next stage.
    pub due: Duration,
    pub stage: Stage,
    pub done: Done,
    /// Dword 1 of its completion.
    pub dw1: u32,
    pub effects: Effects,
    /// The rest of a command that was carried out in part, and is no read or write.
    pub rest: Option<Box<Rest>>,
    /// The generation of its namespace, and the layout of the blocks, when a read or write began.
    pub format: Option<(u32, Layout)>,
    /// The position of the next piece in the data of a read or write.
    pub position: Position,
}

/// The next stage of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Carry it out; so many bytes of its data were moved.
    Data(u64),
    /// Post its completion.
    Post,
    /// Write the rest of its completion: the entry, its lower and upper half.
    Rest(u32, u64, u64),
    /// Move the data of a read that was completed before.
    LateData,
    /// None: the command hangs.
    Hung,
}

impl Flight {
    /// Makes the flight of a command that was fetched at `now`.
    pub fn new(command: Command, effects: Effects, now: Duration) -> Self {
        let cid = command.cid;
        let mut flight = Self {
            command,
            entry: 0,
            due: now.saturating_add(effects.delay),
            stage: Stage::Data(0),
            done: Done { dw0: 0, cid, status: Status::SUCCESS },
            dw1: 0,
            effects,
            rest: None,
            format: None,
            position: Position::default(),
        };
        flight.stage = match effects {
            Effects { drop: true, .. } => Stage::Hung,
            Effects { status: Some(status), .. } => {
                flight.done.status = status;
                Stage::Post
            }
            Effects { early_completion: Some(_), .. } => Stage::Post,
            _ => Stage::Data(0),
        };
        flight
    }

    /// Makes the flight of an admin command that was carried out at its fetch.
    pub fn carried_out(command: Command, effects: Effects, done: Done, now: Duration) -> Self {
        let mut flight = Self::new(command, effects, now);
        if flight.stage != Stage::Hung {
            flight.done = done;
            flight.stage = if effects.lose { Stage::Hung } else { Stage::Post };
        }
        flight
    }

    /// Returns `true` if an Abort finds it: it hangs, or is not begun.
    pub fn can_be_aborted(&self) -> bool {
        matches!(self.stage, Stage::Hung | Stage::Data(0)) && !self.effects.lose
    }
}

/// Returns the lower and the upper half of a result.
#[inline(always)]
pub(super) fn halves(result: u64) -> (u32, u32) {
    (result as u32, (result >> 32) as u32)
}
