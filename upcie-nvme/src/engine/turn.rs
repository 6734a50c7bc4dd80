//! Reap and submit in one pass.

use super::{
    Completion, Extent, Io, ListPool, Refusal, Refused,
    common::{CLOSED, cold, first_words},
    fill::fill_slot,
    ring::{CQE_WORDS, PHASE, Queue, State},
    slot::{Cursor, SQE_WORDS, Slot},
    slow::submit_slowly,
    turn_end::{end, index, publish},
};
use crate::Result;
use std::fmt;
use upcie_core::{barrier::dma_rmb, dma::DmaBuf};

/// An open guard of a queue: an iterator over finished commands that also takes new ones. Each doorbell is
/// written once, when the guard is dropped.
///
/// It yields at most the commands that were in flight when it was opened, so a loop that submits one command
/// for each that it reaps ends. A turn that is leaked (`mem::forget`) closes its queue for good.
///
/// Nothing here allocates, locks, counts references or calls the system.
///
/// # Examples
/// ```
/// # use upcie_nvme::{Controller, Wait};
/// # let controller = Controller::open("emu:size=1M")?;
/// # let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().depth(8).create::<u64>()?;
/// let mut turn = queue.turn()?;
/// while !turn.is_full() {
///     turn.read(&namespace, 0, controller.alloc(4096)?, 7)?;
/// }
/// assert_eq!((turn.len(), turn.room()), (7, 0));
/// drop(turn); // rings the doorbell once, for all seven
///
/// let mut left = 7;
/// while left > 0 {
///     for done in queue.turn()? {
///         let (tag, result, buffer) = done.into_parts();
///         result?;
///         assert_eq!((tag, buffer.len()), (7, 4096));
///         left -= 1;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A turn is not `Send`, so a task that moves between threads can't hold one across an await: its commands would wait for
/// the doorbell as long as the task sleeps.
/// ```compile_fail
/// fn spawn(task: impl Future + Send) {}
/// fn task(mut queue: upcie_nvme::QueuePair) {
///     spawn(async move {
///         let turn = queue.turn().unwrap();
///         std::future::pending::<()>().await;
///         drop(turn);
///     });
/// }
/// ```
// Its methods are in a file for each kind of command.
// Nothing out of line takes a `Turn` by reference, however cold: one such call pins its fields to memory.
#[must_use = "it rings the doorbell when it is dropped"]
pub struct Turn<'q, T> {
    /// The next submission entry.
    pub(super) sqe: *mut u64,
    /// The next completion entry.
    pub(super) cqe: *const u64,
    /// The free slot to use next.
    pub(super) top: u32,
    pub(super) slots: *mut Slot<T>,
    /// The stamp of valid namespace handles; [`CLOSED`] after a forged completion or a reset.
    pub(super) namespaces: u64,
    pub(super) queue: &'q mut Queue<T>,
    /// [`end`], always. A call through this constant leaves so little to the destructor that the compiler inlines it even
    /// where a panic unwinds. A destructor that is called there takes the turn by reference, which pins its fields, too.
    end: fn(&mut Queue<T>, Cursor, *const u64),
}

// Here, since a queue's own file knows no turns.
impl<T> Queue<T> {
    /// Opens the guard, for a caller that checks the controller by other means.
    #[inline(always)]
    pub(crate) fn turn(&mut self) -> Result<Turn<'_, T>> {
        self.turn_or_look(|_| Ok(()))
    }

    /// Opens the guard. If the queue is quiet, `look` decides whether to; its error closes the queue.
    #[inline(always)]
    pub(crate) fn turn_or_look(&mut self, look: impl FnOnce(&mut Self) -> Result<()>) -> Result<Turn<'_, T>> {
        let mut namespaces = self.namespaces();
        if namespaces <= self.guard {
            self.reopen(look)?;
            namespaces = self.namespaces();
        }
        self.guard = CLOSED;
        Ok(Turn::open(self, namespaces))
    }
}

