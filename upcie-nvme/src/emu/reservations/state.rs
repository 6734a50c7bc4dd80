//! The rules: who may register, acquire, preempt, release and clear, and who may read and write.

use super::{
    Access, Host,
    seats::{Notice, Seat},
};
use crate::spec::{ReservationType, Status};

const CONFLICT: Status = Status::RESERVATION_CONFLICT.with_do_not_retry();
const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// The most registrants of a namespace.
const MOST: usize = 256;

/// The reservations of an NVM subsystem.
#[derive(Debug, Default)]
pub struct Reservations {
    /// Reservations by namespace.
    pub spaces: Vec<Space>,
    /// Hosts by controller.
    pub(super) seats: Vec<Seat>,
    /// Counts the changes that a controller may have to know of.
    pub(super) version: u64,
}

/// The registrations and the reservation of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Space {
    pub(super) generation: u32,
    pub(super) registrants: Vec<Registrant>,
    held: Option<Held>,
    /// Persist Through Power Loss.
    pub persists: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Registrant {
    pub host: Host,
    pub key: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    kind: ReservationType,
    /// The host that acquired it; of a type that all registrants hold, it counts for no more than the others.
    holder: Host,
}

/// Hosts to be told of a change, each with the reason.
pub(super) type HostNotices = Vec<(Host, Notice)>;

impl Reservations {
    /// Makes the reservations of `namespaces` namespaces: none.
    pub fn new(namespaces: usize) -> Self {
        Self { spaces: vec![Space::default(); namespaces], seats: Vec::new(), version: 1 }
    }

    /// Returns a number that changes with each change that a controller may have to know of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Counts a change of something else that each controller has to know of.
    pub fn note_change(&mut self) {
        self.version += 1;
    }

    /// Returns `true` if a reservation keeps the host of a controller from some command.
    pub fn restrict(&self, controller: u16) -> bool {
        let host = self.host(controller);
        self.spaces.iter().any(|space| !space.permits(host, Access::Write))
    }

    /// Returns an error if a reservation keeps the host of a controller from an access to a namespace, or with `None` to any.
    ///
    /// # Errors
    /// Reservation Conflict.
    pub fn check(&self, controller: u16, index: Option<usize>, access: Access) -> Result<(), Status> {
        let host = self.host(controller);
        let is_good = match index {
            Some(index) => self.spaces.get(index).is_none_or(|space| space.permits(host, access)),
            None => self.spaces.iter().all(|space| space.permits(host, access)),
        };
        if is_good { Ok(()) } else { Err(CONFLICT) }
    }

    /// Forgets what a reset of a controller clears: the identifier of its host, and the registrations of a host without one.
    pub fn reset(&mut self, controller: u16) {
        self.version += 1;
        self.seats.retain(|seat| seat.controller != controller);
        self.seats.push(Seat::new(controller));
        for (index, space) in self.spaces.iter_mut().enumerate() {
            let mut notices = HostNotices::new();
            space.remove(Host::Unnamed(controller), &mut notices);
            notify_hosts(&mut self.seats, notices, index);
        }
    }

    /// Forgets what a loss of power clears.
    pub fn lose_power(&mut self) {
        self.version += 1;
        self.seats.clear();
        for space in self.spaces.iter_mut().filter(|space| !space.persists) {
            *space = Space::default();
        }
    }

    /// Forgets all of a namespace, which is deleted.
    pub fn forget(&mut self, index: usize) {
        self.version += 1;
        if let Some(space) = self.spaces.get_mut(index) {
            *space = Space::default();
        }
    }

    /// Changes a namespace's reservations, and tells the hosts that the change names.
    pub(super) fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Space, &mut HostNotices) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let space = self.spaces.get_mut(index).ok_or(Status::INTERNAL_ERROR)?;
        let mut notices = HostNotices::new();
        change(space, &mut notices)?;
        self.version += 1;
        notify_hosts(&mut self.seats, notices, index);
        Ok(())
    }
}

fn notify_hosts(seats: &mut [Seat], notices: HostNotices, index: usize) {
    for (host, notice) in notices {
        for seat in seats.iter_mut().filter(|seat| seat.host() == host) {
            seat.push(notice, index);
        }
    }
}

impl Space {
    /// Returns the type of the reservation that is held.
    pub(super) fn kind(&self) -> Option<ReservationType> {
        self.held.map(|held| held.kind)
    }

    /// Returns `true` if the host is a registrant.
    fn has(&self, host: Host) -> bool {
        self.registrants.iter().any(|registrant| registrant.host == host)
    }

    /// Returns `true` if the host holds the reservation.
    pub(super) fn is_held_by(&self, host: Host) -> bool {
        match self.held {
            Some(held) if held.kind.is_shared() => self.has(host),
            Some(held) => held.holder == host,
            None => false,
        }
    }

    /// Returns `true` if no reservation keeps the host from an access.
    fn permits(&self, host: Host, access: Access) -> bool {
        match self.held {
            None => true,
            Some(held) => {
                self.is_held_by(host)
                    || held.kind.admits_registrants() && self.has(host)
                    || access == Access::Read && !held.kind.excludes_reads()
            }
        }
    }

