//! Commands served in stages: the path of a controller with a fault plan, and of one whose caller picks each action.
//!
//! Unlike in [`service`](super::service), a fetched command is a value of its own, a [`Flight`], until its last stage.
//! So its stages can be late, lost, out of order or interleaved with those of other commands.

use super::{
    HostMemory, Interrupts,
    faults::{Effects, Id, Injector},
    flight::{Done, Flight, Stage, halves},
    fused::{self, FUSE},
    io::{Io, PIECE},
    media::Media,
    prp::Position,
    queue::{Cq, Fault, Sq},
};
use crate::spec::{Command, NvmOpcode, Status};
use std::time::Duration;

/// The state of a controller that serves commands in stages.
#[derive(Debug, Default)]
pub(super) struct Staging {
    /// The fault plan at work, if there is one.
    pub faults: Option<Injector>,
    pub lasting_faults: LastingFaults,
    /// The host takes delays in statuses (Host Behavior Support, ACRE).
    pub delays: bool,
    /// The completion queues whose interrupt is to be raised by an action of the caller.
    pub untold: Vec<u16>,
}

impl Staging {
    /// Returns the effects of the fault plan on a command that was fetched from the submission queue `sq`.
    pub fn decide(&mut self, sq: u16, command: &Command) -> Effects {
        let mut effects =
            self.faults.as_mut().map_or_else(Effects::default, |faults| faults.decide(sq, command));
        if !self.delays {
            effects.status = effects.status.map(|status| Status::from_bits(status.into_bits() & !(3 << 11)));
        }
        effects
    }

    /// Returns `true` if a fault of the controller has struck, which comes before any further stage of a command.
    pub fn is_struck(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| !faults.due.is_empty())
    }
}

/// The lasting faults of a controller.
#[derive(Debug, Default)]
pub(super) struct LastingFaults {
    /// CSTS.RDY stays 0.
    pub never_ready: bool,
    /// The same, until the function or the subsystem is reset.
    pub stuck_start: bool,
    /// CSTS.RDY stays 1.
    pub always_ready: bool,
    /// CAP and VS change at each read.
    pub changing: bool,
    /// Registers read as all ones until this time.
    pub gone_until: Option<Duration>,
    /// The connection is to be closed; nothing is served until the next host resets the function.
    pub must_disconnect: bool,
}

impl Sq {
    /// Removes the flight of a command that an Abort ends.
    pub fn abort_flight(&mut self, cid: u16) -> Option<Done> {
        let found = |flight: &Flight| flight.command.cid == cid && flight.can_be_aborted();
        let at = self.flights.iter().position(found)?;
        let flight = self.flights.remove(at);
        Some(Done { status: Status::ABORT_REQUESTED, ..flight.done })
    }

    /// Ends the commands in flight to namespaces that are being erased, as far as they are not carried out. They were sent for the
    /// blocks of before: those of after may have another size, and a command in pieces would see some of each.
    pub fn end_flights<M: Media>(&mut self, io: &mut Io<M>) {
        if let Some(rest) = self.rest.as_mut().filter(|rest| io.erased(rest.command.nsid).is_some()) {
            rest.format = None;
        }
        let is_erased = |flight: &Flight| io.erased(flight.command.nsid).is_some();
        self.flights.retain(|flight| flight.stage != Stage::LateData || !is_erased(flight));
        for flight in &mut self.flights {
            let Command { cid, nsid, .. } = flight.command;
            let Some(status) = io.erased(nsid) else { continue };
            match flight.stage {
                // It was carried out with the other half of a fused operation.
                Stage::Data(_) if self.fused.iter().any(|half| half.0 == cid) => {}
                Stage::Data(_) => {
                    flight.rest = None;
                    flight.done.status = io.failed(self.id, cid, nsid, 0, status);
                    flight.stage = if flight.effects.lose { Stage::Hung } else { Stage::Post };
                    // A read that was to complete early has no data that could follow.
                    flight.effects.early_completion = None;
                }
                Stage::Post => flight.effects.early_completion = None,
                _ => {}
            }
        }
    }

    /// Returns the time of the next stage of any of its flights.
    pub fn next_stage(&self) -> Option<Duration> {
        let moving = self.flights.iter().filter(|flight| flight.stage != Stage::Hung);
        moving.map(|flight| flight.due).min()
    }

