//! Deadlines of commands in flight, without a clock on the I/O path.
//!
//! A command's time begins at the first look after its submission, which notes the time and marks the command's slot. The
//! mark is a bit of the word that the next completion and the next submission overwrite anyway: it tells whether the
//! command is still the same one.

use super::{
    Io, Refused, Turn,
    ring::Queue,
    slot::{FREE_MASK, SQE_WORDS, Slot},
    timer::{MARK, Stage, Timer},
};
use std::time::Duration;
use upcie_core::dma::DmaBuf;

/// A command that has missed its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// Index of the command's slot.
    pub(crate) index: usize,
    /// Command id (CID).
    pub(crate) id: u16,
    pub(crate) limit: Duration,
    /// The time since it was first seen.
    pub(crate) age: Duration,
}

impl<T> Queue<T> {
    /// Returns `true` if commands have deadlines.
    pub(crate) fn is_timed(&self) -> bool {
        self.timed
    }

    /// Begins to measure the commands that were submitted since the last look, with the deadline `limit` for those that
    /// have none of their own. Returns the commands that have missed their deadlines since then, at most `most`.
    pub(crate) fn look_for_overdue(
        &mut self,
        now: Duration,
        limit: Option<Duration>,
        most: usize,
    ) -> Vec<Overdue> {
        let mut found = Vec::new();
        for index in 0..self.end_of_free as usize {
            let (word, timer) = (&mut self.slots_mut()[index].word, index);
            let (is_free, is_marked, id) = (*word & FREE_MASK != 0, *word & MARK != 0, *word as u16);
            match limit {
                _ if is_free => continue,
                Some(limit) if !is_marked => {
                    *word |= MARK;
                    self.timers[timer] = Timer::new(limit);
                    self.timers[timer].begin(now);
                    continue;
                }
                None if !is_marked => continue,
                _ => {}
            }
            let timer = &mut self.timers[timer];
            timer.begin(now);
            let (age, limit) = (timer.age(now), timer.limit());
            if timer.stage == Stage::InTime && age >= limit && found.len() < most {
                timer.stage = Stage::Overdue;
                found.push(Overdue { index, id, limit, age });
            }
        }
        found
    }

    /// Returns `true` while `command` is in flight.
    pub(crate) fn is_in_flight(&mut self, command: &Overdue) -> bool {
        let word = self.slots_mut()[command.index].word;
        word & (FREE_MASK | MARK) == MARK && word as u16 == command.id
    }

    /// Returns the tags of the commands in flight that have missed their deadlines, and the time since they were first
    /// seen.
    pub(crate) fn overdue(&self, now: Duration) -> impl Iterator<Item = (&T, Duration)> {
        self.slots().iter().zip(&self.timers).filter_map(move |(slot, timer)| {
            let is_late = slot.word & (FREE_MASK | MARK) == MARK && timer.stage == Stage::Overdue;
            if !is_late || !timer.has_begun() {
                return None;
            }
            // SAFETY: a slot that is not free was filled when it was taken; no turn is open while the queue is borrowed.
            Some((unsafe { slot.tag.assume_init_ref() }, timer.age(now)))
        })
    }
}

impl<T> Turn<'_, T> {
    /// Submits `io` like [`submit`](Self::submit), with a deadline of its own: `limit` after the first look at the queue that
    /// follows ([`command_timeout`](crate::queue::QueuePairBuilder::command_timeout) says when). The queue's
    /// [`on_timeout`](crate::queue::QueuePairBuilder::on_timeout) says what happens then.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use upcie_nvme::{Controller, Io, Wait};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let (read, buffer) = (Io::read(&namespace, 0), controller.alloc(4096)?);
    /// queue.turn()?.submit_within(read, buffer, 7, Duration::from_secs(2))?;
    /// assert!(queue.wait(Wait::Poll, Duration::from_secs(10))?);
    /// # queue.turn()?.next().unwrap().into_parts().1?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// For other commands: [`limit_last`](Self::limit_last).
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit).
    #[inline]
    pub fn submit_within(
        &mut self,
        io: Io<'_>,
        buffer: DmaBuf,
        tag: T,
        limit: Duration,
    ) -> Result<(), Refused<T>> {
        let index = self.next_slot();
        self.submit(io, buffer, tag)?;
        set_limit(self.queue, index, limit);
        Ok(())
    }

    /// Gives the command that was submitted last, of any kind, a deadline of its own, as [`submit_within`](Self::submit_within) does
    /// for a transfer; of a fused operation the second command. Does nothing if the command was reaped since. Reads its entry in the
    /// submission queue, which takes long where that is in the
    /// [controller](crate::queue::QueuePairBuilder::submission_in_controller).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use upcie_nvme::{Controller, Wait};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let mut turn = queue.turn()?;
    /// turn.flush(&namespace, 7)?;
    /// turn.limit_last(Duration::from_secs(2));
    /// drop(turn);
    /// assert!(queue.wait(Wait::Poll, Duration::from_secs(10))?);
    /// # queue.turn()?.next().unwrap().into_parts().1?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn limit_last(&mut self, limit: Duration) {
        limit_before(self.queue, self.sqe, limit);
    }
}

/// Gives the command whose entry is before `sqe`, the next one, a deadline, if it is in flight.
#[inline(never)]
fn limit_before<T>(queue: &mut Queue<T>, sqe: *mut u64, limit: Duration) {
    let end = if sqe == queue.sq { queue.sq_end } else { sqe };
    // SAFETY: an entry of the ring: `end` is behind the first one at least.
    let last = unsafe { end.sub(SQE_WORDS) };
    // SAFETY: aligned, in memory that the queue owns. The device may write it: one volatile read, whose value is checked.
    let id = (unsafe { last.read_volatile() } >> 16) as u16;
    let index = u32::from(id) & queue.mask;
    let word = queue.slots()[index as usize].word;
    if word & FREE_MASK == 0 && word as u16 == id {
        set_limit(queue, index, limit);
    }
}

/// Gives the command in the slot `index`, which was just submitted, a deadline.
fn set_limit<T>(queue: &mut Queue<T>, index: u32, limit: Duration) {
    queue.set_timed();
    queue.timers[index as usize] = Timer::new(limit);
    // SAFETY: the slot was just filled, so it is one of the queue's.
    let slot: *mut Slot<T> = unsafe { queue.slots.add(index as usize) };
    // SAFETY: it is valid, and the turn, which is the caller's, holds no reference to a slot between two calls.
    let slot = unsafe { &mut *slot };
    slot.word |= MARK;
}
