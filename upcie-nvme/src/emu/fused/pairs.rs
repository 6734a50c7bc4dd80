//! The commands of a fused operation: both are carried out when the first is met.

use super::{
    super::{
        HostMemory,
        flight::{Flight, Stage},
        io::Io,
        media::Media,
        queue::Sq,
        rest::IS_PART,
    },
    FUSE,
};
use crate::spec::{Command, NvmOpcode, Status};
use nix::errno::Errno;

const FIRST: u8 = 0x01;
const SECOND: u8 = 0x02;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const MISSING: Status = Status::ABORTED_MISSING_FUSED.with_do_not_retry();

impl Sq {
    /// Notes the status of a half that was carried out with its other half.
    fn note_fused(&mut self, cid: u16, status: Status) {
        // A host that changes an entry under the controller leaves statuses that nobody takes.
        if self.fused.len() >= self.entries as usize {
            self.fused.clear();
        }
        self.fused.push((cid, status));
    }

    fn take_fused(&mut self, cid: u16) -> Option<Status> {
        let at = self.fused.iter().position(|half| half.0 == cid)?;
        Some(self.fused.swap_remove(at).1)
    }
}

/// Carries out the half of a fused operation that was fetched last, with the identifier `cid`; returns its status and the bytes
/// that were moved.
#[cold]
#[inline(never)]
pub(in super::super) fn end<M: Media>(
    sq: &mut Sq,
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    cid: u16,
) -> Result<(Status, u64), Errno> {
    let Some(command) = io.fused.take() else { return Ok((Status::INTERNAL_ERROR, 0)) };
    let command = Command { cid, ..command };
    let other = match command.flags & FUSE {
        FIRST => sq.peek_command(host)?.filter(|next| next.flags & FUSE == SECOND),
        _ => None,
    };
    Ok(match (command.flags & FUSE, other) {
        (FIRST, Some(second)) => {
            let (statuses, bytes) = pair(io, host, sq.id, &command, &second);
            sq.note_fused(second.cid, statuses[1]);
            (statuses[0], bytes)
        }
        (SECOND, _) => (sq.take_fused(command.cid).unwrap_or_else(|| alone(io, sq.id, &command)), 0),
        (FIRST, None) => (alone(io, sq.id, &command), 0),
        _ => (io.failed(sq.id, command.cid, command.nsid, 0, INVALID_FIELD), 0),
    })
}

/// Carries out a half that is served in stages, the command at `entry` of the ring: with the flight of the entry beside it, or
/// with an entry that is not fetched yet. Returns its status.
#[cold]
#[inline(never)]
pub(in super::super) fn end_staged<M: Media>(
    sq: &mut Sq,
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    (entry, command): (u32, &Command),
) -> Result<Status, Errno> {
    if let Some(status) = sq.take_fused(command.cid) {
        return Ok(status);
    }
    let is_first = command.flags & FUSE == FIRST;
    let (next, last) = ((entry + 1) % sq.entries, (entry + sq.entries - 1) % sq.entries);
    let (beside, wanted) = if is_first { (next, SECOND) } else { (last, FIRST) };
    let is_beside = |flight: &&Flight| flight.entry == beside && flight.stage == Stage::Data(0);
    let other = match sq.flights.iter().find(is_beside) {
        Some(flight) => Some(flight.command),
        None if is_first && sq.head() == next => sq.peek_command(host)?,
        None => None,
    };
    let Some(other) = other.filter(|other| other.flags & FUSE == wanted) else {
        return Ok(alone(io, sq.id, command));
    };
    let (first, second) = if is_first { (command, &other) } else { (&other, command) };
    let ([compared, written], bytes) = pair(io, host, sq.id, first, second);
    io.worked += bytes;
    let (mine, others) = if is_first { (compared, written) } else { (written, compared) };
    sq.note_fused(other.cid, others);
    Ok(mine)
}

/// Fails a half without the other one.
fn alone<M: Media>(io: &mut Io<M>, sq: u16, command: &Command) -> Status {
    let status = if command.flags & FUSE == FUSE { INVALID_FIELD } else { MISSING };
    io.failed(sq, command.cid, command.nsid, 0, status)
}

/// Carries out both commands; returns the status of each, and the bytes that were moved.
fn pair<M: Media>(
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    sq: u16,
    first: &Command,
    second: &Command,
) -> ([Status; 2], u64) {
    let place = |command: &Command| (command.nsid, command.slba(), command.block_count());
    let opcodes = (NvmOpcode(first.opcode), NvmOpcode(second.opcode));
    if opcodes != (NvmOpcode::COMPARE, NvmOpcode::WRITE) || place(first) != place(second) {
        let both = [first, second];
        return (both.map(|half| io.failed(sq, half.cid, half.nsid, half.slba(), INVALID_FIELD)), 0);
    }
    let plain = |half: &Command| Command { flags: half.flags & !FUSE, ..*half };
    let (compared, bytes) = execute_one(io, host, sq, &plain(first));
    if !compared.is_success() {
        let failed = Status::ABORTED_FAILED_FUSED.with_do_not_retry();
        return ([compared, io.failed(sq, second.cid, second.nsid, second.slba(), failed)], bytes);
    }
    let (written, more) = execute_one(io, host, sq, &plain(second));
    ([compared, written], bytes + more)
}

/// Carries out a command out of line, all of its pieces at once: nothing may come in between.
#[inline(never)]
fn execute_one<M: Media>(
    io: &mut Io<M>,
    host: &mut impl HostMemory,
    sq: u16,
    command: &Command,
) -> (Status, u64) {
    let (mut status, mut bytes) = io.execute(host, sq, *command);
    let mut before = 0;
    while bytes & IS_PART != 0 {
        let Some(rest) = io.take_rest(command.cid) else { break };
        before += bytes & !IS_PART;
        (status, bytes) = io.resume(host, sq, *rest);
    }
    (status, before + (bytes & !IS_PART))
}
