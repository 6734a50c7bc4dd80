//! `async_queue/remote.rs`: an asynchronous queue that goes to sleep, and its handles in other threads, which bring requests,
//! wait for a slot and for the answer, and leave. A wake-up that is lost is a deadlock, which loom reports.

use crate::{
    command::{Command, Ended},
    fails, play, remote, remote_asleep_late, remote_closed_late,
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

/// Requests one command and waits for its answer, as a future of a handle does; returns true if it was served.
macro_rules! request {
    ($remote:expr) => {{
        let (bell, waker) = bell();
        let cx = Context::from_waker(&waker);
        let mut ticket = None;
        let slot = loop {
            match $remote.poll_slot(&mut ticket, &cx) {
                Poll::Ready(slot) => break slot,
                Poll::Pending => bell.0.wait(),
            }
        };
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

/// Serves requests until all handles are gone, and sleeps meanwhile; returns their number.
macro_rules! serve {
    ($remote:expr) => {{
        let (bell, waker) = bell();
        let mut done = 0;
        while $remote.has_handles() || $remote.has_requests() {
            while let Some((index, command, buffer)) = $remote.take() {
                done += 1;
                let woken = $remote.deliver(index, &command, Ended::Completed, buffer);
                woken.into_iter().for_each(Waker::wake);
            }
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
fn a_sleep_that_is_noted_late_is_found() {
    fails(3, all_are_served!(remote_asleep_late, 1, 1));
}

#[test]
fn a_request_to_a_closed_queue_that_nobody_answers_is_found() {
    fails(3, a_close_answers!(remote_closed_late));
}
