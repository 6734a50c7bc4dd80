//! Base 2.1, "Track Send command" and "Track Receive command": what a controller changes while it is migrated.

use std::borrow::Cow;

use zerocopy::FromBytes;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::{bits, structure};
use super::super::opcode::AdminOpcode;
use super::request::AdminCommand;

/// Bits of the tracking attributes (TRATTR): changes of host memory, and of user data.
const MEMORY: u8 = 1 << 0;
const USER_DATA: u8 = 1 << 1;

fn lacking(attribute: u8, what: &str, controller: &IdentifyController) -> Option<String> {
    let bit = attribute.trailing_zeros();
    let lacks = controller.trattr & attribute == 0;
    lacks.then(|| format!("the controller tracks no changes of {what} (TRATTR bit {bit} is 0)"))
}

/// Returns the reason why a controller does not track user data.
pub(super) fn lacks_user_data(controller: &IdentifyController) -> Option<String> {
    lacking(USER_DATA, "user data", controller)
}

/// Track Send: starts or stops the log of user data that a controller changes, in a user data migration queue. The driver does
/// not send it in safe code, since the queue is memory that the controller writes to: pass [`command`](AdminCommand::command)
/// to [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogUserDataChanges {
    /// The queue (CDQID): that of [`CreateDataQueue`](super::CreateDataQueue).
    pub queue: u16,
    /// Starts the log; stops it otherwise (LACT).
    pub start: bool,
}

impl AdminCommand for LogUserDataChanges {
    const OPCODE: AdminOpcode = AdminOpcode::TRACK_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        let cdw10 = u32::from(self.start) << 16;
        Command { cdw10, cdw11: self.queue.into(), ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        lacks_user_data(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

/// A range of host memory, in units of the granularity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackedRange {
    /// The address, as the tracked controller's commands name it: a multiple of the granularity (SADDR).
    pub address: u64,
    /// Units of the range (LEN).
    pub units: u32,
}

/// Track Send: starts to track the changes that another controller makes to host memory, or stops. The driver does not send
/// it in safe code, with the other Track Send: pass [`command`](AdminCommand::command) to
/// [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackMemoryChanges {
    /// The controller whose changes are tracked (CNTLID), another one than that of the command.
    pub controller: u16,
    /// A unit has 2 ^ granularity times 4 KiB (RMRTG): MINMRTG to MAXMRTG.
    pub granularity: u8,
    /// The ranges to track; none to stop.
    pub ranges: Vec<TrackedRange>,
}

impl AdminCommand for TrackMemoryChanges {
    const OPCODE: AdminOpcode = AdminOpcode::TRACK_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        let cdw10 = 1 | u32::from(!self.ranges.is_empty()) << 16;
        Command { cdw10, cdw11: self.controller.into(), ..Command::admin(Self::OPCODE, 0) }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if self.ranges.is_empty() {
            return Cow::Borrowed(&[]);
        }
        // Version 0.
        let mut data = vec![0, 0, 0, self.granularity];
        data.extend((self.ranges.len() as u32).to_le_bytes());
        for range in &self.ranges {
            data.extend(range.address.to_le_bytes());
            data.extend(range.units.to_le_bytes());
        }
        Cow::Owned(data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        let units = controller.minmrtg..=controller.maxmrtg;
        let most = usize::from(controller.cmmrtd);
        lacking(MEMORY, "host memory", controller).or_else(|| {
            if self.ranges.is_empty() {
                return None;
            }
            if !units.contains(&self.granularity) {
                let (least, largest) = (units.start(), units.end());
                return Some(format!("the granularity is {least} to {largest} here (MINMRTG, MAXMRTG)"));
            }
            let beyond = self.ranges.len() > most;
            beyond.then(|| format!("the controller tracks {most} ranges at most (CMMRTD)"))
        })
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

/// Track Receive: returns the changes of host memory since the last Track Receive, which the controller forgets then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetMemoryChanges {
    /// The controller whose changes are tracked (CNTLID).
    pub controller: u16,
    /// The most changes to return.
    pub changes: u32,
}

bits! {
    /// Attributes of tracked changes.
    MemoryChangesAttributes(u8), "Attributes" {
        /// There are more changes to be read (MTR).
        more: bool[1] => flag;
        /// The controller was suspended meanwhile (SUSP).
        suspended: bool[1] => flag;
        __: u8[6];
    }
}

structure! {
    /// The beginning of tracked changes; the changes follow it.
    MemoryChangesHeader[16], "Tracked Memory Change" {
        /// Version of the structure: 0 (VER).
        0 version: u8 => number;
        /// Attributes (ATTRB).
        1 attributes: MemoryChangesAttributes => fields;
        /// The controller that made the changes (CNTLID).
        2 controller_id: u16 => number;
        /// Changes (NTMCD).
        4 count: u32 => number;
        /// A unit has 2 ^ granularity times 4 KiB (RPMPG).
        8 granularity: u16 => number;
        10 reserved10: [u8; 6];
    }
}

structure! {
    /// A range of host memory that was written to, 16 bytes.
    MemoryChange[16], "Tracked Memory Changed Descriptor" {
        /// The address (SADDR).
        0 address: u64 => hex;
        /// Units of the range (LEN).
        8 units: u32 => number;
        12 reserved12: [u8; 4];
    }
}

/// The answer to [`GetMemoryChanges`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryChanges {
    /// The granularity, and whether there are more changes.
    pub header: MemoryChangesHeader,
    /// The changes.
    pub changes: Vec<MemoryChange>,
}

impl MemoryChanges {
    /// Returns the bytes of a unit; `None` above 64 bits.
    #[must_use]
    pub fn unit(&self) -> Option<u64> {
        1_u64.checked_shl(self.header.granularity.into())?.checked_mul(4096)
    }
}

impl AdminCommand for GetMemoryChanges {
    const OPCODE: AdminOpcode = AdminOpcode::TRACK_RECEIVE;
    type Answer = MemoryChanges;

    fn command(&self) -> Command {
        Command {
            cdw11: self.controller.into(),
            cdw12: (self.returns() / 4 - 1) as u32,
            ..Command::admin(Self::OPCODE, 0)
        }
    }

    fn returns(&self) -> usize {
        size_of::<MemoryChangesHeader>() + self.changes as usize * size_of::<MemoryChange>()
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        lacking(MEMORY, "host memory", controller)
    }

    fn answer(&self, _: u32, data: Vec<u8>) -> Option<MemoryChanges> {
        let (header, rest) = MemoryChangesHeader::read_from_prefix(&data).ok()?;
        let chunks = rest.chunks_exact(size_of::<MemoryChange>()).take(header.count as usize);
        let changes = chunks.map(MemoryChange::read_from_bytes).collect::<Result<_, _>>().ok()?;
        Some(MemoryChanges { header, changes })
    }
}
