//! The end of a vfio-user connection, with `gate.rs`: what its threads are told of it, and memory that was kept for it. The rest of
//! `vfio_user/client/connection.rs` is messages, so its steps are written out here.

use crate::{fails, gate::Gate, lock, play};
use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use std::{mem, time::Duration};

const LEFT: fn() -> Duration = || Duration::from_secs(1);

#[derive(Default)]
struct Connection {
    /// `State::dead`: the server has closed the connection.
    exchange: Gate<bool>,
    ended: AtomicBool,
    closed: AtomicBool,
    kept: Mutex<Vec<u32>>,
}

impl Connection {
    fn new() -> &'static Self {
        Box::leak(Box::<Self>::default())
    }

    /// Makes a request after the server has closed the connection (`Connection::request`): the first one finds that out, the others
    /// are told. `notes_inside`: the flags are set before others are told. Returns `true` if the flags say so when it fails.
    fn request(&self, notes_inside: bool) -> bool {
        let mut dead = self.exchange.enter(LEFT).expect("time is left");
        if !mem::replace(&mut *dead, true) {
            let dead = notes_inside.then_some(dead);
            self.closed.store(true, Ordering::Release);
            self.ended.store(true, Ordering::Release);
            let kept = mem::take(&mut *lock(&self.kept));
            drop(dead);
            drop(kept);
        } else {
            drop(dead);
        }
        // `is_dead`, for the memory of a request, and `is_closed_by_server`, for that of the whole device.
        self.ended.load(Ordering::Acquire) && self.closed.load(Ordering::Acquire)
    }

    /// Keeps memory that the server can reach (`Connection::keep`). `looks_inside`: with the list locked.
    fn keep(&self, looks_inside: bool) {
        let before = self.ended.load(Ordering::Acquire);
        let mut kept = lock(&self.kept);
        let is_dead = if looks_inside { self.ended.load(Ordering::Acquire) } else { before };
        if !is_dead {
            kept.push(1);
        }
    }
}

/// Plays requests of two threads: the flags tell each why it fails.
fn failed_requests_know_the_end(notes_inside: bool) {
    let connection = Connection::new();
    let other = thread::spawn(move || connection.request(notes_inside));
    let known = connection.request(notes_inside);
    assert!(other.join().unwrap() && known, "memory of a closed connection is kept");
}

/// Plays a thread that keeps memory while another finds the end of the connection: nothing is kept afterwards.
fn kept_memory_ends_with_the_connection(looks_inside: bool) {
    let connection = Connection::new();
    let other = thread::spawn(move || connection.keep(looks_inside));
    connection.request(true);
    other.join().unwrap();
    let left = lock(&connection.kept).len();
    assert_eq!(left, 0, "buffers that nobody frees");
}

#[test]
fn a_failed_request_knows_of_the_end() {
    play(5, || failed_requests_know_the_end(true));
}

#[test]
fn memory_is_kept_no_longer_than_the_connection() {
    play(5, || kept_memory_ends_with_the_connection(true));
}

#[test]
fn flags_that_are_set_late_are_found() {
    fails(4, || failed_requests_know_the_end(false));
}

#[test]
fn a_look_before_the_lock_is_found() {
    fails(4, || kept_memory_ends_with_the_connection(false));
}
