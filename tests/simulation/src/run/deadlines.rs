//! Deadlines of commands: none is missed without the reaction that the queue was made with.

use super::{Broken, Io, Limit, Run};
use std::{collections::BTreeSet, time::Duration};
use upcie_core::clock::Clock;
use upcie_nvme::{queue::OnTimeout, spec::NvmOpcode};

/// A reaction may be late by so much: two intervals between looks, and what the controller's actions take meanwhile.
const LATE: Duration = Duration::from_millis(150);
/// Turns after which a queue without work looks for late commands, and completions after which one with work does.
const TURNS: usize = 1024;
/// The most rounds of busy turns.
const ROUNDS: usize = 3000;

impl Run<'_> {
    /// Checks that some command of a queue has missed its deadline: a reaction does not come too early.
    pub(super) fn check_age(&self, at: usize) -> Result<(), Broken> {
        let Some(limit) = self.limits[at] else {
            return Err("a queue without deadlines reacts to one".into());
        };
        let sent =
            self.pending.values().filter(|pending| pending.queue == at).map(|pending| pending.sent).min();
        match sent.map(|sent| self.world.now() - sent) {
            Some(age) if age >= limit.time => Ok(()),
            age => Err(format!("the oldest command is {age:?} old, and the deadline is {:?}", limit.time)),
        }
    }

    /// Checks a queue whose commands have been looked at for `time` without a reaction or a completion.
    pub(super) fn check_late(&self, at: usize, time: Duration) -> Result<(), Broken> {
        let Some(limit @ Limit { policy, .. }) = self.limits[at] else { return Ok(()) };
        // An Abort, its answer and the completion have the command's time each.
        let steps = if policy == OnTimeout::Abort { 3 } else { 1 };
        if time < (limit.time + LATE) * steps { Ok(()) } else { self.check_reaction(at, limit, |_| true) }
    }

    /// Checks that no command of a queue is late without a reaction, of those that `which` names.
    fn check_reaction(&self, at: usize, limit: Limit, which: impl Fn(u64) -> bool) -> Result<(), Broken> {
        let Some(queue) = self.queues[at].as_ref().filter(|_| self.is_strict()) else { return Ok(()) };
        let reported: BTreeSet<u64> = match limit.policy {
            OnTimeout::Report => queue.overdue().map(|(ticket, _)| ticket.id).collect(),
            _ => BTreeSet::new(),
        };
        let mut late = self.pending.iter().filter(|(id, pending)| pending.queue == at && which(**id));
        match late.find(|(id, _)| !reported.contains(id)) {
            Some((id, _)) => Err(format!("command {id} is late, and {:?} did not happen", limit.policy)),
            None => Ok(()),
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        !self.case.may_fail_anywhere()
    }

    /// Opens turns that find nothing to do, for `time`.
    pub(super) fn spin(&mut self, at: usize, time: Duration) -> Result<(), Broken> {
        if self.limits[at].is_none() {
            return Ok(());
        }
        let (mut start, mut before) = (self.world.now(), self.pending.len());
        while before > 0 && self.world.now() - start < time {
            for _ in 0..=TURNS {
                if !self.turn(at, &[], false)? {
                    return Ok(());
                }
            }
            if self.pending.len() != before {
                (start, before) = (self.world.now(), self.pending.len());
            }
            self.world.sleep(Duration::from_millis(5));
        }
        self.check_late(at, self.world.now() - start)
    }

    /// Keeps a queue with commands in flight busy, by turns alone, until a look for late commands must have found them.
    pub(super) fn busy(&mut self, at: usize) -> Result<(), Broken> {
        let Some(limit) = self.limits[at].filter(|limit| limit.policy != OnTimeout::Abort) else {
            return Ok(());
        };
        let old: BTreeSet<u64> = self.of_queue(at).collect();
        let read = Io { opcode: NvmOpcode::READ, lba: 0, blocks: 1 };
        let (start, mut done, mut idle) = (self.world.now(), 0, 0);
        for _ in 0..ROUNDS {
            let (before, sent) = (self.of_queue(at).count(), self.next);
            if !self.turn(at, &[read; 4], false)? || !self.of_queue(at).any(|id| old.contains(&id)) {
                return Ok(());
            }
            // Refused commands have numbers, too.
            let after = self.of_queue(at).filter(|id| *id <= sent).count();
            done += before - after;
            idle = if before == after { idle + 1 } else { 0 };
            // Two looks, each after so many completions in whole laps; the first begins to measure.
            if done >= 2 * (TURNS + 16) + 16 && self.world.now() - start > limit.time * 4 {
                return self.check_reaction(at, limit, |id| old.contains(&id));
            }
            if idle > 20 {
                return Ok(());
            }
            self.world.act(12);
            self.world.sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn of_queue(&self, at: usize) -> impl Iterator<Item = u64> {
        self.pending.iter().filter(move |(_, pending)| pending.queue == at).map(|(id, _)| *id)
    }
}
