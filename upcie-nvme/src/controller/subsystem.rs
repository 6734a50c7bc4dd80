//! The controllers of one NVM subsystem that this process drives. They share namespaces, so a command through
//! one of them can change what the queues and handles of another rely on.

use super::{Limit, lock};
use crate::{
    Error, Result,
    engine::{Live, unique},
    spec::IdentifyController,
};
use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, Weak},
};
use upcie_core::process::PerProcess;

/// A controller as its subsystem knows it.
pub(crate) trait Member: Send + Sync + fmt::Debug {
    /// Returns the controller's name.
    fn name(&self) -> &str;

    /// Returns the state that namespace handles are compared with.
    fn live(&self) -> &Arc<Live>;

    /// Returns the ids of the open queue pairs, and those of the pairs whose deletion is not confirmed.
    fn queue_pairs(&self) -> (Vec<u16>, Vec<u16>);

    /// Waits until a blocking call that is under way has nothing in flight; returns `false` when that took
    /// longer than `limit`.
    fn wait_for_blocking_call(&self, limit: &Limit<'_>) -> bool;
}

/// An NVM subsystem with the controllers of it that are open in this process.
#[derive(Debug, Default)]
pub(crate) struct Subsystem {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Entry>,
    /// Changes in progress: commands that were sent and not answered, by number.
    changes: Vec<(u64, String)>,
}

#[derive(Debug)]
struct Entry {
    live: Weak<Live>,
    controller: Weak<dyn Member>,
}

/// The subsystems that have controllers in this process, by their identity. Those of a forked child's parent belong to another
/// process.
static ALL: PerProcess<Vec<(Vec<u8>, Weak<Subsystem>)>> = PerProcess::new();

impl Subsystem {
    /// Returns the subsystem of a controller, found by its NQN (SUBNQN) or, if it has none, by vendor, serial
    /// number and model (Base, "NVM Subsystem Identification").
    pub(crate) fn of(identify: &IdentifyController) -> Arc<Self> {
        let mut key = identify.subnqn.to_vec();
        if key.first().is_none_or(|&byte| byte == 0) {
            key = [&identify.vid.to_le_bytes()[..], &identify.sn, &identify.mn].concat();
        }
        let mut all = ALL.lock();
        all.retain(|(_, subsystem)| subsystem.strong_count() > 0);
        if let Some(known) = all.iter().find(|(of, _)| *of == key).and_then(|(_, known)| known.upgrade()) {
            return known;
        }
        let new = Arc::new(Self::default());
        all.push((key, Arc::downgrade(&new)));
        new
    }

    /// Adds a controller of the subsystem that was brought up.
    pub(crate) fn join(&self, controller: Arc<dyn Member>) {
        let mut state = lock(&self.state);
        state.members.retain(|member| member.live.strong_count() > 0);
        let (live, controller) = (Arc::downgrade(controller.live()), Arc::downgrade(&controller));
        state.members.push(Entry { live, controller });
    }

    /// Returns an error while a change of namespaces is in progress: a new handle might show the state before
    /// it.
    pub(crate) fn check_settled(&self, device: &str, operation: &str) -> Result<()> {
        match lock(&self.state).changes.first() {
            None => Ok(()),
            Some((_, change)) => Err(Error::in_use(
                device,
                operation,
                format!(
                    "{change} is not answered yet, and may change the namespace at any time: try again after its answer, \
                     or open the controller again"
                ),
            )),
        }
    }

    /// Locks the state, for a test.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        lock(&self.state)
    }

    /// Returns the open controllers.
    fn controllers(&self) -> Vec<Arc<dyn Member>> {
        // Upgraded under the lock and dropped outside of it: the last handle to one may be among them.
        lock(&self.state).members.iter().filter_map(|member| member.controller.upgrade()).collect()
    }

    /// Makes the namespace handles of all controllers stale.
    pub(crate) fn make_stale(&self) {
        let state = lock(&self.state);
        state.members.iter().filter_map(|member| member.live.upgrade()).for_each(|live| live.restamp());
    }

    fn begin(self: &Arc<Self>, operation: &str) -> Change {
        let number = unique();
        lock(&self.state).changes.push((number, operation.into()));
        self.make_stale();
        Change { subsystem: self.clone(), number }
    }

    /// Describes the queue pairs in the subsystem that forbid a change, if there are any: their controllers
    /// and ids, and the way out.
    fn in_use(&self) -> Option<String> {
        let (mut open, mut unconfirmed) = (String::new(), String::new());
        for controller in self.controllers() {
            let (pairs, kept) = controller.queue_pairs();
            for (list, text) in [(pairs, &mut open), (kept, &mut unconfirmed)] {
                for qid in list {
                    let comma = if text.is_empty() { "" } else { ", " };
                    let _ = write!(text, "{comma}queue pair {qid} of {}", controller.name());
                }
            }
        }
        if !open.is_empty() {
            return Some(format!("close first: {open} (drop or QueuePair::close)"));
        }
        (!unconfirmed.is_empty()).then(|| {
            format!("the controller has not confirmed the deletion of {unconfirmed}: open the controller again first")
        })
    }

    /// Permits `operation`, a command that changes namespaces or queues: nothing is in flight for the
    /// subsystem's namespaces, and nothing can be sent to them while the result exists. `change` says what
    /// the command does. Waits for blocking calls within `limit`.
    ///
    /// # Errors
    /// [`Failure::InUse`](crate::Failure::InUse): a queue pair of a controller of the subsystem exists in this process.
    pub(super) fn change_alone(
        self: &Arc<Self>,
        controller: &dyn Member,
        limit: &Limit<'_>,
        operation: &str,
        change: &str,
    ) -> Result<Change> {
        let check = || match self.in_use() {
            None => Ok(()),
            Some(what) => Err(Error::in_use(
                controller.name(),
                operation,
                format!("{change}, and open queues rely on the state before it; {what}"),
            )),
        };
        // Refuse before any handle becomes stale.
        check()?;
        let leave = self.begin(operation);
        // A blocking call that began before this holds its lock until nothing of it is in flight; a later one
        // finds its handle stale.
        for other in self.controllers() {
            if !other.wait_for_blocking_call(limit) {
                return Err(Error::in_use(
                    controller.name(),
                    operation,
                    format!(
                        "{change}, and a blocking call on {} has not ended within {:?}: try again when it has",
                        other.name(),
                        limit.whole()
                    ),
                ));
            }
        }
        // A queue pair made since the first look may have been used before the handles went stale, or a blocking call may
        // have left a queue behind.
        check()?;
        Ok(leave)
    }
}

/// A command in progress that changes namespaces. While one of these exists, no namespace handle of the
/// subsystem is valid, and none can be made.
#[derive(Debug)]
pub(crate) struct Change {
    subsystem: Arc<Subsystem>,
    number: u64,
}

impl Drop for Change {
    fn drop(&mut self) {
        // Handles made during the change are stale; say so before new ones can be made.
        self.subsystem.make_stale();
        lock(&self.subsystem.state).changes.retain(|&(number, _)| number != self.number);
    }
}
