//! A queue's memory and state: rings, slots, cursors.

use super::{
    Epoch, ListPool, Live,
    slot::{Cursor, FREE, FREE_MASK, SQE_WORDS, Slot},
    timer::Timer,
};
use crate::Result;
use std::{
    fmt,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use upcie_core::{dma::DmaBuf, mmio::Register};

/// Words of 8 bytes in a completion entry.
pub(super) const CQE_WORDS: usize = 2;

/// The condition that decides whether a turn can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// [`EMPTY_TURNS`] turns in a row had neither a completion nor a submission, or commands have deadlines and about as
    /// many were completed: the next one asks its caller first ([`Queue::turn_or_look`]).
    Quiet,
    /// The device completed a command that was not in flight.
    Forged,
    /// A wait found that the controller reports a fatal status, was removed, was stopped by somebody else, or
    /// can't be read.
    Fatal,
    Gone,
    Disabled,
    Lost,
}

/// Turns without a completion or a submission before a queue is [`State::Quiet`]. Reading the clock once in
/// 1,024 turns adds less than 1 % to them.
pub(super) const EMPTY_TURNS: u32 = 1024;

/// The stamp of an epoch that is over, for turns that end the slow way.
static OVER: AtomicU64 = AtomicU64::new(0);

/// The id of no address space.
const NO_SPACE: u64 = u64::MAX;

/// The phase tag's bit in dword 3 of a completion entry.
pub(super) const PHASE: u32 = 1 << 16;

/// The parts that a queue is made of. Both rings have `entries` entries, zeroed.
pub(crate) struct Parts {
    pub(crate) name: Arc<str>,
    pub(crate) qid: u16,
    pub(crate) entries: u32,
    pub(crate) sq: DmaBuf,
    /// The processor combines stores to `sq`; they are flushed before its doorbell.
    pub(crate) sq_combining: bool,
    pub(crate) cq: DmaBuf,
    pub(crate) sq_doorbell: Register<u32>,
    pub(crate) cq_doorbell: Register<u32>,
    pub(crate) lists: ListPool,
    pub(crate) live: Arc<Live>,
}

/// A submission and completion queue, without the commands that create and delete it on the controller.
// One struct for all: a turn reads the rings, the positions, the slots and the limits for each command. Its methods are in a
// file for each step: making, turns, deadlines, the end.
pub(crate) struct Queue<T> {
    pub(super) at: Cursor,
    /// The next completion entry.
    pub(super) cqe: *const u64,
    /// Reap limit: the entry after those of all commands whose doorbell has been rung, counted from `cqe`. Equals the
    /// turn's next entry after a forged completion.
    pub(super) reap_limit: *const u64,
    /// The rings: pointers to their first entries, and past their last.
    pub(super) sq: *mut u64,
    pub(super) sq_end: *mut u64,
    pub(super) cq: *const u64,
    pub(super) cq_end: *const u64,
    /// [`PHASE`] or 0: the phase bit of a new completion entry.
    pub(super) phase: u32,
    /// A box of `mask + 1` slots, freed on drop. Kept as a pointer: a box in this struct would claim unique
    /// access to the slots whenever the queue is moved.
    pub(super) slots: *mut Slot<T>,
    /// The end of the list of free slots, and the number of slots: one less than each ring has entries. So
    /// the rings have room for every command that has a slot, and a queue with an empty list is full.
    pub(super) end_of_free: u32,
    /// Masks an id to an index of `slots`, which is padded to this.
    pub(super) mask: u32,
    /// [`FREE`] and the difference between a slot's ids from one use to the next.
    pub(super) step: u32,
    pub(super) state: State,
    /// 0 if the next turn opens without further ado. [`CLOSED`](super::common::CLOSED) in any other state than
    /// [`State::Ready`], and while a turn is open, or after one was leaked: then the queue takes no more turns.
    pub(super) guard: u64,
    /// Turns without a completion or a submission since the queue was last [`State::Quiet`].
    pub(super) empty_turns: u32,
    /// Completions of whole laps since the last look for late commands.
    pub(super) lapped: u32,
    /// Commands have deadlines.
    pub(super) timed: bool,
    /// One for each slot.
    pub(super) timers: Box<[Timer]>,
    pub(super) sq_combining: bool,
    /// The address space of buffers on the fast path: [`NO_SPACE`] if no command may take it.
    pub(super) space: u64,
    pub(super) sq_doorbell: Register<u32>,
    pub(super) cq_doorbell: Register<u32>,
    pub(super) lists: ListPool,
    pub(super) live: Arc<Live>,
    /// The epoch of the controller in which it created the queue, and its stamp: 0 once the controller was stopped or
    /// reset, and in a forked child.
    epoch: Arc<Epoch>,
    stamp: NonNull<AtomicU64>,
    /// The value of `stamp` from a wrap of the completion queue to the end of its turn.
    lap_stamp: NonNull<AtomicU64>,
    pub(super) name: Arc<str>,
    pub(super) qid: u16,
    pub(super) rings: (DmaBuf, DmaBuf),
    /// Shift from the number of a free slot to its name in the free list: 0, or for a lane that to its place in bytes.
    pub(super) link: u32,
}

