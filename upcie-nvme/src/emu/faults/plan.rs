//! The plan as data.

use crate::spec::{ALL_NAMESPACES, Command, NvmOpcode, Status};
use std::{ops::RangeInclusive, time::Duration};

/// The faults of a controller: a seed and rules. The same plan, commands and times have the same faults.
///
/// Each [`FaultRule`] names the commands that it watches, how often it strikes, and the [`Fault`]. With the feature
/// `fault-files` a plan can be parsed from TOML, and an address can name its file (`emu:faults=plan.toml`).
///
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{emu::{Fault, FaultPlan, FaultRule}, spec::NvmOpcode};
///
/// let slow = FaultRule::new(Fault::Delay(Duration::from_millis(20))).opcode(NvmOpcode::WRITE.0).probability(0.01);
/// let plan = FaultPlan::new(7).rule(slow).rule(FaultRule::new(Fault::Drop).queue(1).after(100).count(1));
/// assert_eq!(plan.rules.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultPlan {
    /// Start of the random numbers, which decide probabilities, ids, bits and times.
    pub seed: u64,
    /// Bytes of a volatile write cache in front of the medium; `None`: no cache.
    pub cache: Option<u64>,
    /// The rules. All that match a command strike.
    pub rules: Vec<FaultRule>,
}

impl FaultPlan {
    /// Makes a plan without rules.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Puts a volatile write cache of `bytes` in front of the medium.
    #[must_use]
    pub fn cache(self, bytes: u64) -> Self {
        Self { cache: Some(bytes), ..self }
    }
}

/// One fault, the commands that it watches, and how often it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultRule {
    /// The fault.
    pub fault: Fault,
    /// The submission queues whose commands count.
    pub queue: Watched,
    /// Only commands with this opcode count.
    pub opcode: Option<u8>,
    /// Only commands to this namespace count.
    pub namespace: Option<u32>,
    /// Only reads, writes and Write Zeroes that touch one of these blocks count.
    pub lba: Option<RangeInclusive<u64>>,
    /// Commands that count before the fault can strike.
    pub after: u64,
    /// The most strikes; `None`: no limit.
    pub count: Option<u64>,
    /// The probability of each strike, in millionths.
    pub millionths: u32,
}

/// The submission queues that a rule watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// All I/O submission queues.
    Io,
    /// The queue with this identifier; 0 is the admin queue.
    One(u16),
}

impl FaultRule {
    /// Makes a rule that strikes each command of all I/O queues; a fault of the controller strikes once.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        let count = fault.is_of_the_controller().then_some(1);
        let (queue, millionths) = (Watched::Io, 1_000_000);
        Self { fault, queue, opcode: None, namespace: None, lba: None, after: 0, count, millionths }
    }

    /// Watches the submission queue `qid` only; 0 is the admin queue.
    #[must_use]
    pub fn queue(self, qid: u16) -> Self {
        Self { queue: Watched::One(qid), ..self }
    }

    /// Watches commands with this opcode only.
    #[must_use]
    pub fn opcode(self, opcode: u8) -> Self {
        Self { opcode: Some(opcode), ..self }
    }

    /// Watches commands to this namespace only.
    #[must_use]
    pub fn namespace(self, nsid: u32) -> Self {
        Self { namespace: Some(nsid), ..self }
    }

    /// Watches reads, writes and Write Zeroes that touch a block of `lba` only.
    #[must_use]
    pub fn lba(self, lba: RangeInclusive<u64>) -> Self {
        Self { lba: Some(lba), ..self }
    }

    /// Lets the first `commands` that it watches pass.
    #[must_use]
    pub fn after(self, commands: u64) -> Self {
        Self { after: commands, ..self }
    }

    /// Strikes at most `count` times.
    #[must_use]
    pub fn count(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }

    /// Strikes with a probability from 0 to 1, in steps of a millionth.
    #[must_use]
    pub fn probability(self, probability: f64) -> Self {
        Self { millionths: (probability.clamp(0.0, 1.0) * 1e6).round() as u32, ..self }
    }

    /// Returns `true` if the rule watches `command` of the submission queue `sq`.
    pub(super) fn watches(&self, sq: u16, command: &Command) -> bool {
        let queue = match self.queue {
            Watched::Io => sq != 0,
            Watched::One(qid) => sq == qid,
        };
        let can_have_it = match self.fault {
            Fault::Corrupt => {
                sq != 0 && matches!(NvmOpcode(command.opcode), NvmOpcode::READ | NvmOpcode::WRITE)
            }
            Fault::EarlyCompletion(_) => sq != 0 && NvmOpcode(command.opcode) == NvmOpcode::READ,
            // The command must name a namespace.
            fault if fault.target() == Some(None) => !matches!(command.nsid, 0 | ALL_NAMESPACES),
            _ => true,
        };
        queue
            && can_have_it
            && self.opcode.is_none_or(|opcode| opcode == command.opcode)
            && self.namespace.is_none_or(|nsid| nsid == command.nsid)
            && self.lba.as_ref().is_none_or(|lba| sq != 0 && touches(command, lba))
    }
}

