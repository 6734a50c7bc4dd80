//! Cases: generated from a seed.

use std::{fmt, time::Duration};
use upcie_core::testing::Random;
use upcie_nvme::{
    ResetKind,
    emu::{Fault, FaultPlan, FaultRule},
    queue::OnTimeout,
    spec::{NvmOpcode, Status},
};

/// The version of the generator: a seed means the same case only within one version.
pub const GENERATOR: u32 = 4;

/// Blocks of the namespace: few, so that commands meet.
pub const BLOCKS: u64 = 64;
/// Places for queue pairs.
pub const QUEUES: usize = 3;

/// Everything that decides a run.
#[derive(Debug, Clone)]
pub struct Case {
    /// The number that the case was made from.
    pub seed: u64,
    /// The kind of its faults.
    pub class: Class,
    /// The controller's options.
    pub options: String,
    /// The faults.
    pub plan: FaultPlan,
    /// The driver's part.
    pub ops: Vec<Op>,
    /// One sleep of the driver of so many lets the controller act.
    pub laziness: usize,
    /// Repetitions of a command of a blocking call.
    pub retries: u32,
    /// The driver asks for asynchronous events.
    pub events: bool,
}

/// The time that the commands of a queue pair may take, and the reaction to a command that takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The time.
    pub time: Duration,
    /// The reaction.
    pub policy: OnTimeout,
}

/// The kind of faults of a case, which decides the properties that can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// None but order and time.
    Healthy,
    /// Errors, delays, lost and spurious interrupts.
    Failing,
    /// Commands that complete late, or never.
    Hanging,
    /// Power cuts with a volatile cache.
    Power,
    /// Completions that break the protocol.
    Lying,
    /// The controller dies.
    Dying,
    /// Admin commands fail, are late or are never completed, and some of the others too.
    Admin,
}

/// A step of the driver's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates a queue pair of this depth at a free place.
    Create {
        /// Place.
        queue: usize,
        /// Entries.
        depth: u32,
        /// With an interrupt.
        interrupt: bool,
        /// The deadline of its commands.
        limit: Option<Limit>,
    },
    /// Closes a queue pair, with commands in flight or not.
    Close {
        /// Place.
        queue: usize,
    },
    /// Opens a turn: reaps, then submits.
    Turn {
        /// Place.
        queue: usize,
        /// The commands to submit, as far as there is room.
        commands: Vec<Io>,
        /// Resets the controller before the turn ends.
        reset: bool,
    },
    /// Waits for a completion.
    Wait {
        /// Place.
        queue: usize,
        /// The longest time.
        timeout: Duration,
    },
    /// Opens turns for a time, which find nothing to do.
    Spin {
        /// Place.
        queue: usize,
        /// The time.
        time: Duration,
    },
    /// Keeps a queue with deadlines busy by turns, without waits, for some thousand commands.
    Busy {
        /// Place.
        queue: usize,
    },
    /// Makes a blocking call.
    Blocking(Io),
    /// Resets the controller.
    Reset {
        /// The means.
        kind: ResetKind,
    },
    /// Makes the controller raise an asynchronous event.
    Event {
        /// A notice that a namespace has changed; otherwise a vendor's event.
        notice: bool,
        /// Waits for the event.
        take: bool,
    },
    /// Makes all namespace handles stale, and tries an old one.
    Stale {
        /// Place of the queue that is to refuse it, beside a blocking call.
        queue: usize,
    },
    /// Lets the controller take some actions.
    Idle {
        /// The most actions.
        actions: usize,
    },
    /// Cuts the power, drops everything and opens the controller anew.
    PowerCut,
}

/// An I/O command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Opcode of the command.
    pub opcode: NvmOpcode,
    /// The first block.
    pub lba: u64,
    /// The number of blocks.
    pub blocks: u32,
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opcode, lba, blocks } = self;
        let name = opcode.name().unwrap_or("?").to_lowercase();
        match *opcode {
            NvmOpcode::FLUSH => f.write_str(&name),
            _ => write!(f, "{name} {lba}+{blocks}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { queue, depth, interrupt, limit } => {
                let interrupt = if *interrupt { ", interrupt" } else { "" };
                write!(f, "queue {queue}: create, depth {depth}{interrupt}")?;
                limit.map_or(Ok(()), |Limit { time, policy }| write!(f, ", {policy:?} after {time:?}"))
            }
            Self::Close { queue } => write!(f, "queue {queue}: close"),
            Self::Turn { queue, commands, reset } => {
                write!(f, "queue {queue}: turn")?;
                commands.iter().try_for_each(|io| write!(f, ", {io}"))?;
                f.write_str(if *reset { ", reset in the turn" } else { "" })
            }
            Self::Spin { queue, time } => write!(f, "queue {queue}: empty turns for {time:?}"),
            Self::Busy { queue } => write!(f, "queue {queue}: busy turns"),
            Self::Reset { kind } => write!(f, "reset by {kind:?}"),
            Self::Event { notice, take } => {
                let (kind, then) =
                    (if *notice { "notice" } else { "vendor event" }, if *take { ", wait" } else { "" });
                write!(f, "{kind}{then}")
            }
            Self::Wait { queue, timeout } => write!(f, "queue {queue}: wait {timeout:?}"),
            Self::Stale { queue } => write!(f, "queue {queue}: stale handle"),
            Self::Blocking(io) => write!(f, "blocking {io}"),
            Self::Idle { actions } => write!(f, "idle for {actions} actions"),
            Self::PowerCut => f.write_str("power cut"),
        }
    }
}

