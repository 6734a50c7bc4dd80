//! `async_queue/remote.rs`: an asynchronous queue that goes to sleep, and its handles in other threads, which bring requests,
//! wait for a slot and for the answer, and leave. A wake-up that is lost is a deadlock, which loom reports.

use crate::{
    command::{Command, Ended},
    fails, play, remote, remote_asleep_late, remote_closed_late, remote_left_silently, remote_slot_doubled,
    remote_slot_lost,
    shim::upcie_core::dma::DmaBuf,
};
use loom::{sync::Notify, thread};
use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// A thread's bell.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell(Notify::new()));
    (bell.clone(), bell.into())
}

/// Takes a slot, and sleeps until there is one.
macro_rules! slot {
    ($remote:expr, $bell:expr, $cx:expr) => {{
        let mut ticket = None;
        loop {
            match $remote.poll_slot(&mut ticket, $cx) {
                Poll::Ready(slot) => break slot,
                Poll::Pending => $bell.0.wait(),
            }
        }
    }};
}

/// Requests one command and waits for its answer, as a future of a handle does; returns true if it was served.
macro_rules! request {
    ($remote:expr) => {{
        let (bell, waker) = bell();
        let cx = Context::from_waker(&waker);
        let slot = slot!($remote, bell, &cx);
        $remote.request(slot, Command, DmaBuf, waker.clone());
        let (result, _) = loop {
            match $remote.poll_answer(slot, &cx) {
                Poll::Ready(answer) => break answer,
                Poll::Pending => bell.0.wait(),
            }
        };
        $remote.drop_handle();
        result.is_ok()
    }};
}

/// Serves the requests that are there; returns their number.
macro_rules! serve_all {
    ($remote:expr) => {{
        let mut done = 0;
        while let Some((index, command, buffer)) = $remote.take() {
            done += 1;
            let woken = $remote.deliver(index, &command, Ended::Completed, buffer);
            woken.into_iter().for_each(Waker::wake);
        }
        done
    }};
}

/// Serves requests until all handles are gone, and sleeps meanwhile; returns their number.
macro_rules! serve {
    ($remote:expr) => {{
        let (bell, waker) = bell();
        let mut done = 0;
        while $remote.has_handles() || $remote.has_requests() {
            done += serve_all!($remote);
            if $remote.sleep(&waker) && $remote.has_handles() {
                bell.0.wait();
            }
        }
        done
    }};
}

/// Some handles in threads of their own, and a queue with so many slots.
macro_rules! all_are_served {
    ($copy:ident, $handles:expr, $slots:expr) => {
        || {
            let remote: &'static $copy::Remote = Box::leak(Box::new($copy::Remote::new("model", $slots)));
            let threads: Vec<_> = (0..$handles)
                .map(|_| {
                    remote.add_handle();
                    thread::spawn(move || request!(remote))
                })
                .collect();
            assert_eq!(serve!(remote), $handles);
            for thread in threads {
                assert!(thread.join().unwrap(), "a request was refused");
            }
        }
    };
}

/// A queue is closed while a handle brings a request: the handle gets an answer.
macro_rules! a_close_answers {
    ($copy:ident) => {
        || {
            let remote: &'static $copy::Remote = Box::leak(Box::new($copy::Remote::new("model", 1)));
            remote.add_handle();
            let handle = thread::spawn(move || request!(remote));
            remote.close();
            assert!(!handle.join().unwrap(), "nobody serves a closed queue");
            assert!(!remote.has_requests());
        }
    };
}

/// A future is dropped at any moment of its command, in the queue or on the device: its slot comes back, once.
macro_rules! a_dropped_future_leaves_its_slot {
    ($copy:ident) => {
        || {
            let remote: &'static $copy::Remote = Box::leak(Box::new($copy::Remote::new("model", 1)));
            remote.add_handle();
            let handle = thread::spawn(move || {
                let (bell, waker) = bell();
                let cx = Context::from_waker(&waker);
                let slot = slot!(remote, bell, &cx);
                remote.request(slot, Command, DmaBuf, waker.clone());
                remote.abandon(slot);
                slot!(remote, bell, &cx);
                let mut ticket = None;
                let is_one = remote.poll_slot(&mut ticket, &cx).is_pending();
                ticket.into_iter().for_each(|ticket| remote.leave(ticket));
                remote.drop_handle();
                is_one
            });
            serve!(remote);
            assert!(handle.join().unwrap(), "two futures have one slot");
        }
    };
}

/// A task leaves the line for a slot while the slot comes back: the task behind it gets the slot.
macro_rules! a_task_that_leaves_passes_its_turn_on {
    ($copy:ident) => {
        || {
            let remote: &'static $copy::Remote = Box::leak(Box::new($copy::Remote::new("model", 1)));
            let (_, waker) = bell();
            let cx = Context::from_waker(&waker);
            // A future that is dropped after its request, and a queue that serves what is there.
            let give_back = move |slot, waker: &Waker| {
                remote.request(slot, Command, DmaBuf, waker.clone());
                remote.abandon(slot);
                serve_all!(remote);
            };
            let mut ticket = None;
            let Poll::Ready(slot) = remote.poll_slot(&mut ticket, &cx) else { panic!("a slot is free") };
            let hasty = thread::spawn(move || {
                let (_, waker) = bell();
                let cx = Context::from_waker(&waker);
                let mut ticket = None;
                match (remote.poll_slot(&mut ticket, &cx), ticket) {
                    (Poll::Ready(slot), _) => give_back(slot, &waker),
                    (Poll::Pending, ticket) => ticket.into_iter().for_each(|ticket| remote.leave(ticket)),
                }
            });
            let patient = thread::spawn(move || {
                let (bell, waker) = bell();
                let cx = Context::from_waker(&waker);
                slot!(remote, bell, &cx)
            });
            give_back(slot, &waker);
            hasty.join().unwrap();
            assert_eq!(patient.join().unwrap(), 0);
        }
    };
}

#[test]
fn a_request_wakes_a_queue_that_goes_to_sleep() {
    play(5, all_are_served!(remote, 1, 1));
}

#[test]
fn two_handles_share_a_slot() {
    play(1, all_are_served!(remote, 2, 1));
}

#[test]
fn a_close_answers_a_request_that_comes_meanwhile() {
    play(6, a_close_answers!(remote));
}

#[test]
fn a_dropped_future_gives_its_slot_back_once() {
    play(3, a_dropped_future_leaves_its_slot!(remote));
}

#[test]
fn a_task_that_leaves_the_line_wakes_the_next() {
    play(2, a_task_that_leaves_passes_its_turn_on!(remote));
}

#[test]
fn a_sleep_that_is_noted_late_is_found() {
    fails(3, all_are_served!(remote_asleep_late, 1, 1));
}

#[test]
fn a_request_to_a_closed_queue_that_nobody_answers_is_found() {
    fails(3, a_close_answers!(remote_closed_late));
}

#[test]
fn a_slot_that_is_lost_is_found() {
    fails(3, a_dropped_future_leaves_its_slot!(remote_slot_lost));
}

#[test]
fn a_slot_that_is_free_early_is_found() {
    fails(3, a_dropped_future_leaves_its_slot!(remote_slot_doubled));
}

#[test]
fn a_task_that_leaves_silently_is_found() {
    fails(3, a_task_that_leaves_passes_its_turn_on!(remote_left_silently));
}
