//! What handles in other threads share with their queue: a fixed number of slots, the bounded queue of those that hold a
//! request, and a list of tasks that wait for a slot.

use super::command::{Command, Ended, closed_before};
use crate::Result;
use crossbeam_queue::ArrayQueue;
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};
use upcie_core::dma::DmaBuf;

/// The result of a command, dwords 0 and 1 of its completion, with its buffer.
pub(super) type Answer = (Result<u64>, DmaBuf);

#[derive(Debug)]
enum Slot {
    Free,
    /// The request waits for the queue's thread.
    Requested(Command, DmaBuf, Waker),
    /// The queue has the command.
    Taken(Waker),
    /// The future was dropped.
    Abandoned,
    Done(Answer),
}

/// The slots that are free, and the tasks that wait for one, in order.
#[derive(Debug, Default)]
struct Room {
    free: Vec<u32>,
    waiting: VecDeque<(u64, Waker)>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct Remote {
    device: String,
    slots: Box<[Mutex<Slot>]>,
    requests: ArrayQueue<u32>,
    room: Mutex<Room>,
    /// The waker of the queue's driver, while it sleeps.
    driver: Mutex<Option<Waker>>,
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
    handles: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    pub(super) fn new(device: &str, capacity: u32) -> Self {
        Self {
            device: device.into(),
            slots: (0..capacity).map(|_| Mutex::new(Slot::Free)).collect(),
            requests: ArrayQueue::new(capacity as usize),
            room: Mutex::new(Room { free: (0..capacity).rev().collect(), ..Room::default() }),
            driver: Mutex::new(None),
            is_asleep: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            handles: AtomicUsize::new(0),
        }
    }

    pub(super) fn device(&self) -> &str {
        &self.device
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[cfg(test)]
    pub(super) fn hold_all_locks(&self) -> impl Sized + '_ {
        (self.slots.iter().map(lock).collect::<Vec<_>>(), lock(&self.room), lock(&self.driver))
    }

    fn slot(&self, index: u32) -> MutexGuard<'_, Slot> {
        lock(&self.slots[index as usize])
    }