// SAFETY: all pointers are into memory that the queue owns (`slots`, `rings`) or keeps (`epoch`), or to a static; tags move with it.
unsafe impl<T: Send> Send for Queue<T> {}

impl<T> Queue<T> {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, qid, entries, sq, sq_combining, cq, sq_doorbell, cq_doorbell, lists, live } = parts;
        assert!((2..=65536).contains(&entries), "a queue has 2 to 65536 entries");
        assert!(
            sq.len() >= entries as usize * 64 && cq.len() >= entries as usize * 16,
            "rings hold the entries"
        );
        // One entry of a ring always stays empty, so the highest index of a slot is `entries - 2`. The mask is at
        // least `entries - 1`, so no id has all bits of the index set: FFFFh, which is reserved, can't arise.
        // Slots that pad to it are never on the free list.
        let padded = entries.next_power_of_two();
        let word = |i: u32| u64::from(FREE | i) | u64::from(i + 1) << 32;
        let storage: Box<[Slot<T>]> = (0..padded)
            .map(|i| Slot { buffer: MaybeUninit::uninit(), word: word(i), tag: MaybeUninit::uninit() })
            .collect();
        let (first_sqe, first_cqe) = (sq.as_ptr().cast::<u64>(), cq.as_ptr().cast::<u64>());
        let epoch = live.epoch();
        Self {
            at: Cursor { sqe: first_sqe, top: 0 },
            cqe: first_cqe,
            reap_limit: first_cqe,
            sq: first_sqe,
            // SAFETY: the memory was checked to hold all submission entries.
            sq_end: unsafe { first_sqe.add(entries as usize * SQE_WORDS) },
            cq: first_cqe,
            // SAFETY: the memory was checked to hold all completion entries.
            cq_end: unsafe { first_cqe.add(entries as usize * CQE_WORDS) },
            phase: PHASE,
            slots: Box::into_raw(storage).cast(),
            end_of_free: entries - 1,
            mask: padded - 1,
            step: FREE + (padded & 0xffff),
            state: State::Ready,
            guard: 0,
            empty_turns: 0,
            lapped: 0,
            timed: false,
            timers: vec![Timer::default(); padded as usize].into(),
            sq_combining,
            space: if lists.shape().plain_bytes == 0 { NO_SPACE } else { lists.space() },
            sq_doorbell,
            cq_doorbell,
            lists,
            stamp: epoch.stamp_ptr(),
            lap_stamp: epoch.stamp_ptr(),
            epoch,
            live,
            name,
            qid,
            rings: (sq, cq),
            link: 0,
        }
    }

    #[inline(always)]
    pub(super) fn namespaces(&self) -> u64 {
        // SAFETY: the word of `epoch`, which the queue keeps, or a static.
        unsafe { self.stamp.as_ref() }.load(Ordering::Relaxed)
    }

    /// Decides whether to open a turn if the queue is quiet or closed. The error is boxed for the reason
    /// given at [`why_closed`](Self::why_closed).
    #[cold]
    #[inline(never)]
    pub(super) fn reopen(&mut self, look: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.state != State::Quiet || self.is_over() {
            return Err(self.why_closed());
        }
        (self.state, self.guard) = (State::Ready, 0);
        look(self).inspect_err(|error| self.fail(error))
    }

    /// Returns `true` if commands whose doorbell was rung are not reaped yet.
    pub(crate) fn has_in_flight(&self) -> bool {
        self.cqe != self.reap_limit
    }

    /// Returns `true` if no slot is left at these cursors of a turn.
    pub(super) fn is_out(&self, at: Cursor) -> bool {
        at.top == self.end_of_free
    }

    /// Returns the number of commands that can be in flight at once.
    pub(crate) fn capacity(&self) -> u32 {
        self.end_of_free
    }

    /// Returns `true` if the state permits turns; the epoch may be over.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Quiet || self.state == State::Ready && self.guard == 0
    }

    /// Returns how many more commands the queue takes; 0 when it is closed.
    pub(crate) fn room(&self) -> u32 {
        if !self.is_open() {
            return 0;
        }
        let entries = self.end_of_free + 1;
        self.end_of_free - (self.tail() + entries - self.head().0) % entries
    }

    /// Commands in flight, counted by the slots: true even after a leaked turn.
    pub(crate) fn in_flight(&self) -> u32 {
        self.slots().iter().filter(|slot| slot.word & FREE_MASK == 0).count() as u32
    }

    /// The next completion entry, for a test that plays the device.
    #[cfg(test)]
    pub(crate) fn next_entry(&self) -> *mut u64 {
        self.cqe.cast_mut()
    }

    pub(super) fn slots(&self) -> &[Slot<T>] {
        // SAFETY: the queue's own, made with this length; no turn refers to them while the queue is borrowed.
        unsafe { std::slice::from_raw_parts(self.slots, self.mask as usize + 1) }
    }

    pub(super) fn slots_mut(&mut self) -> &mut [Slot<T>] {
        // SAFETY: the queue's own slots, made with this length; the queue is borrowed mutably, and no turn is open.
        unsafe { std::slice::from_raw_parts_mut(self.slots, self.mask as usize + 1) }
    }

    /// Returns `true` if a completion can be reaped.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        // SAFETY: dword 3 of an entry of the ring.
        let dword3 = unsafe { self.cqe.cast::<u32>().add(3) };
        // SAFETY: aligned, and the ring lives as long as `self`.
        (unsafe { dword3.read_volatile() }) & PHASE == self.phase
    }

    /// A number that changes with each completion that is reaped.
    #[cold]
    pub(crate) fn completion_cursor(&self) -> usize {
        self.cqe.addr() | usize::from(self.phase != 0)
    }

    /// Returns the index of the next submission entry.
    pub(super) fn tail(&self) -> u32 {
        ((self.at.sqe.addr() - self.sq.addr()) / (SQE_WORDS * size_of::<u64>())) as u32
    }

    /// The index of the next completion entry, and how many entries there are.
    pub(crate) fn head(&self) -> (u32, u32) {
        let entries = |bytes: usize| (bytes / (CQE_WORDS * size_of::<u64>())) as u32;
        (entries(self.cqe.addr() - self.cq.addr()), entries(self.cq_end.addr() - self.cq.addr()))
    }

    pub(crate) fn qid(&self) -> u16 {
        self.qid
    }

    /// Refuses a wait for completions that can't come: the controller was stopped, or belongs to another
    /// process.
    pub(crate) fn check_live(&self) -> Result<()> {
        if self.is_over() || !self.is_open() { Err(self.why_closed()) } else { Ok(()) }
    }

    /// Returns `true` if the controller was stopped or reset since it created the queue, or belongs to another
    /// process.
    pub(crate) fn is_over(&self) -> bool {
        self.epoch.is_over()
    }

    pub(crate) fn epoch(&self) -> &Arc<Epoch> {
        &self.epoch
    }

    /// Returns the stamp of the epoch, also while it is [diverted](Self::divert).
    #[cold]
    pub(super) fn epoch_stamp(&self) -> u64 {
        self.epoch.stamp()
    }

    /// Sends the end of the turn in which the completion queue wrapped the slow way, if commands have deadlines.
    #[inline(always)]
    pub(super) fn end_lap(&mut self) {
        self.stamp = self.lap_stamp;
    }

    /// Looks for late commands from now on, also by turns in which the completion queue wraps.
    pub(crate) fn set_timed(&mut self) {
        self.timed = true;
        self.watch_laps();
    }

    /// Counts the laps of the completion queue, until a reset unless commands have deadlines: after some 1,024 completions the next
    /// turn asks its caller ([`turn_or_look`](Self::turn_or_look)).
    pub(crate) fn watch_laps(&mut self) {
        self.lap_stamp = NonNull::from(&OVER);
    }

    /// Lets the open turn end as if the epoch were over; [`count_lap`](Self::count_lap) ends that.
    #[inline(always)]
    pub(super) fn divert(&mut self) {
        self.stamp = NonNull::from(&OVER);
    }

    /// Ends a turn the slow way. Returns `true` if it is time to look for late commands.
    pub(super) fn count_lap(&mut self) -> bool {
        if self.stamp == self.epoch.stamp_ptr() {
            return false;
        }
        self.stamp = self.epoch.stamp_ptr();
        self.lapped += self.end_of_free + 1;
        let is_due = self.lapped >= EMPTY_TURNS;
        if is_due {
            self.lapped = 0;
        }
        is_due
    }

    pub(super) fn set_epoch(&mut self, epoch: Arc<Epoch>) {
        self.stamp = epoch.stamp_ptr();
        if !self.timed {
            self.lap_stamp = self.stamp;
        }
        self.epoch = epoch;
    }

    /// Returns the device addresses of the submission and completion ring.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        (self.rings.0.iova(0), self.rings.1.iova(0))
    }

    /// Fills both rings with zeros.
    pub(super) fn clear_rings(&mut self) {
        self.rings.0.fill(0);
        self.rings.1.fill(0);
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("device", &self.name)
            .field("qid", &self.qid)
            .field("entries", &(self.end_of_free + 1))
            .field("at", &self.at)
            .field("cqe", &self.cqe)
            .finish_non_exhaustive()
    }
}
