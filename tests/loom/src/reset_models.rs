//! `controller/resets.rs` and `controller/queue_ids.rs`, with `engine/live.rs` and `gate.rs`: what other threads do while one resets
//! the controller. The steps of `controller/inner.rs` and its files, which need a device, are written out here; each names the
//! function that takes them.

use crate::{
    engine::{Epoch, Live},
    fails,
    gate::Gate,
    lock, play,
    queue_ids::{QueueIds, Step, Ticket},
    resets::Resets,
    spec::Status,
};
use loom::{sync::Mutex, thread};
use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

const LEFT: fn() -> Duration = || Duration::from_secs(1);

/// A controller. The device's side is std's: a register, or what a command finds, is the same for all threads.
struct Controller {
    live: Live,
    resets: Resets,
    ids: QueueIds,
    /// The admin queue (`Admin::rings`), by its epoch.
    rings: Gate<Arc<Epoch>>,
    /// The number of buffers that are kept (`HostMemory::retired`).
    retired: Mutex<u32>,
    /// Memory is lent for sure (`LentMemory::confirmed`).
    lent: Mutex<bool>,
    /// CSTS.RDY.
    is_ready: AtomicBool,
    /// The device has lent memory.
    has_lent: AtomicBool,
    /// The queue pairs that the device knows.
    known: std::sync::Mutex<Vec<Ticket>>,
}

impl Controller {
    fn new(is_ready: bool) -> &'static Self {
        let (live, mut ids) = (Live::new().unwrap(), QueueIds::default());
        ids.grant(1);
        Box::leak(Box::new(Self {
            rings: Gate::new(live.epoch()),
            live,
            resets: Resets::default(),
            ids,
            retired: Mutex::new(1),
            lent: Mutex::new(false),
            is_ready: AtomicBool::new(is_ready),
            has_lent: AtomicBool::new(false),
            known: std::sync::Mutex::default(),
        }))
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    fn knows(&self, ticket: Ticket) -> bool {
        self.known.lock().unwrap().contains(&ticket)
    }

    /// Resets the controller (`Inner::reset`, `stop_and_start`, `stop_epoch`, `restore_host_buffer`).
    fn reset(&self) {
        let seen = self.resets.count();
        let _pass = self.resets.gate.enter(LEFT);
        if self.resets.count() != seen {
            return;
        }
        let _resetting = self.resets.begin();
        self.live.end();
        {
            let mut rings = self.rings.enter(LEFT).expect("time is left");
            let epoch = self.live.end();
            self.is_ready.store(false, Relaxed);
            self.has_lent.store(false, Relaxed);
            self.known.lock().unwrap().clear();
            epoch.set_let_go();
            *lock(&self.retired) = 0;
            drop(self.ids.forget_moving());
            self.is_ready.store(true, Relaxed);
            *rings = self.live.begin().unwrap();
        }
        if *lock(&self.lent) {
            self.has_lent.store(true, Relaxed);
        }
    }

    /// Looks at the controller, and frees what is kept if it has stopped (`Inner::check_alive`, `release`). Returns `true` if it
    /// uses the freed memory.
    fn look(&self, repeats: bool, holds_rings: bool) -> bool {
        let resets = self.resets.count();
        if self.is_ready() || self.resets.count() != resets || self.resets.is_elsewhere() {
            return false;
        }
        let Some(rings) = self.rings.enter(|| Duration::ZERO) else { return false };
        let _held = holds_rings.then_some(rings);
        if repeats && (self.resets.count() != resets || self.is_ready()) {
            return false;
        }
        let freed = mem::take(&mut *lock(&self.retired));
        freed > 0 && self.is_ready()
    }