    /// Returns an error unless the host is a registrant with this key.
    fn check(&self, host: Host, key: Option<u64>) -> Result<(), Status> {
        let found = self.registrants.iter().find(|registrant| registrant.host == host);
        match found {
            Some(found) if key.is_none_or(|key| key == found.key) => Ok(()),
            _ => Err(CONFLICT),
        }
    }

    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn register(&mut self, host: Host, key: u64) -> Result<(), Status> {
        match self.registrants.iter().find(|registrant| registrant.host == host) {
            Some(found) if found.key != key => return Err(CONFLICT),
            Some(_) => {}
            None if self.registrants.len() >= MOST => return Err(Status::INTERNAL_ERROR),
            None => self.registrants.push(Registrant { host, key }),
        }
        self.count();
        Ok(())
    }

    /// Replaces the host's key; `current` is that which it names, unless it names none.
    pub(super) fn replace(&mut self, host: Host, current: Option<u64>, key: u64) -> Result<(), Status> {
        self.check(host, current)?;
        let mine = self.registrants.iter_mut().filter(|registrant| registrant.host == host);
        mine.for_each(|registrant| registrant.key = key);
        self.count();
        Ok(())
    }

    pub(super) fn unregister(
        &mut self,
        host: Host,
        current: Option<u64>,
        notices: &mut HostNotices,
    ) -> Result<(), Status> {
        self.check(host, current)?;
        self.remove(host, notices);
        self.count();
        Ok(())
    }

    /// Ends the registration of a host, and the reservation that it alone holds.
    fn remove(&mut self, host: Host, notices: &mut HostNotices) {
        let before = self.registrants.len();
        self.registrants.retain(|registrant| registrant.host != host);
        let Some(held) = self.held.filter(|_| self.registrants.len() != before) else { return };
        match held.kind.is_shared() {
            true if self.registrants.is_empty() => self.held = None,
            false if held.holder == host => self.give_up(host, notices),
            _ => {}
        }
    }

    /// Ends the reservation. Of a type that admits them, it tells the registrants but `host`.
    fn give_up(&mut self, host: Host, notices: &mut HostNotices) {
        if self.held.take().is_some_and(|held| held.kind.admits_registrants()) {
            self.tell_others(host, Notice::Released, notices);
        }
    }

    fn tell_others(&self, host: Host, notice: Notice, notices: &mut HostNotices) {
        let others = self.registrants.iter().filter(|registrant| registrant.host != host);
        notices.extend(others.map(|registrant| (registrant.host, notice)));
    }

    pub(super) fn acquire(&mut self, host: Host, key: u64, kind: ReservationType) -> Result<(), Status> {
        self.check(host, Some(key))?;
        match self.held {
            None => self.held = Some(Held { kind, holder: host }),
            Some(held) if self.is_held_by(host) && held.kind == kind => {}
            Some(_) => return Err(CONFLICT),
        }
        Ok(())
    }

    pub(super) fn preempt(
        &mut self,
        host: Host,
        (key, preempted): (u64, u64),
        kind: ReservationType,
        notices: &mut HostNotices,
    ) -> Result<(), Status> {
        self.check(host, Some(key))?;
        let holders_key = self.held.and_then(|held| {
            let holder = self.registrants.iter().find(|registrant| registrant.host == held.holder);
            holder.filter(|_| !held.kind.is_shared()).map(|holder| holder.key)
        });
        let takes = match self.held {
            None => false,
            // All others.
            Some(held) if held.kind.is_shared() && preempted == 0 => true,
            Some(held) if held.kind.is_shared() => false,
            Some(_) if preempted == 0 => return Err(INVALID_FIELD),
            Some(_) => holders_key == Some(preempted),
        };
        let is_meant = |registrant: &Registrant| {
            let others = self.held.is_some_and(|held| held.kind.is_shared()) && preempted == 0;
            others || registrant.key == preempted
        };
        // Its own registration ends only if it names its own key without taking over anything.
        let gone: Vec<Host> = self
            .registrants
            .iter()
            .filter(|registrant| is_meant(registrant) && !(takes && registrant.host == host))
            .map(|registrant| registrant.host)
            .collect();
        if gone.is_empty() && !takes {
            return Err(CONFLICT);
        }
        let before = self.held;
        if takes {
            self.held = Some(Held { kind, holder: host });
        }
        for other in gone {
            self.remove(other, notices);
            if other != host {
                notices.push((other, Notice::RegistrationPreempted));
            }
        }
        if takes && before.is_some_and(|held| held.kind != kind && held.kind.admits_registrants()) {
            self.tell_others(host, Notice::Released, notices);
        }
        self.count();
        Ok(())
    }

    pub(super) fn release(
        &mut self,
        host: Host,
        key: u64,
        kind: ReservationType,
        notices: &mut HostNotices,
    ) -> Result<(), Status> {
        self.check(host, Some(key))?;
        match self.held {
            Some(held) if self.is_held_by(host) => match held.kind == kind {
                true => self.give_up(host, notices),
                false => return Err(INVALID_FIELD),
            },
            // It holds none: that is no error.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn clear(&mut self, host: Host, key: u64, notices: &mut HostNotices) -> Result<(), Status> {
        self.check(host, Some(key))?;
        self.tell_others(host, Notice::ReservationPreempted, notices);
        self.registrants.clear();
        self.held = None;
        self.count();
        Ok(())
    }
}