    pub(super) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.rouse();
        }
    }

    /// Returns `true` if a handle, or a future of one, may still bring a request.
    pub(super) fn has_handles(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0
    }

    // The side of the queue's thread.

    /// Returns `true` if requests wait.
    #[inline]
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Takes the next request.
    pub(super) fn take(&self) -> Option<(u32, Command, DmaBuf)> {
        loop {
            let index = self.requests.pop()?;
            let mut slot = self.slot(index);
            match mem::replace(&mut *slot, Slot::Free) {
                Slot::Requested(command, buffer, waker) => {
                    *slot = Slot::Taken(waker);
                    return Some((index, command, buffer));
                }
                other => {
                    // Abandoned before the queue looked.
                    drop((slot, other));
                    self.release(index);
                }
            }
        }
    }

    /// Delivers the result of a command; returns the waker of its task.
    pub(super) fn deliver(
        &self,
        index: u32,
        command: &Command,
        ended: Ended,
        buffer: DmaBuf,
    ) -> Option<Waker> {
        let result = ended.into_result(&self.device, command, &buffer);
        let mut slot = self.slot(index);
        match mem::replace(&mut *slot, Slot::Free) {
            Slot::Taken(waker) => {
                *slot = Slot::Done((result, buffer));
                Some(waker)
            }
            other => {
                drop((slot, other, buffer));
                self.release(index);
                None
            }
        }
    }

    /// Notes the waker of the driver, which is about to sleep. Returns `false` if a request came meanwhile.
    pub(super) fn sleep(&self, waker: &Waker) -> bool {
        let mut driver = lock(&self.driver);
        if !driver.as_ref().is_some_and(|before| before.will_wake(waker)) {
            let before = driver.replace(waker.clone());
            drop((driver, before));
        }
        // All four accesses are sequentially consistent: either this thread sees the request, or the other one the sleep.
        self.is_asleep.swap(true, Ordering::SeqCst);
        self.requests.is_empty()
    }

    /// Refuses all requests from now on, and answers those that wait.
    #[cold]
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.refuse_requests();
        let waiting = mem::take(&mut lock(&self.room).waiting);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    #[cold]
    fn refuse_requests(&self) {
        while let Some((index, command, buffer)) = self.take() {
            let ended = Ended::Failed(closed_before(&self.device, &command, &buffer));
            if let Some(waker) = self.deliver(index, &command, ended, buffer) {
                waker.wake();
            }
        }
    }

    // The side of the handles.

    /// Wakes the driver if it sleeps.
    fn rouse(&self) {
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            let waker = lock(&self.driver).clone();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Takes a free slot, in the order in which tasks ask. `ticket` is the task's place in the list of those that wait.
    pub(super) fn poll_slot(&self, ticket: &mut Option<u64>, cx: &Context<'_>) -> Poll<u32> {
        let waker = cx.waker().clone();
        let mut room = lock(&self.room);
        let place = ticket.and_then(|ticket| room.waiting.iter().position(|(other, _)| *other == ticket));
        let is_next = place.unwrap_or(room.waiting.len()) == 0;
        if is_next {
            if let Some(index) = room.free.pop() {
                let left = place.and_then(|_| room.waiting.pop_front());
                *ticket = None;
                let next = room.next_waker();
                drop(room);
                drop(left);
                next.into_iter().for_each(Waker::wake);
                return Poll::Ready(index);
            }
        }
        let before = match place {
            Some(place) => Some(mem::replace(&mut room.waiting[place].1, waker)),
            None => {
                let number = *ticket.insert(room.next);
                room.next += 1;
                room.waiting.push_back((number, waker));
                None
            }
        };
        drop(room);
        drop(before);
        Poll::Pending
    }

    /// Leaves the list of tasks that wait for a slot.
    pub(super) fn leave(&self, ticket: u64) {
        let mut room = lock(&self.room);
        let place = room.waiting.iter().position(|(other, _)| *other == ticket);
        let left = place.and_then(|place| room.waiting.remove(place));
        let next = room.next_waker();
        drop(room);
        drop(left);
        next.into_iter().for_each(Waker::wake);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Makes the error of a command that was not sent, because the queue was closed.
    pub(super) fn closed(&self, command: &Command, buffer: &DmaBuf) -> crate::Error {
        closed_before(&self.device, command, buffer)
    }

    /// Requests a command, from a slot that the caller has taken.
    pub(super) fn request(&self, index: u32, command: Command, buffer: DmaBuf, waker: Waker) {
        *self.slot(index) = Slot::Requested(command, buffer, waker);
        // There are as many places as slots.
        let _ = self.requests.push(index);
        if self.is_closed() {
            self.refuse_requests();
        } else {
            self.rouse();
        }
    }

    /// Takes the answer of a slot, if it is there.
    pub(super) fn poll_answer(&self, index: u32, cx: &Context<'_>) -> Poll<Answer> {
        let fresh = cx.waker().clone();
        let mut slot = self.slot(index);
        let before = match &mut *slot {
            Slot::Requested(_, _, waker) | Slot::Taken(waker) => mem::replace(waker, fresh),
            done => {
                let done = mem::replace(done, Slot::Free);
                drop(slot);
                self.release(index);
                return match done {
                    Slot::Done(answer) => Poll::Ready(answer),
                    _ => Poll::Pending,
                };
            }
        };
        drop((slot, before));
        Poll::Pending
    }

    /// Forgets a request: the slot is free once the queue is done with the command.
    pub(super) fn abandon(&self, index: u32) {
        let mut slot = self.slot(index);
        let before = mem::replace(&mut *slot, Slot::Abandoned);
        let is_done = matches!(before, Slot::Done(_));
        if is_done {
            *slot = Slot::Free;
        }
        drop((slot, before));
        if is_done {
            self.release(index);
        }
    }

    fn release(&self, index: u32) {
        let mut room = lock(&self.room);
        room.free.push(index);
        let next = room.next_waker();
        drop(room);
        next.into_iter().for_each(Waker::wake);
    }
}

impl Room {
    /// Returns the waker of the task that waits longest, if there is a slot for it.
    fn next_waker(&self) -> Option<Waker> {
        if self.free.is_empty() { None } else { self.waiting.front().map(|(_, waker)| waker.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Extent;
    use std::{
        sync::Arc,
        task::Wake,
        thread::{self, Thread},
        time::{Duration, Instant},
    };

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn waker() -> Waker {
        Arc::new(Unpark(thread::current())).into()
    }

    /// Sleeps until the thread is woken: a sleep that nobody ends is a wake-up that was lost.
    fn park() {
        const LOST: Duration = Duration::from_secs(30);
        let start = Instant::now();
        thread::park_timeout(LOST);
        assert!(start.elapsed() < LOST, "a wake-up was lost");
    }

    /// The threads of a queue and of its handles go to sleep and wake each other in many orders.
    #[test]
    fn remote_requests_wake_a_queue_that_goes_to_sleep() {
        let (threads, requests, rounds) = (2_u64, 50, 20);
        let extent = Extent {
            stamp: 1,
            last: 0,
            nsid_high: 1 << 32,
            plain_blocks: 1,
            shift: 9,
            inverse: 1,
            max_blocks: 1,
            controller: 1,
            max_zeroes: 0,
            deallocates: false,
            optional: crate::spec::OptionalCommands::empty(),
            format: crate::protection::BlockFormat::new(512, 0, false),
            zones: crate::engine::ZoneLimits::default(),
            keys: crate::engine::KeyLimits::default(),
            fused: 0,
            copy: crate::engine::CopyLimits::NONE,
        };
        for _ in 0..rounds {
            let remote = Remote::new("test", 1);
            (0..threads).for_each(|_| remote.add_handle());
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let waker = waker();
                        let cx = Context::from_waker(&waker);
                        for _ in 0..requests {
                            let mut ticket = None;
                            let slot = loop {
                                match remote.poll_slot(&mut ticket, &cx) {
                                    Poll::Ready(slot) => break slot,
                                    Poll::Pending => park(),
                                }
                            };
                            remote.request(slot, Command::Flush { extent }, DmaBuf::empty(), waker.clone());
                            while remote.poll_answer(slot, &cx).is_pending() {
                                park();
                            }
                        }
                        remote.drop_handle();
                    });
                }
                let (waker, mut done) = (waker(), 0);
                while remote.has_handles() || remote.has_requests() {
                    while let Some((index, command, buffer)) = remote.take() {
                        done += 1;
                        let woken = remote.deliver(index, &command, Ended::Completed(Ok(0)), buffer);
                        woken.into_iter().for_each(Waker::wake);
                    }
                    if remote.sleep(&waker) && remote.has_handles() {
                        park();
                    }
                }
                assert_eq!(done, threads * requests);
            });
        }
    }
}