impl<'q, T> Turn<'q, T> {
    #[inline(always)]
    pub(super) fn open(queue: &'q mut Queue<T>, namespaces: u64) -> Self {
        // Word by word: one wide load of what the last turn stored in parts would have to wait for all of them.
        let (Cursor { sqe, top }, cqe) = (queue.at, queue.cqe);
        // Field by field: a read through the queue would be repeated after each store to a slot.
        Self { sqe, cqe, top, slots: queue.slots, namespaces, queue, end }
    }

    /// Reads as many blocks as `buffer` has room for, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.submit(Io::read(namespace, slba), buffer, tag)
    }

    /// Writes `buffer`, a whole number of blocks, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent.
    #[inline(always)]
    pub fn write(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.submit(Io::write(namespace, slba), buffer, tag)
    }

    /// Returns the slot of the next command, if the queue is not [full](Self::is_full): a number below the queue's capacity
    /// that no command in flight has. For programs that keep something for each command in a table of their own.
    #[inline]
    pub fn next_slot(&self) -> u32 {
        self.top
    }

    /// Returns the number of commands in flight: submitted, and not yet reaped.
    #[inline]
    pub fn len(&self) -> usize {
        let (queue, entries) = (&self.queue, self.queue.end_of_free as usize + 1);
        let tail = index(queue.sq, self.sqe, SQE_WORDS);
        let head = index(queue.cq, self.cqe, CQE_WORDS);
        if tail >= head { tail - head } else { tail + entries - head }
    }

    /// Returns `true` if no command is in flight.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many more commands the queue takes now: 0 after a forged completion, which closes the queue.
    #[inline]
    pub fn room(&self) -> usize {
        if self.is_full() { 0 } else { self.queue.end_of_free as usize - self.len() }
    }

    /// Returns `true` if the queue takes no more commands: until some are reaped, or ever, after a forged
    /// completion.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.top == self.queue.end_of_free
    }

    /// Writes the doorbells now, for a turn that stays open: the controller begins with the commands that were submitted
    /// so far, and the turn can reap them. A dropped turn does the same.
    ///
    /// A loop that submits a command for each completion ends only if it does not ring in between.
    #[inline(always)]
    pub fn ring(&mut self) {
        if self.queue.namespaces() == 0 && self.queue.epoch_stamp() == 0 {
            cold();
            (self.queue.at, self.queue.cqe) = (Cursor { sqe: self.sqe, top: self.top }, self.cqe);
            // It takes no more commands.
            (self.namespaces, self.top) = (CLOSED, self.queue.end_of_free);
            return;
        }
        self.publish();
        if self.queue.state == State::Forged {
            // After a forged completion nothing more is reaped.
            self.queue.reap_limit = self.cqe;
        }
    }

    /// Submits `io`: all of `buffer`, a whole number of blocks, as [`read`](Self::read) and
    /// [`write`](Self::write) do.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent.
    #[inline(always)]
    pub fn submit(&mut self, io: Io<'_>, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        let Io { extent, direction, slba, flags, protect } = io;
        let data = buffer.prepared();
        // A remainder of a block ends up in the top bits, so the value exceeds any limit.
        let last = data.len.rotate_right(extent.shift).wrapping_sub(1);
        // `plain_blocks` is at most the number of blocks, so the subtraction after the first check can't wrap.
        if last >= extent.plain_blocks
            || slba > extent.last.wrapping_sub(u64::from(last))
            // One branch for both: two would be joined by flags in registers, of which a caller's loop has too few.
            // Protection is known at compile time where there is none.
            || (extent.stamp ^ self.namespaces)
                | (data.space ^ self.queue.space)
                | u64::from(protect.is_some())
                != 0
        {
            cold();
            let at = Cursor { sqe: self.sqe, top: self.top };
            // In registers: an `Io` in memory would be built for each plain command, too.
            let option = (direction.opcode(), flags, protect);
            let at = submit_slowly(self.queue, at, self.namespaces, option, extent, slba, (buffer, tag))?;
            (self.sqe, self.top) = (at.sqe, at.top);
            return Ok(());
        }
        // Apart from the branches above: joined with them, it would be kept as a flag in a register.
        if self.is_full() {
            cold();
            return Err(Refused { reason: Refusal::Full, buffer, tag });
        }
        let last = u64::from(last) | flags.word();
        let words = [first_words(direction.opcode(), extent), 0, 0, data.iova, data.second, slba, last, 0];
        self.push(words, buffer, tag, 0);
        Ok(())
    }

    /// Fills a slot (the caller has checked that one is free) and puts the command into the ring.
    #[inline(always)]
    pub(super) fn push(&mut self, words: [u64; 8], buffer: DmaBuf, tag: T, list: u32) {
        let at = Cursor { sqe: self.sqe, top: self.top };
        // SAFETY: the cursors are the queue's, and it is not full.
        let at = unsafe { fill_slot(self.queue, self.slots, at, words, buffer, tag, list) };
        (self.sqe, self.top) = (at.sqe, at.top);
    }

    /// Writes the cursors back to the queue, and each doorbell whose ring has moved. Returns `true` if one
    /// has.
    #[inline(always)]
    fn publish(&mut self) -> bool {
        publish(self.queue, Cursor { sqe: self.sqe, top: self.top }, self.cqe)
    }
}

