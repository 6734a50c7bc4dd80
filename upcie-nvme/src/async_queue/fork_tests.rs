//! Calls of a forked child, while a thread of its parent held the locks of an asynchronous queue's handles at the fork.

use super::Submission;
use crate::{Controller, Error, Failure, Result};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use upcie_core::{dma::DmaBuf, testing::in_child};

type Answer = Poll<(Result<()>, DmaBuf)>;

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_forked(error: &Error) -> bool {
    let Failure::Core(core) = error.failure() else { return false };
    matches!(core.failure(), upcie_core::Failure::Forked { .. })
}

/// Returns `true` if a command was refused, and has brought so many bytes back.
fn is_refused(answer: &Answer, bytes: usize) -> bool {
    matches!(answer, Poll::Ready((Err(error), buffer)) if is_forked(error) && buffer.len() == bytes)
}

#[test]
fn a_childs_calls_take_no_lock_of_its_parents_handles() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let queue = controller.queue_pair().depth(8).create_async().unwrap();
    let handle = queue.handle(1).unwrap();
    let remote = queue.shared.borrow().unwrap().remote.clone().unwrap();
    // The place of a driver is taken; the child has none.
    let hold = queue.hold();
    let mut sent: Submission = queue.flush(&namespace);
    let mut requested = handle.read(&namespace, 0, controller.alloc(512).unwrap());
    let mut waiting = handle.read(&namespace, 0, controller.alloc(512).unwrap());
    let mut fresh = handle.read(&namespace, 0, controller.alloc(512).unwrap());
    assert!(poll(&mut sent).is_pending() && poll(&mut requested).is_pending());
    assert!(poll(&mut waiting).is_pending(), "there is one slot");
    let mut dropped = Some((handle.flush(&namespace), handle.clone(), hold, queue.clone()));
    // By this thread: the child has no other, and a second lock by the same waits as well.
    let held = remote.hold_all_locks();
    let code = in_child(|| {
        let refused = [
            is_refused(&poll(&mut fresh), 512),
            is_refused(&poll(&mut waiting), 512),
            // Its buffer is in its slot.
            is_refused(&poll(&mut requested), 0),
            is_refused(&poll(&mut handle.flush(&namespace)), 0),
            is_refused(&poll(&mut queue.read(&namespace, 0, DmaBuf::empty())), 0),
            queue.handle(1).is_err_and(|error| is_forked(&error)),
            queue.progress().is_err_and(|error| is_forked(&error)),
            is_refused(&poll(&mut sent), 0),
        ];
        drop(dropped.take());
        refused.iter().position(|refused| !refused).map_or(0, |index| index as i32 + 1)
    });
    drop(held);
    assert_eq!(code, Some(0), "the number of a call that was not refused, or none after the deadline");

    // All of it goes on in the parent.
    let end = Instant::now() + Duration::from_secs(60);
    let finish = |future: &mut dyn FnMut() -> Answer| {
        loop {
            assert!(Instant::now() < end, "a command is lost");
            queue.progress().unwrap();
            if let Poll::Ready((result, buffer)) = future() {
                result.unwrap();
                break buffer.len();
            }
        }
    };
    assert_eq!(finish(&mut || poll(&mut sent)), 0);
    for future in [&mut requested, &mut waiting, &mut fresh] {
        assert_eq!(finish(&mut || poll(&mut *future)), 512);
    }
}