/// Returns `true` if a command names a block of `lba`.
fn touches(command: &Command, lba: &RangeInclusive<u64>) -> bool {
    let has_blocks =
        matches!(NvmOpcode(command.opcode), NvmOpcode::READ | NvmOpcode::WRITE | NvmOpcode::WRITE_ZEROES);
    let last = command.slba().saturating_add(u64::from(command.block_count()).saturating_sub(1));
    has_blocks && command.slba() <= *lba.end() && last >= *lba.start()
}

/// One kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Carries out and completes the command this much later.
    Delay(Duration),
    /// Delays the command by a random time up to this.
    Reorder(Duration),
    /// Neither carries out nor completes the command. An Abort finds it.
    Drop,
    /// Carries out the command, and never completes it.
    LoseCompletion,
    /// Completes the command with this status, and does not carry it out.
    Status(Status),
    /// Flips one bit of the data that a read or write moves.
    Corrupt,
    /// Posts the completion twice.
    Duplicate,
    /// Posts the completion with an id that no command of the queue has.
    ForgedId,
    /// Posts the completion with the id of the queue's completion before.
    StaleId,
    /// Posts the completion with the identifier of another submission queue.
    WrongQueue,
    /// Posts the completion with a random submission queue head.
    BadHead,
    /// Flips the phase tag of the completion's entry first, and writes the rest after this time.
    EarlyPhase(Duration),
    /// Writes the upper half of the completion first, with its phase tag, and the lower after this time.
    HalfWritten(Duration),
    /// Completes a read first, and writes its data after this time.
    EarlyCompletion(Duration),
    /// Sends no message for the completion.
    LostInterrupt,
    /// Raises so many further interrupts of the completion queue's vector.
    SpuriousInterrupts(u32),
    /// Sets CSTS.CFS and stops the queues.
    Fatal,
    /// Leaves CSTS.RDY at 0 from the next enabling on.
    NeverReady,
    /// Leaves CSTS.RDY at 0 from the next enabling on, until the function or the subsystem is reset.
    StuckStart,
    /// Leaves CSTS.RDY at 1 from the next disabling on.
    AlwaysReady,
    /// Reads as all ones, and serves nothing: for this time, or for good.
    AllOnes(Option<Duration>),
    /// Gives other bits at each read of CAP and VS.
    ChangingRegisters,
    /// Loses the cache, and returns to the state after power-on.
    PowerCut,
    /// The server's thread sleeps for this time.
    Stall(Duration),
    /// Removes a namespace; `None`: the one that the command names.
    RemoveNamespace(Option<u32>),
    /// Reports so many asynchronous events of several types, as fast as requests for them come.
    EventStorm(u32),
    /// Gives a namespace another number of blocks, at most those of its part of the medium.
    ResizeNamespace {
        /// The namespace; `None`: the one that the command names.
        target: Option<u32>,
        /// The new number of blocks.
        blocks: u64,
    },
    /// Gives a namespace another block size: its data is lost, and it is being formatted until a host reads its Identify data.
    ReformatNamespace {
        /// The namespace; `None`: the one that the command names.
        target: Option<u32>,
        /// The new block size in bytes: 512 or 4096.
        block_size: u32,
    },
    /// Makes a zone of a zoned namespace read-only: it keeps its data, and takes no writes any more.
    ReadOnlyZone {
        /// The namespace; `None`: the one that the command names.
        target: Option<u32>,
        /// The zone, counted from 0.
        zone: u32,
    },
    /// Takes a zone of a zoned namespace offline: its data is lost.
    OfflineZone {
        /// The namespace; `None`: the one that the command names.
        target: Option<u32>,
        /// The zone, counted from 0.
        zone: u32,
    },
    /// The server closes the client's connection, and serves the next one. A device in the driver's process is gone.
    CloseConnection,
}