    /// Returns the flight whose stage is to be done next at `now`: of those due, the first one.
    pub fn next_due(&self, now: Duration) -> Option<usize> {
        let due = |flight: &Flight| flight.stage != Stage::Hung && flight.due <= now;
        let flights = self.flights.iter().enumerate().filter(|(_, flight)| due(flight));
        flights.min_by_key(|(_, flight)| flight.due).map(|(index, _)| index)
    }
}

/// The outcome of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staged {
    /// Done.
    Done,
    /// Done, and an entry was posted of which the host is to be told.
    Posted,
    /// The completion queue is full.
    Full,
}

/// Fetches the next command of `sq`.
pub(super) fn fetch(
    sq: &mut Sq,
    cq: &mut Cq,
    staging: &mut Staging,
    host: &mut (impl HostMemory + Interrupts),
    now: Duration,
    latency: Duration,
) -> Result<(), Fault> {
    let entry = sq.head();
    let command = sq.fetch(host)?;
    let mut effects = staging.decide(sq.id, &command);
    effects.delay += latency;
    for _ in 0..effects.spurious {
        cq.raise(host);
    }
    sq.flights.push(Flight { entry, ..Flight::new(command, effects, now) });
    Ok(())
}

/// The most stages of a queue's commands in one round: each looks at all of them.
const STAGES: usize = 256;

/// Does stages of the flights of `sq` that are due at `now`, until they have processed `most` bytes; returns their number. Leaves
/// the bytes in [`Io::worked`].
pub(super) fn advance_due<M: Media>(
    sq: &mut Sq,
    cq: &mut Cq,
    io: &mut Io<M>,
    host: &mut (impl HostMemory + Interrupts),
    now: Duration,
    most: u64,
) -> Result<usize, Fault> {
    let (mut done, mut posted, mut result) = (0, false, Ok(()));
    io.worked = 0;
    while done < STAGES && io.worked < most {
        let Some(at) = sq.next_due(now) else { break };
        match advance(sq, cq, io, host, at, PIECE, now) {
            Ok(Staged::Full) => break,
            Ok(staged) => posted |= staged == Staged::Posted,
            Err(fault) => {
                result = Err(fault);
                break;
            }
        }
        done += 1;
    }
    if posted {
        cq.interrupt(host);
    }
    result.map(|()| done)
}

/// Does the next stage of flight `at` of `sq`: at most `piece` bytes of its data, for example.
pub(super) fn advance<M: Media>(
    sq: &mut Sq,
    cq: &mut Cq,
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    at: usize,
    piece: u64,
    now: Duration,
) -> Result<Staged, Fault> {
    let mut flight = sq.flights.remove(at);
    let next = match flight.stage {
        Stage::Data(_) if flight.command.flags & FUSE != 0 => {
            flight.done.status = fused::end_staged(sq, io, host, (flight.entry, &flight.command))?;
            Some(if flight.effects.lose { Stage::Hung } else { Stage::Post })
        }
        Stage::Data(_) if flight.command.opcode == NvmOpcode::CANCEL.0 => {
            let Command { cid, nsid, cdw10, cdw11, .. } = flight.command;
            let named = io.check_cancel(sq.id, cid, nsid, [cdw10, cdw11]);
            match named.and_then(|named| sq.cancel_flights(named)) {
                Ok(result) => flight.done.dw0 = result,
                Err(status) => flight.done.status = io.failed(sq.id, cid, nsid, 0, status),
            }
            Some(if flight.effects.lose { Stage::Hung } else { Stage::Post })
        }
        Stage::Data(moved) => match carry_on(sq.id, io, host, &mut flight, (moved, piece)) {
            Ok(Some(moved)) => Some(Stage::Data(moved)),
            ended => {
                flight.done.status = ended.err().unwrap_or(Status::SUCCESS);
                (flight.done.dw0, flight.dw1) = halves(io.take_result());
                Some(if flight.effects.lose { Stage::Hung } else { Stage::Post })
            }
        },
        Stage::Post => match cq.room() {
            Ok(1..) => {
                let posted = post(sq, cq, host, &mut flight, now)?;
                let silent = flight.effects.silent;
                if let Some(stage) = posted {
                    flight.stage = stage;
                    sq.flights.insert(at, flight);
                }
                return Ok(if silent { Staged::Done } else { Staged::Posted });
            }
            full => {
                sq.flights.insert(at, flight);
                return full.map(|_| Staged::Full);
            }
        },
        Stage::Rest(entry, low, high) => {
            cq.rewrite(host, entry, low, high)?;
            None
        }
        Stage::LateData if flight.command.flags & FUSE != 0 => {
            fused::end_staged(sq, io, host, (flight.entry, &flight.command))?;
            None
        }
        Stage::LateData => {
            // The command was reported as done: an error has nowhere to go.
            let done = carry_on(sq.id, io, host, &mut flight, (0, u64::MAX));
            io.take_result();
            matches!(done, Ok(Some(_))).then_some(Stage::LateData)
        }
        Stage::Hung => Some(Stage::Hung),
    };
    if let Some(stage) = next {
        flight.stage = stage;
        sq.flights.insert(at, flight);
    }
    Ok(Staged::Done)
}

