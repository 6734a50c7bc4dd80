//! NVM subsystems of several controllers: the state that the controllers share.
//!
//! Each controller is a machine of its own, on a thread of its own. What they share is lent to the one that is being served,
//! and taken back when it pauses. So a round of commands is one step for the other controllers, and no machine knows of them.
//!
//! No machine may wait for its host meanwhile: the hosts of the other controllers would wait, too. So their servers refuse
//! memory that is reached by messages ([`Layout::mapped_memory_only`](upcie_core::vfio_user::server::Layout)).

use super::{
    Machine, Storage,
    boot::BootPartitions,
    erasure::Erasure,
    key_value::Keys,
    marks::Marks,
    namespace::Namespace,
    placement::Placement,
    reservations::Reservations,
    state::Core,
    turns::{Turn, Turns},
    virtualization::Virtualization,
    zones::Zones,
};
use std::{
    collections::VecDeque,
    mem::swap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The state that the controllers of an NVM subsystem share: the namespaces with all that commands store in them, the endurance
/// group's flexible data placement, the boot partitions, the flexible resources of a primary controller.
#[derive(Debug)]
struct Shared {
    media: Storage,
    namespaces: Vec<Namespace>,
    marks: Marks,
    erasures: VecDeque<Erasure>,
    zones: Vec<Option<Zones>>,
    keys: Vec<Option<Keys>>,
    placement: Option<Box<Placement>>,
    reservations: Reservations,
    boot: Option<BootPartitions>,
    virtualization: Option<Box<Virtualization>>,
}

impl Shared {
    fn swap(&mut self, core: &mut Core<Storage>) {
        let io = &mut core.io;
        swap(&mut self.media, &mut io.media);
        swap(&mut self.namespaces, &mut io.namespaces);
        swap(&mut self.marks, &mut io.marks);
        swap(&mut self.erasures, &mut io.erasures);
        swap(&mut self.zones, &mut io.zones);
        swap(&mut self.keys, &mut io.keys);
        swap(&mut self.placement, &mut io.placement);
        swap(&mut self.reservations, &mut io.reservations);
        swap(&mut self.boot, &mut core.firmware.boot);
        swap(&mut self.virtualization, &mut core.virtualization);
    }
}

/// The shared state, which one controller has at a time.
#[derive(Debug)]
struct Exchange {
    turns: Turns,
    /// Locked in turns only, so that it is free then.
    shared: Mutex<Shared>,
}

/// A controller's end of the state that it shares.
#[derive(Debug)]
pub(super) struct Subsystem {
    exchange: Arc<Exchange>,
    /// The reservations that the machine was told of.
    seen: u64,
}

impl Subsystem {
    /// Takes the state to be shared from the first controller.
    pub fn of(machine: &mut Machine) -> Self {
        let mut shared = Shared {
            media: Storage::nothing(),
            namespaces: Vec::new(),
            marks: Marks::default(),
            erasures: VecDeque::new(),
            zones: Vec::new(),
            keys: Vec::new(),
            placement: None,
            reservations: Reservations::new(0),
            boot: None,
            virtualization: None,
        };
        shared.swap(&mut machine.core);
        let exchange = Exchange { turns: Turns::default(), shared: Mutex::new(shared) };
        Self { exchange: Arc::new(exchange), seen: 0 }
    }

    /// Returns the end of another controller.
    pub fn another(&self) -> Self {
        Self { exchange: self.exchange.clone(), seen: 0 }
    }

    /// Calls `call` with a machine that has the shared state meanwhile. The call must be short: others wait for its end.
    #[inline]
    pub fn lend<R>(&mut self, machine: &mut Machine, call: impl FnOnce(&mut Machine) -> R) -> R {
        let turn = self.exchange.turns.wait();
        // A machine that has panicked gave everything back.
        let shared = self.exchange.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = SharedStateGuard::new(machine, shared, turn);
        guard.machine.follow_primary();
        let core = &mut guard.machine.core;
        if core.io.reservations.version() != self.seen {
            self.seen = core.io.reservations.version();
            core.io.note_reservations();
            core.tell_reservations();
        }
        call(&mut *guard.machine)
    }
}

/// A machine that has the shared state, until it is dropped.
struct SharedStateGuard<'a> {
    machine: &'a mut Machine,
    shared: MutexGuard<'a, Shared>,
    /// Declared last, so that it ends once the state is unlocked.
    _turn: Turn<'a>,
}

impl<'a> SharedStateGuard<'a> {
    fn new(machine: &'a mut Machine, mut shared: MutexGuard<'a, Shared>, turn: Turn<'a>) -> Self {
        shared.swap(&mut machine.core);
        Self { machine, shared, _turn: turn }
    }
}

impl Drop for SharedStateGuard<'_> {
    fn drop(&mut self) {
        self.shared.swap(&mut self.machine.core);
    }
}