impl Fault {
    /// Returns `true` for a fault of the controller as a whole, not of one command.
    pub fn is_of_the_controller(self) -> bool {
        matches!(
            self,
            Self::Fatal
                | Self::NeverReady
                | Self::StuckStart
                | Self::AlwaysReady
                | Self::AllOnes(_)
                | Self::ChangingRegisters
                | Self::PowerCut
                | Self::Stall(_)
                | Self::EventStorm(_)
                | Self::RemoveNamespace(_)
                | Self::ResizeNamespace { .. }
                | Self::ReformatNamespace { .. }
                | Self::ReadOnlyZone { .. }
                | Self::OfflineZone { .. }
                | Self::CloseConnection
        )
    }

    /// Returns `true` if a command's data may be written after a completion that names it, when the program has its buffer back. The
    /// forged id, or the old one in an entry whose phase tag comes early, may be that of a command that was not fetched yet.
    pub fn writes_late(self) -> bool {
        matches!(self, Self::EarlyCompletion(_) | Self::ForgedId | Self::EarlyPhase(_))
    }

    /// Returns the namespace that a fault of a namespace changes; of the command's if it is `Some(None)`.
    pub(super) fn target(self) -> Option<Option<u32>> {
        match self {
            Self::RemoveNamespace(target)
            | Self::ResizeNamespace { target, .. }
            | Self::ReformatNamespace { target, .. }
            | Self::ReadOnlyZone { target, .. }
            | Self::OfflineZone { target, .. } => Some(target),
            _ => None,
        }
    }

    /// Returns the name of the kind in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay(_) => "delay",
            Self::Reorder(_) => "reorder",
            Self::Drop => "drop",
            Self::LoseCompletion => "lose-completion",
            Self::Status(_) => "status",
            Self::Corrupt => "corrupt",
            Self::Duplicate => "duplicate",
            Self::ForgedId => "forged-id",
            Self::StaleId => "stale-id",
            Self::WrongQueue => "wrong-queue",
            Self::BadHead => "bad-head",
            Self::EarlyPhase(_) => "early-phase",
            Self::HalfWritten(_) => "half-written",
            Self::EarlyCompletion(_) => "early-completion",
            Self::LostInterrupt => "lost-interrupt",
            Self::SpuriousInterrupts(_) => "spurious-interrupts",
            Self::Fatal => "fatal",
            Self::NeverReady => "never-ready",
            Self::StuckStart => "stuck-start",
            Self::AlwaysReady => "always-ready",
            Self::AllOnes(_) => "all-ones",
            Self::ChangingRegisters => "changing-registers",
            Self::PowerCut => "power-cut",
            Self::Stall(_) => "stall",
            Self::EventStorm(_) => "event-storm",
            Self::RemoveNamespace(_) => "remove-namespace",
            Self::ResizeNamespace { .. } => "resize-namespace",
            Self::ReformatNamespace { .. } => "reformat-namespace",
            Self::ReadOnlyZone { .. } => "read-only-zone",
            Self::OfflineZone { .. } => "offline-zone",
            Self::CloseConnection => "close-connection",
        }
    }
}