impl<T> Iterator for Turn<'_, T> {
    type Item = Completion<T>;

    /// Returns the next finished command, in the order in which the controller finished them; `None` if there
    /// is none now.
    #[inline(always)]
    fn next(&mut self) -> Option<Completion<T>> {
        if self.cqe == self.queue.reap_limit {
            return None;
        }
        // SAFETY: the last dword of an entry of the ring.
        let last = unsafe { self.cqe.cast::<u32>().add(3) };
        // SAFETY: aligned, in the ring, which the queue owns. The device writes it at any time: one volatile read.
        let dword3 = unsafe { last.read_volatile() };
        if dword3 & PHASE != self.queue.phase {
            return None;
        }
        // The rest of the entry, and the data, were written before its phase tag.
        dma_rmb();
        // SAFETY: the first word of an entry of the ring, aligned, in memory that the queue owns.
        let result = unsafe { self.cqe.read_volatile() };
        let id = dword3 & 0xffff;
        let index = id & self.queue.mask;
        // SAFETY: masked to the number of slots.
        let slot = unsafe { self.slots.add(index as usize) };
        // SAFETY: inside the turn nobody else refers to the slots.
        let slot = unsafe { &mut *slot };
        if slot.word != u64::from(id) {
            // A command with a PRP list to release, one whose time is measured, or a forged completion.
            if slot.word as u32 != id {
                self.queue.state = State::Forged;
                self.queue.divert();
                self.queue.reap_limit = self.cqe;
                // Mark the turn as full, with a stamp of no namespace: it takes no more commands.
                (self.namespaces, self.top) = (CLOSED, self.queue.end_of_free);
                return None;
            }
            release(&mut self.queue.lists, (slot.word >> 32) as u32);
        }
        slot.word = u64::from(id + self.queue.step) | u64::from(self.top) << 32;
        self.top = index;
        // SAFETY: to the next entry, or behind the last.
        self.cqe = unsafe { self.cqe.add(CQE_WORDS) };
        if self.cqe == self.queue.cq_end {
            cold();
            self.cqe = self.queue.cq;
            self.queue.phase ^= PHASE;
            self.queue.end_lap();
        }
        Some(Completion {
            // SAFETY: its word said that the slot was in flight, so it was filled; it is marked free now.
            buffer: unsafe { slot.buffer.assume_init_read() },
            // SAFETY: it was filled together with the buffer, and is read once: the slot is free now.
            tag: unsafe { slot.tag.assume_init_read() },
            result,
            dword3,
        })
    }
}

impl<T> Drop for Turn<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        (self.end)(self.queue, Cursor { sqe: self.sqe, top: self.top }, self.cqe);
    }
}

impl<T> fmt::Debug for Turn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("sqe", &self.sqe).field("cqe", &self.cqe).finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn release(lists: &mut ListPool, list: u32) {
    // Without the mark.
    let list = list & (u32::MAX >> 1);
    if list != 0 {
        lists.release(list);
    }
}
