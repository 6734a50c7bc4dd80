//! Rules that can never strike, or not here, are refused.

use super::{
    super::{Error, Options},
    Fault, FaultPlan, FaultRule, Watched,
};
use crate::spec::{ALL_NAMESPACES, NvmOpcode, Status};

/// The driver of a controller, which decides the faults that it can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind a vfio-user server, on a thread of its own.
    Server,
    /// The thread of its driver, of which there is none yet.
    Lockstep,
    /// The thread of a driver that may have buffers.
    Driven,
}

/// A key of a rule, and the reason why the rule can't work.
type Bad = (&'static str, &'static str);

/// Refuses a plan with a rule that can't work at a controller with these options and `size` bytes in each namespace.
pub fn check(plan: &FaultPlan, place: Place, options: &Options, size: u64) -> Result<(), Error> {
    for (rule, checked) in (1..).zip(&plan.rules) {
        let fits = check_rule(checked, place).and_then(|()| check_watched(checked, options, size));
        let fits = fits.and_then(|()| check_namespace(checked.fault, options, size));
        fits.map_err(|(key, reason)| Error::FaultRule { rule, key, reason })?;
    }
    if plan.cache == Some(0) {
        return Err(Error::FaultCache { reason: "0 bytes hold no block: leave it out" });
    }
    Ok(())
}

/// Refuses a rule for commands that the controller can't have, or for interrupts that it does not send.
fn check_watched(rule: &FaultRule, options: &Options, size: u64) -> Result<(), Bad> {
    match rule.fault {
        _ if matches!(rule.queue, Watched::One(qid) if qid > options.most_queues()) => {
            Err(("queue", "the controller has fewer I/O queues (queues=)"))
        }
        _ if rule
            .namespace
            .is_some_and(|nsid| nsid != ALL_NAMESPACES && nsid > options.most_namespaces()) =>
        {
            Err(("namespace", "the controller can't have as many namespaces (namespaces=, nn=)"))
        }
        _ if rule.lba.as_ref().is_some_and(|lba| *lba.start() >= size >> 9) => {
            Err(("lba", "the namespaces have fewer blocks (size=)"))
        }
        Fault::LostInterrupt | Fault::SpuriousInterrupts(_) if options.most_vectors() == 0 => {
            Err(("kind", "it is a fault of MSI-X, which the controller lacks (vectors=)"))
        }
        _ => Ok(()),
    }
}

fn check_namespace(fault: Fault, options: &Options, size: u64) -> Result<(), Bad> {
    if fault.target().flatten().is_some_and(|nsid| !(1..=options.namespaces).contains(&nsid)) {
        return Err(("target", "the controller has no such namespace (1 to namespaces=)"));
    }
    match fault {
        Fault::ResizeNamespace { blocks: 0, .. } => Err(("blocks", "0 is no size: use remove-namespace")),
        Fault::ResizeNamespace { blocks, .. } if blocks > size >> 9 => {
            Err(("blocks", "a namespace never becomes larger than its part of the medium (size=)"))
        }
        Fault::ReformatNamespace { block_size, .. } if !matches!(block_size, 512 | 4096) => {
            Err(("block-size", "512 or 4096"))
        }
        Fault::ReformatNamespace { block_size, .. } if size < block_size.into() => {
            Err(("block-size", "a namespace has less than a block of that size (size=)"))
        }
        Fault::ReadOnlyZone { target, zone } | Fault::OfflineZone { target, zone } => {
            let has_zones = match target {
                Some(nsid) => options.zones.has(nsid - 1),
                None => options.zones.any(),
            };
            match has_zones {
                false => Err(("target", "the controller has no zones there: it needs zoned=true")),
                true if u64::from(zone) >= size / options.zones.size => {
                    Err(("zone", "the namespace has fewer zones (size=, zone-size=)"))
                }
                true => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_rule(rule: &FaultRule, place: Place) -> Result<(), Bad> {
    let admin = rule.queue == Watched::One(0);
    let io = |opcodes: &[NvmOpcode]| {
        !admin && rule.opcode.is_none_or(|opcode| opcodes.contains(&NvmOpcode(opcode)))
    };
    let blocks = [NvmOpcode::READ, NvmOpcode::WRITE, NvmOpcode::WRITE_ZEROES];
    match rule.fault {
        _ if rule.lba.as_ref().is_some_and(|lba| lba.is_empty()) => {
            Err(("lba", "it has no block: the first is beyond the last"))
        }
        _ if rule.lba.is_some() && !io(&blocks) => Err((
            "lba",
            "it goes with reads, writes and Write Zeroes of I/O queues only: the others name no block",
        )),
        _ if rule.count == Some(0) => Err(("count", "0 never strikes: leave the rule out")),
        _ if rule.millionths == 0 => Err(("probability", "0 never strikes: leave the rule out")),
        Fault::Corrupt if !io(&[NvmOpcode::READ, NvmOpcode::WRITE]) => {
            Err(("kind", "corrupt goes with reads and writes of I/O queues only"))
        }
        Fault::EarlyCompletion(_) if !io(&[NvmOpcode::READ]) => Err((
            "kind",
            "early-completion goes with reads of I/O queues only: a write's data can't be seen to be late",
        )),
        fault if place == Place::Driven && fault.writes_late() => Err((
            "kind",
            "it may write to buffers that the program has back, so it has to be there before the driver: give the plan to \
             Machine::with_faults",
        )),
        Fault::Status(status) if status.into_bits() & 0x7ff == Status::SUCCESS.into_bits() => Err((
            "status",
            "0 is success: use drop and lose-completion for commands that are not carried out",
        )),
        Fault::SpuriousInterrupts(0) => Err(("number", "0 raises no interrupt: leave the rule out")),
        Fault::EventStorm(0) => Err(("number", "0 reports no event: leave the rule out")),
        Fault::Stall(_) if place != Place::Server => {
            Err(("kind", "stall needs a server: a lockstep device has no thread of its own"))
        }
        Fault::CloseConnection if place != Place::Server => {
            Err(("kind", "close-connection needs a server: a lockstep device has no connection"))
        }
        _ => Ok(()),
    }
}