    /// Creates a queue pair (`create` in `controller/queues.rs`, with one command for both rings). `looks`: the admin queue's user
    /// looks whether a reset has ended the creation (`Inner::send`). Returns the queue's epoch; `None` if its rings were freed.
    fn create(&self, looks: bool) -> (Ticket, Option<Arc<Epoch>>) {
        let (_, ticket) = self.ids.take("model").expect("an id is free");
        let epoch = self.live.epoch();
        if epoch.is_over() {
            self.ids.give_back(ticket);
            return (ticket, None);
        }
        self.ids.sending(ticket, Step::CreateCq);
        let rings = self.rings.enter(LEFT).expect("time is left");
        let is_lost = rings.is_over() || looks && self.ids.is_gone(ticket);
        let is_sent = !is_lost;
        if is_sent {
            self.known.lock().unwrap().push(ticket);
        }
        drop(rings);
        if !is_sent {
            self.ids.answered(ticket, Err(Status::INVALID_QUEUE_ID));
            return (ticket, None);
        }
        self.ids.settled(ticket);
        let is_created = self.ids.created(ticket);
        (ticket, is_created.then_some(epoch))
    }

    /// Lends the controller memory (`Controller::lend_host_memory`). `counts_late`: resets are counted with the note of the memory in
    /// hand.
    fn lend(&self, counts_late: bool) {
        loop {
            let resets = self.resets.count();
            self.send_lending();
            let before = self.resets.count();
            let mut lent = lock(&self.lent);
            let now = if counts_late { self.resets.count() } else { before };
            if now == resets {
                *lent = true;
                return;
            }
            drop(lent);
            self.has_lent.store(false, Relaxed);
        }
    }

    /// Sends the command that lends, once no other thread resets the controller (`Inner::send`).
    fn send_lending(&self) {
        loop {
            let rings = self.rings.enter(LEFT).expect("time is left");
            if !self.resets.is_elsewhere() {
                self.has_lent.store(true, Relaxed);
                return;
            }
            drop(rings);
            thread::yield_now();
        }
    }
}

/// Plays a controller that something else has stopped. One thread finds that out, and frees what was kept for it; another resets
/// the controller, and leaves memory to the new epoch: that is not freed.
fn memory_of_the_new_epoch_is_kept(repeats: bool, holds_rings: bool) {
    let controller = Controller::new(false);
    let other = thread::spawn(move || {
        controller.reset();
        *lock(&controller.retired) += 1;
    });
    let is_used = controller.look(repeats, holds_rings);
    other.join().unwrap();
    assert!(!is_used, "memory that the controller uses is freed");
}

/// Plays the creation of a queue pair beside a reset: a queue pair whose rings are freed is unknown to the controller, and one that
/// works is known.
fn a_creation_and_a_reset_agree(looks: bool) {
    let controller = Controller::new(true);
    let other = thread::spawn(move || controller.reset());
    let (ticket, epoch) = controller.create(looks);
    other.join().unwrap();
    let is_known = controller.knows(ticket);
    match epoch {
        Some(epoch) => assert!(is_known || epoch.is_over(), "a queue pair that the controller does not know"),
        None => assert!(!is_known, "the controller has rings that were freed"),
    }
}

/// Plays a loan of memory beside a reset: once both are done, the controller has the memory.
fn lent_memory_survives_a_reset(counts_late: bool) {
    let controller = Controller::new(true);
    let other = thread::spawn(move || controller.reset());
    controller.lend(counts_late);
    other.join().unwrap();
    assert!(controller.has_lent.load(Relaxed), "nobody lends it again");
}

#[test]
fn memory_is_released_with_the_admin_queue() {
    play(3, || memory_of_the_new_epoch_is_kept(true, true));
}

#[test]
fn a_reset_ends_a_creation_or_its_epoch() {
    play(3, || a_creation_and_a_reset_agree(true));
}

#[test]
fn a_reset_lends_memory_again() {
    play(2, || lent_memory_survives_a_reset(true));
}

#[test]
fn a_look_that_is_not_repeated_is_found() {
    fails(3, || memory_of_the_new_epoch_is_kept(false, true));
}

#[test]
fn a_release_without_the_admin_queue_is_found() {
    fails(3, || memory_of_the_new_epoch_is_kept(true, false));
}

#[test]
fn a_creation_that_goes_on_after_a_reset_is_found() {
    fails(3, || a_creation_and_a_reset_agree(false));
}

#[test]
fn a_reset_that_is_counted_early_is_found() {
    fails(2, || lent_memory_survives_a_reset(false));
}