/// Carries out the command of a flight from queue `sq`, or its next piece: `piece` bytes of a read or write after the first
/// `moved`. Returns the bytes moved so far if there are more.
fn carry_on<M: Media>(
    sq: u16,
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    flight: &mut Flight,
    (moved, piece): (u64, u64),
) -> Result<Option<u64>, Status> {
    let done = match flight.rest.take() {
        Some(rest) => {
            let done = io.resume(host, sq, *rest);
            io.progress(done, moved)
        }
        None => {
            let Command { cid, nsid, .. } = flight.command;
            let checked = match moved {
                0 => {
                    (flight.format, flight.position) = (io.format_of(nsid), Position::default());
                    Ok(())
                }
                _ => io.check_format(nsid, flight.format),
            };
            match checked {
                Ok(()) => {
                    let (part, flip) = ((moved, piece), flight.effects.flip);
                    io.carry_out(host, sq, flight.command, part, &mut flight.position, flip)
                }
                Err(status) => Err(io.failed(sq, cid, nsid, flight.command.slba(), status)),
            }
        }
    };
    flight.rest = io.take_rest(flight.command.cid);
    done
}

/// Posts the completion of a flight, bent by its effects; returns the stage after it, if there is one.
fn post(
    sq: &mut Sq,
    cq: &mut Cq,
    host: &mut impl HostMemory,
    flight: &mut Flight,
    now: Duration,
) -> Result<Option<Stage>, Fault> {
    let (effects, Done { dw0, cid, status }) = (flight.effects, flight.done);
    let cid = match effects.id {
        None => cid,
        Some(Id::Stale) => sq.last_id,
        Some(Id::Forged(first)) => {
            let is_free = |id: &u16| *id != cid && sq.flights.iter().all(|other| other.command.cid != *id);
            (0..=u16::MAX).map(|step| first.wrapping_add(step)).find(is_free).unwrap_or(first)
        }
    };
    let head = effects.head.map_or(sq.head(), u32::from);
    let queue = effects.queue.map_or(sq.id, |other| if other == sq.id { !other } else { other });
    let (low, high) = (u64::from(dw0) | u64::from(flight.dw1) << 32, cq.upper_half(head, queue, cid, status));
    sq.last_id = flight.command.cid;
    let entry = cq.tail();
    let (old_low, old_high) = cq.present(host, entry).unwrap_or_default();
    const PHASE: u64 = 1 << 48;
    let (first, later) = match effects {
        Effects { early_phase: Some(later), .. } => {
            ((old_low, old_high & !PHASE | high & PHASE), Some(later))
        }
        Effects { half_written: Some(later), .. } => ((!low, high), Some(later)),
        _ => ((low, high), None),
    };
    cq.put(host, first.0, first.1)?;
    if effects.duplicate {
        flight.effects.duplicate = false;
        return Ok(Some(Stage::Post));
    }
    if let Some(later) = later {
        flight.due = now.saturating_add(later);
        return Ok(Some(Stage::Rest(entry, low, high)));
    }
    let data_is_late = effects.early_completion.filter(|_| effects.status.is_none());
    Ok(data_is_late.map(|later| {
        flight.due = now.saturating_add(later);
        Stage::LateData
    }))
}