impl Case {
    /// Returns `true` if a command that comes back was carried out, so that its data must be right. A driver can't tell an entry
    /// with an early phase tag, or with the id of a command that was not fetched yet, from an honest one.
    pub fn is_honest(&self) -> bool {
        let lies = |rule: &FaultRule| rule.fault.writes_late();
        // A queue that the controller did not delete goes on.
        !matches!(self.class, Class::Dying | Class::Admin) && !self.plan.rules.iter().any(lies)
    }

    /// Returns `true` if the faults explain any error.
    pub fn may_fail_anywhere(&self) -> bool {
        matches!(self.class, Class::Lying | Class::Dying | Class::Admin)
    }

    /// Returns `true` if the driver waits for the controller several times in one step.
    pub fn is_slow(&self) -> bool {
        self.class == Class::Admin || self.has(|fault| fault == Fault::AlwaysReady)
    }

    /// Returns `true` if a rule has such a fault.
    pub fn has(&self, wanted: impl Fn(Fault) -> bool) -> bool {
        self.plan.rules.iter().any(|rule| wanted(rule.fault))
    }

    /// Returns `true` if every command comes back in the end.
    pub fn completes_all(&self) -> bool {
        matches!(self.class, Class::Healthy | Class::Failing | Class::Power)
    }

    /// Makes the case of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x7570_6369_6500_0000);
        random.next();
        let class = match random.below(13) {
            0..2 => Class::Healthy,
            2..5 => Class::Failing,
            5..7 => Class::Hanging,
            7..10 => Class::Power,
            10 => Class::Lying,
            11 => Class::Dying,
            _ => Class::Admin,
        };
        let (has_messages, events) = (!random.one_in(4), random.one_in(4));
        let plan = plan(&mut random, class, has_messages, events);
        let vectors = if has_messages { "vectors=4" } else { "vectors=0,intx=true" };
        let options = format!("size={}K,queues=4,depth=16,mdts=16K,{vectors}", BLOCKS / 2);
        let laziness = 1 + random.below(4) * random.below(4);
        let retries = random.below(3) as u32;
        let count = 10 + random.below(40);
        let mut ops = vec![create(&mut random, class, 0)];
        ops.extend((0..count).map(|_| op(&mut random, class, events)));
        Self { seed, class, options, plan, ops, laziness, retries, events }
    }
}

fn depth(random: &mut Random) -> u32 {
    [2, 3, 4, 5, 8, 16][random.below(6)]
}

fn create(random: &mut Random, class: Class, queue: usize) -> Op {
    let hangs = matches!(class, Class::Hanging | Class::Admin);
    let is_timed = if hangs { !random.one_in(4) } else { random.one_in(8) };
    let limit = is_timed.then(|| {
        let policy = match random.below(8) {
            0..3 => OnTimeout::Report,
            3..5 => OnTimeout::Abort,
            7 if class == Class::Hanging => OnTimeout::GiveUp,
            _ => OnTimeout::Reset,
        };
        Limit { time: Duration::from_millis(random.within(5..40)), policy }
    });
    Op::Create { queue, depth: depth(random), interrupt: random.one_in(2), limit }
}

fn op(random: &mut Random, class: Class, events: bool) -> Op {
    let queue = random.below(QUEUES);
    match random.below(100) {
        0..8 => create(random, class, queue),
        8..12 => Op::Close { queue },
        12..58 => {
            let commands = (0..random.below(7)).map(|_| io(random, &[1, 1, 2, 3, 8, 17, 32])).collect();
            Op::Turn { queue, commands, reset: random.one_in(40) }
        }
        58..60 => {
            let kinds = [ResetKind::Controller, ResetKind::Function, ResetKind::Subsystem];
            Op::Reset { kind: kinds[random.below(kinds.len())] }
        }
        60..62 if class == Class::Hanging => Op::Busy { queue },
        62..64 if class == Class::Hanging => Op::Spin { queue, time: Duration::from_millis(250) },
        64..69 if class == Class::Hanging => {
            Op::Wait { queue, timeout: Duration::from_millis(random.within(100..900)) }
        }
        60..75 => Op::Wait { queue, timeout: Duration::from_micros(random.within(10..50_000)) },
        // Larger ones than fit into one command, too.
        75..83 => Op::Blocking(io(random, &[1, 1, 2, 3, 8, 17, 32, 33, 48, 64])),
        83..86 if class == Class::Power => Op::PowerCut,
        86..90 if events => Op::Event { notice: random.one_in(2), take: !random.one_in(4) },
        90..92 => Op::Stale { queue },
        _ => Op::Idle { actions: random.below(20) },
    }
}

