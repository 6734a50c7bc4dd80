//! `engine/live.rs`: the epochs of a controller, and the stamps of its namespace handles.

use crate::{fails, live, live_forgetful, live_relaxed, live_revived, play};
use loom::{sync::atomic::AtomicU64, thread};
use std::sync::atomic::Ordering::Relaxed;

/// A thread makes handles stale (a Format, say) while another resets the controller: the handles stay stale, and no queue of the
/// epoch that has ended takes a turn.
macro_rules! a_change_beside_a_reset_counts {
    ($copy:ident) => {
        || {
            let live: &'static $copy::Live = Box::leak(Box::new($copy::Live::new().unwrap()));
            let handle = live.stamp();
            let change = thread::spawn(move || live.restamp());
            let ended = live.end();
            ended.set_let_go();
            let next = live.begin().unwrap();
            change.join().unwrap();
            assert!(ended.is_over(), "an epoch has come back");
            assert!(!next.is_over());
            assert_ne!(live.stamp(), handle, "a stale handle is valid again");
        }
    };
}

/// A queue's thread that sees that the controller has let go of its memory sees all that the controller had written there.
macro_rules! what_was_posted_is_seen {
    ($copy:ident) => {
        || {
            let live: &'static $copy::Live = Box::leak(Box::new($copy::Live::new().unwrap()));
            let epoch = live.epoch();
            // The controller's last write, which is done once it has stopped.
            let entry: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
            let reset = thread::spawn(move || {
                let ended = live.end();
                entry.store(7, Relaxed);
                ended.set_let_go();
            });
            let seen = epoch.has_let_go().then(|| entry.load(Relaxed));
            reset.join().unwrap();
            assert!(seen.is_none_or(|entry| entry == 7), "a completion is missing");
        }
    };
}

#[test]
fn a_change_during_a_reset_counts() {
    play(6, a_change_beside_a_reset_counts!(live));
}

#[test]
fn completions_of_before_a_reset_are_seen() {
    play(6, what_was_posted_is_seen!(live));
}

#[test]
fn an_epoch_that_comes_back_is_found() {
    fails(4, a_change_beside_a_reset_counts!(live_revived));
}

#[test]
fn a_change_that_a_reset_forgets_is_found() {
    fails(4, a_change_beside_a_reset_counts!(live_forgetful));
}

#[test]
fn a_missing_release_is_found() {
    fails(4, what_was_posted_is_seen!(live_relaxed));
}
