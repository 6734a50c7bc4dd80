//! `controller/subsystem.rs`, with `engine/live.rs` and `gate.rs`: a command that changes namespaces, while another thread submits
//! with a handle of before, or makes a handle.

use crate::{
    Limit,
    engine::{Epoch, Live},
    fails,
    gate::Gate,
    lock, play, subsystem, subsystem_ends_silently, subsystem_looks_once, subsystem_never_stale,
    subsystem_stale_late,
};
use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32},
    },
    thread,
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(1);

/// A controller with one namespace, which has a handle.
#[derive(Debug)]
struct Controller {
    live: Arc<Live>,
    /// The stamp of the handle.
    handle: u64,
    /// The gate of blocking calls (`Calls` in `controller/inner.rs`), and the epoch of their queue.
    calls: Gate<()>,
    queue: Arc<Epoch>,
    /// The ids of the program's queue pairs.
    pairs: Mutex<Vec<u16>>,
    /// The device's side: changed and read by one step each, in one order.
    in_flight: AtomicU32,
    is_changing: AtomicBool,
    format: AtomicU32,
}

macro_rules! members {
    ($($copy:ident),*) => {
        $(
            impl $copy::Member for Controller {
                fn name(&self) -> &str {
                    "model"
                }

                fn live(&self) -> &Arc<Live> {
                    &self.live
                }

                fn queue_pairs(&self) -> (Vec<u16>, Vec<u16>) {
                    (lock(&self.pairs).clone(), Vec::new())
                }

                // The same as in `controller/queues.rs`.
                fn wait_for_blocking_call(&self, limit: &Limit<'_>) -> bool {
                    self.calls.enter(|| limit.whole()).is_some()
                }
            }
        )*
    };
}
members!(
    subsystem,
    subsystem_never_stale,
    subsystem_stale_late,
    subsystem_looks_once,
    subsystem_ends_silently
);

impl Controller {
    fn new() -> Arc<Self> {
        let live = Arc::new(Live::new().unwrap());
        Arc::new(Self {
            handle: live.stamp(),
            queue: live.epoch(),
            live,
            calls: Gate::new(()),
            pairs: Mutex::default(),
            in_flight: AtomicU32::new(0),
            is_changing: AtomicBool::new(false),
            format: AtomicU32::new(0),
        })
    }

    /// Submits a command with the handle, as a turn does (`Queue::namespaces`). Returns `None` if the handle is stale, and `true`
    /// if the device gets the command while the namespace changes.
    fn submit(&self, queue: &Epoch) -> Option<bool> {
        // SAFETY: the epoch keeps its word.
        let stamp = unsafe { queue.stamp_ptr().as_ref() }.load(Relaxed);
        (stamp == self.handle).then(|| {
            self.in_flight.fetch_add(1, Relaxed);
            self.is_changing.fetch_or(false, Relaxed)
        })
    }

    /// Begins to change the namespace. Returns the number of commands that the device has for it.
    fn begin_change(&self) -> u32 {
        self.is_changing.swap(true, Relaxed);
        self.in_flight.fetch_add(0, Relaxed)
    }
}

/// Makes a blocking call (`namespace/blocking.rs`). Returns `true` if its command meets a change.
fn call(controller: &Controller) -> bool {
    let _pass = controller.calls.enter(|| LIMIT);
    let sent = controller.submit(&controller.queue);
    if sent.is_some() {
        controller.in_flight.fetch_sub(1, Relaxed);
    }
    sent == Some(true)
}

/// Makes a queue pair (`queue_pair/builder.rs`), and leaves a command in flight. Returns `true` if that meets a change.
fn submit_on_a_new_pair(controller: &Controller) -> bool {
    lock(&controller.pairs).push(1);
    let queue = controller.live.epoch();
    controller.submit(&queue) == Some(true)
}

/// A command that is permitted to change a namespace has it alone: the device has none of the commands that rely on the handle.
macro_rules! a_change_is_alone {
    ($copy:ident, $uses:ident) => {
        || {
            let (controller, subsystem) = (Controller::new(), Arc::<$copy::Subsystem>::default());
            subsystem.join(controller.clone());
            let user = {
                let controller = controller.clone();
                thread::spawn(move || $uses(&controller))
            };
            let limit = Limit::new(LIMIT);
            let change = subsystem.change_alone(&*controller, &limit, "Format NVM", "a format");
            let before = if change.is_ok() { controller.begin_change() } else { 0 };
            let meets = user.join().unwrap();
            drop(change);
            assert_eq!((before, meets), (0, false), "commands in flight, and one sent later");
        }
    };
}

/// A handle that is made while a namespace changes (`namespace/open.rs`) is stale, or tells of the namespace after the change.
/// `$looks`: its maker looks for changes under way.
macro_rules! a_new_handle_is_stale_or_true {
    ($copy:ident, $looks:literal) => {
        || {
            let (controller, subsystem) = (Controller::new(), Arc::<$copy::Subsystem>::default());
            subsystem.join(controller.clone());
            let looks: bool = $looks;
            let maker = {
                let (controller, subsystem) = (controller.clone(), subsystem.clone());
                thread::spawn(move || {
                    let stamp = controller.live.stamp();
                    if looks && subsystem.check_settled("model", "making a handle").is_err() {
                        return None;
                    }
                    Some((stamp, controller.format.fetch_add(0, Relaxed)))
                })
            };
            let limit = Limit::new(LIMIT);
            let change = subsystem.change_alone(&*controller, &limit, "Format NVM", "a format");
            assert!(change.is_ok(), "no queue pair exists");
            controller.format.fetch_add(1, Relaxed);
            drop(change);
            let handle = maker.join().unwrap();
            let is_good = |(stamp, format): (u64, u32)| stamp != controller.live.stamp() || format == 1;
            assert!(handle.is_none_or(is_good), "a valid handle tells of the format of before");
        }
    };
}

#[test]
fn a_change_meets_no_blocking_call() {
    play(2, a_change_is_alone!(subsystem, call));
}

#[test]
fn a_change_meets_no_new_queue_pair() {
    play(2, a_change_is_alone!(subsystem, submit_on_a_new_pair));
}

#[test]
fn a_handle_made_during_a_change_is_stale_or_true() {
    play(2, a_new_handle_is_stale_or_true!(subsystem, true));
}

#[test]
fn a_handle_that_stays_valid_is_found() {
    fails(2, a_change_is_alone!(subsystem_never_stale, call));
}

#[test]
fn a_wait_before_handles_are_stale_is_found() {
    fails(2, a_change_is_alone!(subsystem_stale_late, call));
}

#[test]
fn a_look_that_is_not_repeated_is_found() {
    fails(2, a_change_is_alone!(subsystem_looks_once, submit_on_a_new_pair));
}

#[test]
fn a_handle_of_before_that_nobody_ends_is_found() {
    fails(2, a_new_handle_is_stale_or_true!(subsystem_ends_silently, false));
}
