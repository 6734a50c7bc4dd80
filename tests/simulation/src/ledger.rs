//! Payloads: each comes back exactly once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts the ends of tickets.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<u64, u32>>);

impl Ledger {
    /// Issues a ticket.
    pub fn issue(self: &Arc<Self>, id: u64) -> Ticket {
        self.lock().insert(id, 0);
        Ticket { id, ledger: self.clone() }
    }

    /// Returns a ticket that did not end exactly once.
    pub fn unbalanced(&self) -> Option<(u64, u32)> {
        self.lock().iter().find(|(_, ends)| **ends != 1).map(|(&id, &ends)| (id, ends))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tag of a command: it ends when it is dropped, wherever that is.
#[derive(Debug)]
pub struct Ticket {
    pub id: u64,
    ledger: Arc<Ledger>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.ledger.lock().entry(self.id).or_default() += 1;
    }
}
