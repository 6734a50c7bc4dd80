//! Cancel (Base, "Cancel command"): ends commands of the queue that it comes from.
//!
//! It finds a command only with `latency=` or a fault plan; without them each command is done when the next one is fetched.

use super::{
    flight::Stage,
    fused::FUSE,
    io::Io,
    media::Media,
    namespace::{Away, refusal},
    queue::Sq,
};
use crate::spec::{ALL_NAMESPACES, CancelDword10, CancelDword11, CancelResult, Command, Status};
use std::time::Duration;

/// The commands that a Cancel names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    nsid: u32,
    /// `None`: all of them.
    id: Option<u16>,
}

impl Named {
    /// Decides on the fields of a Cancel that came from the queue `sq`.
    fn new(sq: u16, own: u16, nsid: u32, [cdw10, cdw11]: [u32; 2]) -> Result<Self, Status> {
        let (dword10, action) = (CancelDword10::from_bits(cdw10), CancelDword11::from_bits(cdw11).acode());
        let id = match (action, dword10.cid()) {
            _ if dword10.sqid() != sq => return Err(Status::INVALID_FIELD.with_do_not_retry()),
            (0, id) if id == own => return Err(Status::INVALID_COMMAND_ID.with_do_not_retry()),
            (0, id) => Some(id),
            (1, u16::MAX) => None,
            _ => return Err(Status::INVALID_FIELD.with_do_not_retry()),
        };
        Ok(Self { nsid, id })
    }

    /// Returns `true` for a command that is one of them.
    ///
    /// # Errors
    /// The Cancel names this one command, and another namespace.
    fn matches(self, id: u16, nsid: u32) -> Result<bool, Status> {
        let is_there = self.nsid == ALL_NAMESPACES || self.nsid == nsid;
        match self.id {
            Some(named) if named != id => Ok(false),
            Some(_) if !is_there => Err(Status::INVALID_FIELD.with_do_not_retry()),
            _ => Ok(is_there),
        }
    }
}

/// Returns dword 0 of the completion.
fn result(aborted: usize, deferred: usize) -> u32 {
    let short = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    CancelResult::new().with_aborted(short(aborted)).with_deferred(short(deferred)).into_bits()
}

impl<M: Media> Io<M> {
    /// Checks the fields of a Cancel that came from the queue `sq`, and returns the commands that it names.
    pub(super) fn check_cancel(
        &self,
        sq: u16,
        own: u16,
        nsid: u32,
        dwords: [u32; 2],
    ) -> Result<Named, Status> {
        match self.namespaces.get(nsid.wrapping_sub(1) as usize) {
            _ if nsid == ALL_NAMESPACES => {}
            Some(namespace) if namespace.away == Away::Not => {}
            other => return Err(refusal(other)),
        }
        Named::new(sq, own, nsid, dwords)
    }
}

impl Sq {
    /// Ends commands whose completions are held back, and returns dword 0 of the completion of `cancel`. Their completions
    /// come before it.
    pub(super) fn cancel_delayed(&mut self, cancel: &Command, now: Duration) -> Result<u32, Status> {
        let named = Named::new(self.id, cancel.cid, cancel.nsid, [cancel.cdw10, cancel.cdw11])?;
        for held in &self.delayed {
            named.matches(held.done.cid, held.nsid)?;
        }
        // In one pass, whatever the order: those that are ended are due, so they come first, and the others behind them.
        let (mut ended, mut others) = (0, Vec::with_capacity(self.delayed.len()));
        for _ in 0..self.delayed.len() {
            let Some(mut held) = self.delayed.pop_front() else { break };
            if named.matches(held.done.cid, held.nsid) != Ok(true) {
                others.push(held);
                continue;
            }
            (held.due, held.dw1) = (now, 0);
            (held.done.dw0, held.done.status) = (0, Status::ABORT_REQUESTED);
            self.delayed.push_back(held);
            ended += 1;
        }
        self.delayed.extend(others);
        Ok(result(ended, 0))
    }

    /// Ends flights that a Cancel names, and returns dword 0 of its completion. Their completions come before it.
    pub(super) fn cancel_flights(&mut self, named: Named) -> Result<u32, Status> {
        let (mut ended, mut left) = (0, 0);
        for flight in &mut self.flights {
            if !named.matches(flight.command.cid, flight.command.nsid)? {
                continue;
            }
            if flight.command.flags & FUSE != 0 || !flight.can_be_aborted() {
                left += 1;
                continue;
            }
            flight.done.status = Status::ABORT_REQUESTED;
            (flight.stage, flight.due) = (Stage::Post, Duration::ZERO);
            ended += 1;
        }
        Ok(result(ended, left))
    }
}
