//! The plan at work.

use super::{Fault, FaultPlan, FaultRule};
use crate::spec::{Command, Status};
use std::{collections::VecDeque, fmt, time::Duration};

/// The most strikes that are kept for [`Lockstep::take_strikes`](crate::emu::Lockstep::take_strikes).
const STRIKES: usize = 64;

/// A fault of a plan that has struck, and the command that it has struck at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Strike {
    /// The fault.
    pub fault: Fault,
    /// The command's submission queue; 0 is the admin queue.
    pub sq: u16,
    /// The command's identifier.
    pub cid: u16,
    /// The command's opcode.
    pub opcode: u8,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, sq, cid, opcode } = self;
        write!(f, "{} strikes at {cid:#x} of sq {sq}, opcode {opcode:#x}", fault.name())
    }
}

/// The effects of all rules on one command: a field for each kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    pub delay: Duration,
    pub drop: bool,
    pub lose: bool,
    pub status: Option<Status>,
    /// The position of the bit to flip, as a random number.
    pub flip: Option<u64>,
    pub duplicate: bool,
    pub id: Option<Id>,
    pub queue: Option<u16>,
    pub head: Option<u16>,
    pub early_phase: Option<Duration>,
    pub half_written: Option<Duration>,
    pub early_completion: Option<Duration>,
    pub silent: bool,
    pub spurious: u32,
}

/// A wrong command id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// An id that no command in flight has; the search starts at this random number.
    Forged(u16),
    /// The id of the queue's previous completion.
    Stale,
}

/// A rule and its past.
#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    seen: u64,
    struck: u64,
}

/// Decides the faults of commands and of the controller.
#[derive(Debug)]
pub struct Injector {
    state: u64,
    rules: Vec<Armed>,
    /// The controller's faults that have struck and are to be carried out, in order, and the namespace that the command named.
    pub due: VecDeque<(Fault, u32)>,
    /// The last strikes.
    pub struck: VecDeque<Strike>,
}

impl Injector {
    pub fn new(plan: &FaultPlan) -> Self {
        let armed = |rule: &FaultRule| Armed { rule: rule.clone(), seen: 0, struck: 0 };
        let rules = plan.rules.iter().map(armed).collect();
        Self { state: plan.seed, rules, due: VecDeque::new(), struck: VecDeque::new() }
    }

    /// Returns `true` if a rule [writes late](Fault::writes_late).
    pub fn writes_late(&self) -> bool {
        self.rules.iter().any(|armed| armed.rule.fault.writes_late())
    }

    /// Returns the next random number of the plan.
    pub fn random(&mut self) -> u64 {
        random(&mut self.state)
    }

    /// Returns the effects on a command that was fetched from the submission queue `sq`.
    pub fn decide(&mut self, sq: u16, command: &Command) -> Effects {
        let mut effects = Effects::default();
        for armed in &mut self.rules {
            if armed.applies(sq, command, &mut self.state) {
                let fault = armed.rule.fault;
                if self.struck.len() == STRIKES {
                    self.struck.pop_front();
                }
                self.struck.push_back(Strike { fault, sq, cid: command.cid, opcode: command.opcode });
                if fault.is_of_the_controller() {
                    self.due.push_back((fault, command.nsid));
                } else {
                    effects.add(fault, || random(&mut self.state));
                }
            }
        }
        effects
    }
}

impl Armed {
    fn applies(&mut self, sq: u16, command: &Command, state: &mut u64) -> bool {
        if !self.rule.watches(sq, command) {
            return false;
        }
        self.seen += 1;
        let strikes = self.seen > self.rule.after
            && self.rule.count.is_none_or(|count| self.struck < count)
            && (self.rule.millionths >= 1_000_000
                || random(state) % 1_000_000 < u64::from(self.rule.millionths));
        self.struck += u64::from(strikes);
        strikes
    }
}

impl Effects {
    /// Adds a fault of a command: delays add up, of other effects the last counts.
    fn add(&mut self, fault: Fault, mut random: impl FnMut() -> u64) {
        match fault {
            Fault::Delay(time) => self.delay += time,
            Fault::Reorder(most) => {
                let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
                self.delay += Duration::from_nanos(random() % (most + 1));
            }
            Fault::Drop => self.drop = true,
            Fault::LoseCompletion => self.lose = true,
            Fault::Status(status) => self.status = Some(status),
            Fault::Corrupt => self.flip = Some(random()),
            Fault::Duplicate => self.duplicate = true,
            Fault::ForgedId => self.id = Some(Id::Forged(random() as u16)),
            Fault::StaleId => self.id = Some(Id::Stale),
            Fault::WrongQueue => self.queue = Some(random() as u16 | 1),
            Fault::BadHead => self.head = Some(random() as u16),
            Fault::EarlyPhase(time) => self.early_phase = Some(time),
            Fault::HalfWritten(time) => self.half_written = Some(time),
            Fault::EarlyCompletion(time) => self.early_completion = Some(time),
            Fault::LostInterrupt => self.silent = true,
            Fault::SpuriousInterrupts(number) => self.spurious += number,
            // The controller's.
            Fault::Fatal
            | Fault::NeverReady
            | Fault::StuckStart
            | Fault::AlwaysReady
            | Fault::AllOnes(_)
            | Fault::ChangingRegisters
            | Fault::PowerCut
            | Fault::Stall(_)
            | Fault::EventStorm(_)
            | Fault::RemoveNamespace(_)
            | Fault::ResizeNamespace { .. }
            | Fault::ReformatNamespace { .. }
            | Fault::ReadOnlyZone { .. }
            | Fault::OfflineZone { .. }
            | Fault::CloseConnection => {}
        }
    }
}

/// Returns the next random number (SplitMix64) of a generator with this state.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
