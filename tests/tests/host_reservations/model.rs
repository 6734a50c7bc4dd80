//! The rules of reservations, by a small model of them.

use std::collections::BTreeMap;
use upcie_nvme::spec::{ReservationType, Status};

/// The keys of registrants, and the reservation with its holder.
#[derive(Debug, Default)]
pub struct Model {
    pub keys: BTreeMap<usize, u64>,
    pub held: Option<(ReservationType, usize)>,
    pub generation: u32,
}

pub type Outcome = Result<(), Status>;
pub const CONFLICT: Outcome = Err(Status::RESERVATION_CONFLICT);
const INVALID: Outcome = Err(Status::INVALID_FIELD);

impl Model {
    pub fn holds(&self, host: usize) -> bool {
        self.held.is_some_and(|(kind, holder)| match kind.is_shared() {
            true => self.keys.contains_key(&host),
            false => holder == host,
        })
    }

    pub fn remove(&mut self, host: usize) {
        self.keys.remove(&host);
        let is_over = self.held.is_some_and(|(kind, holder)| match kind.is_shared() {
            true => self.keys.is_empty(),
            false => holder == host,
        });
        if is_over {
            self.held = None;
        }
    }

    pub fn register(&mut self, host: usize, key: u64) -> Outcome {
        if self.keys.get(&host).is_some_and(|old| *old != key) {
            return CONFLICT;
        }
        self.keys.insert(host, key);
        self.generation += 1;
        Ok(())
    }

    pub fn acquire(&mut self, host: usize, key: u64, kind: ReservationType) -> Outcome {
        match self.held {
            _ if self.keys.get(&host) != Some(&key) => CONFLICT,
            None => {
                self.held = Some((kind, host));
                Ok(())
            }
            Some((old, _)) if old == kind && self.holds(host) => Ok(()),
            Some(_) => CONFLICT,
        }
    }

    pub fn preempt(&mut self, host: usize, key: u64, other: u64, kind: ReservationType) -> Outcome {
        if self.keys.get(&host) != Some(&key) {
            return CONFLICT;
        }
        let (is_all, takes) = match self.held {
            None => (false, false),
            Some((old, _)) if old.is_shared() => (other == 0, other == 0),
            Some(_) if other == 0 => return INVALID,
            Some((_, holder)) => (false, self.keys[&holder] == other),
        };
        let named = |(who, has): (&usize, &u64)| (is_all || *has == other).then_some(*who);
        let gone: Vec<usize> =
            self.keys.iter().filter_map(named).filter(|who| !(takes && *who == host)).collect();
        if gone.is_empty() && !takes {
            return CONFLICT;
        }
        if takes {
            self.held = Some((kind, host));
        }
        gone.into_iter().for_each(|who| self.remove(who));
        self.generation += 1;
        Ok(())
    }

    pub fn release(&mut self, host: usize, key: u64, kind: ReservationType) -> Outcome {
        match self.held {
            _ if self.keys.get(&host) != Some(&key) => CONFLICT,
            Some((old, _)) if self.holds(host) && old != kind => INVALID,
            Some(_) if self.holds(host) => {
                self.held = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