fn io(random: &mut Random, sizes: &[u32]) -> Io {
    let opcode = match random.below(16) {
        0..6 => NvmOpcode::READ,
        6..12 => NvmOpcode::WRITE,
        12..14 => NvmOpcode::FLUSH,
        14 => NvmOpcode::WRITE_ZEROES,
        _ => NvmOpcode::DATASET_MANAGEMENT,
    };
    let blocks = sizes[random.below(sizes.len())];
    // A part of the blocks is used more than the others.
    let limit = if random.one_in(2) { 8 } else { BLOCKS - u64::from(blocks) + 1 };
    Io { opcode, lba: random.within(0..limit.min(BLOCKS - u64::from(blocks) + 1)), blocks }
}

fn plan(random: &mut Random, class: Class, has_messages: bool, events: bool) -> FaultPlan {
    let mut plan = FaultPlan::new(random.next());
    if class == Class::Power || random.one_in(3) {
        plan = plan.cache([2048, 16 << 10, 1 << 20][random.below(3)]);
    }
    let micros = |random: &mut Random, most| Duration::from_micros(random.within(1..most));
    let rules = 1 + random.below(3);
    for _ in 0..rules {
        let fault = match class {
            Class::Healthy => break,
            Class::Power => match random.below(3) {
                0 => Fault::Reorder(micros(random, 200)),
                1 => Fault::Delay(micros(random, 100)),
                _ => break,
            },
            Class::Failing => match random.below(7) {
                0 => Fault::Delay(micros(random, 2000)),
                1 => Fault::Reorder(micros(random, 500)),
                2 if has_messages => Fault::LostInterrupt,
                3 if has_messages => Fault::SpuriousInterrupts(1 + random.below(3) as u32),
                4 if events => Fault::EventStorm(1 + random.below(20) as u32),
                _ => {
                    let status =
                        [Status::INTERNAL_ERROR, Status::WRITE_FAULT, Status::UNRECOVERED_READ_ERROR];
                    // With a delay before a repetition, of those that the controller names.
                    let delay = if random.one_in(2) { 0 } else { random.within(1..4) as u16 };
                    let status = Status::from_bits(status[random.below(3)].into_bits() | delay << 11);
                    Fault::Status(if random.one_in(2) { status.with_do_not_retry() } else { status })
                }
            },
            Class::Hanging => match random.below(3) {
                0 => Fault::Drop,
                1 => Fault::LoseCompletion,
                // Beyond the deadline of a blocking call, or shortly before.
                _ => Fault::Delay(Duration::from_millis(random.within(1500..4000))),
            },
            Class::Lying => match random.below(7) {
                0 => Fault::Duplicate,
                1 => Fault::ForgedId,
                2 => Fault::StaleId,
                3 => Fault::WrongQueue,
                4 => Fault::BadHead,
                5 => Fault::EarlyPhase(micros(random, 100)),
                _ => Fault::HalfWritten(micros(random, 100)),
            },
            Class::Dying => match random.below(6) {
                0 => Fault::Fatal,
                1 => Fault::AllOnes(None),
                2 => Fault::AllOnes(Some(Duration::from_millis(random.within(1..3000)))),
                3 => Fault::NeverReady,
                4 => Fault::AlwaysReady,
                _ => Fault::ChangingRegisters,
            },
            Class::Admin => match random.below(4) {
                0 => Fault::Drop,
                1 => Fault::LoseCompletion,
                2 => Fault::Delay(Duration::from_millis(random.within(100..4000))),
                _ => Fault::Status(Status::INTERNAL_ERROR),
            },
        };
        let mut rule = FaultRule::new(fault).after(random.within(0..12));
        if class == Class::Admin && !random.one_in(4) {
            // Beyond the commands of the bring-up in most cases.
            rule = rule.queue(0).after(random.within(0..40));
        }
        if !fault.is_of_the_controller() {
            rule = match random.below(3) {
                0 => rule.count(1 + random.within(0..3)),
                1 => rule.probability(0.3),
                _ => rule.probability(0.05),
            };
        }
        plan = plan.rule(rule);
    }
    plan
}
