//! A controller whose caller picks each action: for simulations that decide the order in which things happen.

use super::{
    Host, Machine, Media,
    flight::{Flight, Stage},
    queue::Fault,
    staged::{self, Staged, Staging},
};
use std::{fmt, time::Duration};

/// One action of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Serves the admin queue: all waiting commands, the next piece of what they have to erase, and events.
    Admin,
    /// Fetches the next command of a submission queue.
    Fetch {
        /// The submission queue.
        sq: u16,
    },
    /// Carries out a command, or moves the next block of its data.
    Data {
        /// The submission queue.
        sq: u16,
        /// The command.
        cid: u16,
        /// The bytes moved before.
        moved: u64,
    },
    /// Posts a completion.
    Post {
        /// The submission queue.
        sq: u16,
        /// The command.
        cid: u16,
    },
    /// Does the rest of a command that was completed too early, by a fault.
    Rest {
        /// The submission queue.
        sq: u16,
        /// The command.
        cid: u16,
    },
    /// Raises the interrupt for completions that were posted.
    Interrupt {
        /// The completion queue.
        cq: u16,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("serve the admin queue"),
            Self::Fetch { sq } => write!(f, "sq {sq}: fetch"),
            Self::Data { sq, cid, moved: 0 } => write!(f, "sq {sq}: carry out {cid:#x}"),
            Self::Data { sq, cid, moved } => write!(f, "sq {sq}: carry out {cid:#x} from byte {moved}"),
            Self::Post { sq, cid } => write!(f, "sq {sq}: complete {cid:#x}"),
            Self::Rest { sq, cid } => write!(f, "sq {sq}: end {cid:#x} late"),
            Self::Interrupt { cq } => write!(f, "cq {cq}: interrupt"),
        }
    }
}

impl Flight {
    /// Returns the action that does the next stage, if there is one.
    fn action(&self, sq: u16) -> Option<Action> {
        let cid = self.command.cid;
        match self.stage {
            Stage::Data(moved) => Some(Action::Data { sq, cid, moved }),
            Stage::Post => Some(Action::Post { sq, cid }),
            Stage::Rest(..) | Stage::LateData => Some(Action::Rest { sq, cid }),
            Stage::Hung => None,
        }
    }
}

impl<M: Media> Machine<M> {
    /// Returns the actions that are possible at `now`, in an order that depends on the queues alone.
    pub fn actions(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.is_present(&|| now) || !self.allowed.dma {
            return actions;
        }
        let Some(queues) = &mut self.queues else { return actions };
        let mut faults = 0;
        // With a wrong doorbell it is not idle: serving the queue reports that.
        let is_full = self.core.is_admin_full(&queues.admin_sq);
        let is_admin_idle = queues.admin_sq.waiting().is_ok_and(|waiting| waiting == 0 || is_full)
            && self.core.admin.done.is_empty()
            && !self.core.admin.can_deliver()
            && self.core.io.erasures.is_empty()
            && queues.admin_sq.next_due(now).is_none();
        if !is_admin_idle {
            actions.push(Action::Admin);
        }
        for sq in &mut queues.sqs {
            let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { continue };
            match sq.waiting() {
                Ok(1..) if sq.flights.len() < sq.entries as usize => {
                    actions.push(Action::Fetch { sq: sq.id })
                }
                Ok(_) => {}
                Err(_) => faults += 1,
            }
            let has_room = cq.room().is_ok_and(|room| room > 0);
            for flight in sq.flights.iter().filter(|flight| flight.due <= now) {
                let action = flight.action(sq.id);
                actions.extend(action.filter(|action| has_room || !matches!(action, Action::Post { .. })));
            }
        }
        if let Some(staging) = &self.core.staging {
            actions.extend(staging.untold.iter().map(|&cq| Action::Interrupt { cq }));
        }
        for _ in 0..faults {
            self.core.doorbell_fault();
        }
        actions
    }

    /// Takes one action at `now`; does nothing if it is not possible any more.
    pub fn act_once(&mut self, host: &mut impl Host, action: Action, now: Duration) {
        self.core.staging.get_or_insert_default();
        self.look_at_shadow_doorbells(host);
        self.update_lines(host);
        if self.is_present(&|| now) && self.allowed.dma {
            if let Err(fault) = self.take(host, action, now) {
                self.fatal(fault);
            }
        }
        self.fail(&|| now);
        self.update_lines(host);
    }

    fn take(&mut self, host: &mut impl Host, action: Action, now: Duration) -> Result<(), Fault> {
        let Some(queues) = &mut self.queues else { return Ok(()) };
        let core = &mut self.core;
        let sq = match action {
            Action::Admin => {
                if !core.io.erasures.is_empty() {
                    core.erase(Some(&mut *queues), &|| now);
                }
                return core.poll_admin(queues, host, &|| now).map(|_| ());
            }
            Action::Interrupt { cq } => {
                let Some(Staging { untold, .. }) = core.staging.as_deref_mut() else { return Ok(()) };
                untold.retain(|&untold| untold != cq);
                if let Some(Some(cq)) = queues.cqs.get_mut(usize::from(cq)) {
                    cq.interrupt(host);
                }
                return Ok(());
            }
            Action::Fetch { sq }
            | Action::Data { sq, .. }
            | Action::Post { sq, .. }
            | Action::Rest { sq, .. } => sq,
        };
        let Some(sq) = queues.sqs.iter_mut().find(|queue| queue.id == sq) else { return Ok(()) };
        let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { return Ok(()) };
        if let Action::Fetch { .. } = action {
            return match (sq.waiting(), core.staging.as_deref_mut()) {
                (Ok(1..), Some(staging)) => staged::fetch(sq, cq, staging, host, now, core.options.latency),
                _ => Ok(()),
            };
        }
        let wanted = |flight: &Flight| flight.action(sq.id) == Some(action);
        let Some(at) = sq.flights.iter().position(wanted) else { return Ok(()) };
        // A block at a time: other actions may come between two of one command.
        let block = core.options.smallest_block();
        if staged::advance(sq, cq, &mut core.io, host, at, block, now)? == Staged::Posted {
            let cq = cq.id;
            if let Some(staging) = &mut core.staging {
                if !staging.untold.contains(&cq) {
                    staging.untold.push(cq);
                }
            }
        }
        Ok(())
    }
}
