//! The commands of an asynchronous queue, from a future's first poll until its result is taken.
//!
//! The table grows when more commands wait at once than ever before, and reuses its entries afterwards: no command allocates.

use super::{
    command::{Command, Ended, join},
    pair::Half,
};
use crate::{Error, spec::Status};
use std::{mem, task::Waker};
use upcie_core::dma::DmaBuf;

/// The index of no entry.
const NONE: u32 = u32::MAX;

/// The state of an entry. It has no values, so that a change drops nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// The command waits for room in the queue pair.
    Staged,
    InFlight,
    /// The command is in flight and overdue: `failed` is its result, which its future has not taken yet.
    Late,
    /// The command is in flight, and its future was dropped: the buffer is freed when the device is done with it.
    Abandoned,
    /// The controller has completed the command with `status`.
    Completed,
    /// The command ended otherwise: `failed` says how.
    Failed,
}

/// The one who gets the result.
#[derive(Debug)]
pub(super) enum Owner {
    /// A task in the queue's thread.
    Task(Option<Waker>),
    /// The slot of a handle in another thread.
    Remote(u32),
}

#[derive(Debug)]
struct Entry {
    state: State,
    owner: Owner,
    /// The next staged entry, or the next free one.
    next: u32,
    /// The staged entry before.
    before: u32,
    /// The command's buffer while the queue pair does not have it.
    buffer: DmaBuf,
    status: Result<(), Status>,
    /// Dwords 0 and 1 of the completion.
    value: u64,
    /// The end of a command that failed; or, in flight, of the half that has ended first.
    failed: Option<Ended>,
    /// Halves of the command in flight: 0 for a whole one.
    halves: u8,
    command: Command,
}

/// The outcome of a finished command.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is passed on at once; a box would be an allocation for each command"
)]
pub(super) enum Finished {
    /// The result waits for the command's future; the waker is that of the future's task.
    Task(Option<Waker>),
    /// The result goes to the slot of a handle.
    Remote(u32, Command, Ended, DmaBuf),
    /// Nobody wants the result; the buffer is to be freed.
    Nobody(DmaBuf),
}

#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    free: u32,
    /// The ends of the list of staged entries, in the order of their arrival.
    first: u32,
    last: u32,
    /// Entries that are not free.
    live: usize,
    staged: usize,
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            free: NONE,
            first: NONE,
            last: NONE,
            live: 0,
            staged: 0,
        }
    }

    /// Returns the number of commands whose results were not taken yet.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Returns the number of commands that wait for room.
    pub(super) fn staged(&self) -> usize {
        self.staged
    }

    #[inline]
    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// Adds a command behind those that wait; returns its index, or `None` if there are as many as an index can name.
    #[inline]
    pub(super) fn stage(&mut self, command: Command, buffer: DmaBuf, owner: Owner) -> Option<u32> {
        let (index, before, next) = (self.free, self.last, NONE);
        let index = if index == NONE {
            let index = u32::try_from(self.entries.len()).ok().filter(|index| *index <= Half::MOST)?;
            let (state, status, value, failed, halves) = (State::Staged, Ok(()), 0, None, 0);
            let entry = Entry { state, owner, next, before, buffer, status, value, failed, halves, command };
            self.entries.push(entry);
            index
        } else {
            // Field by field: an entry that is moved as a whole is copied twice.
            let entry = self.entry(index);
            let free = entry.next;
            entry.state = State::Staged;
            entry.owner = owner;
            (entry.next, entry.before) = (next, before);
            entry.buffer = buffer;
            entry.command = command;
            self.free = free;
            index
        };
        if before == NONE {
            self.first = index;
        } else {
            self.entry(before).next = index;
        }
        self.last = index;
        self.live += 1;
        self.staged += 1;
        Some(index)
    }

    /// Returns the index of the command that waits longest.
    #[inline]
    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Takes a staged command off the list, with its buffer, to submit it.
    #[inline]
    pub(super) fn begin(&mut self, index: u32) -> (&Command, DmaBuf) {
        self.unlink(index);
        let entry = self.entry(index);
        entry.state = State::InFlight;
        let buffer = mem::take(&mut entry.buffer);
        (&entry.command, buffer)
    }

    /// Puts a command that was not sent back to the head of the list.
    #[cold]
    pub(super) fn put_back(&mut self, index: u32, buffer: DmaBuf) {
        let next = mem::replace(&mut self.first, index);
        let entry = self.entry(index);
        (entry.state, entry.buffer, entry.before, entry.next) = (State::Staged, buffer, NONE, next);
        if next == NONE {
            self.last = index;
        } else {
            self.entry(next).before = index;
        }
        self.staged += 1;
    }

    #[inline]
    fn unlink(&mut self, index: u32) {
        let Entry { before, next, .. } = *self.entry(index);
        if before == NONE {
            self.first = next;
        } else {
            self.entry(before).next = next;
        }
        if next == NONE {
            self.last = before;
        } else {
            self.entry(next).before = before;
        }
        self.staged -= 1;
    }

    /// Returns `true` for a plain command ([`Command::is_plain`]).
    #[inline(always)]
    pub(super) fn is_plain(&self, index: u32) -> bool {
        self.entries[index as usize].command.is_plain()
    }

    /// Notes that the controller has two commands for an entry, each with the token of a half.
    pub(super) fn halve(&mut self, index: u32) {
        self.entry(index).halves = 2;
    }

    /// Ends a command that the controller has completed, with the value of its completion and the buffer that came back.
    /// Returns `None` for the first half of a command.
    #[inline]
    pub(super) fn complete(
        &mut self,
        token: u32,
        value: u64,
        status: Result<(), Status>,
        buffer: DmaBuf,
    ) -> Option<Finished> {
        // The tokens of halves are beyond all entries.
        if let Some(entry) = self.entries.get_mut(token as usize) {
            if entry.state == State::InFlight {
                if let Owner::Task(waker) = &mut entry.owner {
                    let waker = waker.take();
                    (entry.state, entry.status, entry.buffer) = (State::Completed, status, buffer);
                    entry.value = value;
                    return Some(Finished::Task(waker));
                }
            }
        }
        self.end(token, Ended::Completed(status.map(|()| value)), buffer)
    }

    /// Ends a command, or a half of it, in any way. Returns `None` for the first half of a command.
    #[inline(never)]
    pub(super) fn end(&mut self, token: u32, ended: Ended, buffer: DmaBuf) -> Option<Finished> {
        let (index, half) = Half::from(token);
        let Some(half) = half else { return Some(self.finish(index, ended, buffer)) };
        let entry = self.entry(index);
        entry.halves = entry.halves.saturating_sub(1);
        match (entry.state, entry.halves) {
            (State::InFlight, 0) => {
                let other = (entry.failed.take(), mem::take(&mut entry.buffer));
                let (ended, buffer) = join(half, (ended, buffer), other);
                Some(self.finish(index, ended, buffer))
            }
            (State::InFlight, _) => {
                (entry.failed, entry.buffer) = (Some(ended), buffer);
                None
            }
            // Nobody waits for both halves any more: the entry is free after the second.
            (_, 0) => Some(self.finish(index, ended, DmaBuf::empty())),
            _ => None,
        }
    }

    /// Ends a command in any way, with its buffer.
    #[inline(never)]
    pub(super) fn finish(&mut self, index: u32, ended: Ended, buffer: DmaBuf) -> Finished {
        if self.entry(index).state == State::Staged {
            self.unlink(index);
        }
        let entry = self.entry(index);
        let ended = match entry.state {
            State::InFlight | State::Staged => ended,
            State::Late => entry.failed.take().unwrap_or(ended),
            State::Free | State::Abandoned | State::Completed | State::Failed => {
                self.release(index);
                return Finished::Nobody(buffer);
            }
        };
        match &mut entry.owner {
            Owner::Task(waker) => {
                let waker = waker.take();
                (entry.state, entry.failed, entry.buffer) = (State::Failed, Some(ended), buffer);
                Finished::Task(waker)
            }
            Owner::Remote(slot) => {
                let (slot, command) = (*slot, entry.command);
                self.release(index);
                Finished::Remote(slot, command, ended, buffer)
            }
        }
    }

    /// Takes the result of a finished command; `None` while it is not finished.
    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Option<(Ended, DmaBuf)> {
        let entry = self.entry(index);
        match entry.state {
            State::Completed => {
                let (status, value) = (entry.status, entry.value);
                let buffer = mem::take(&mut entry.buffer);
                self.release(index);
                Some((Ended::Completed(status.map(|()| value)), buffer))
            }
            State::Failed | State::Late => self.take_failed(index),
            _ => None,
        }
    }

    #[cold]
    fn take_failed(&mut self, index: u32) -> Option<(Ended, DmaBuf)> {
        let entry = self.entry(index);
        let (ended, buffer) = (entry.failed.take()?, mem::take(&mut entry.buffer));
        if entry.state == State::Late {
            entry.state = State::Abandoned;
        } else {
            self.release(index);
        }
        Some((ended, buffer))
    }

    /// Changes the task that is woken at the end of a command; returns the waker that this one replaces.
    pub(super) fn set_waker(&mut self, index: u32, waker: &Waker) -> Option<Waker> {
        match &mut self.entry(index).owner {
            Owner::Task(Some(before)) if before.will_wake(waker) => None,
            Owner::Task(before) => before.replace(waker.clone()),
            Owner::Remote(_) => None,
        }
    }

    /// Forgets the owner of a command: one that was not sent is not sent, one that is in flight keeps its buffer until it is
    /// done. Returns what the caller drops once the table is not borrowed, since a waker may run a program's code then.
    pub(super) fn abandon(&mut self, index: u32) -> (Owner, DmaBuf) {
        let entry = self.entry(index);
        let owner = mem::replace(&mut entry.owner, Owner::Task(None));
        let buffer = mem::take(&mut entry.buffer);
        entry.failed = None;
        match entry.state {
            State::InFlight | State::Late | State::Abandoned => entry.state = State::Abandoned,
            State::Free => {}
            State::Staged => {
                self.unlink(index);
                self.release(index);
            }
            State::Completed | State::Failed => self.release(index),
        }
        (owner, buffer)
    }

    /// Gives a command that is overdue its result now, if somebody waits for it; the buffer stays in flight.
    #[cold]
    pub(super) fn give_up(&mut self, index: u32, error: Error) -> Option<Finished> {
        let entry = self.entry(index);
        if entry.state != State::InFlight {
            return None;
        }
        // That of a half that has ended.
        entry.buffer = DmaBuf::empty();
        match &mut entry.owner {
            Owner::Task(waker) => {
                let waker = waker.take();
                (entry.state, entry.failed) = (State::Late, Some(Ended::Failed(error)));
                Some(Finished::Task(waker))
            }
            Owner::Remote(slot) => {
                let slot = *slot;
                entry.state = State::Abandoned;
                Some(Finished::Remote(slot, entry.command, Ended::Failed(error), DmaBuf::empty()))
            }
        }
    }

    /// Returns the command of an entry, and `true` if it waits for room.
    #[cold]
    pub(super) fn command(&self, index: u32) -> (Command, bool) {
        let entry = &self.entries[index as usize];
        (entry.command, entry.state == State::Staged)
    }

    /// Takes the buffer of a command that waits for room.
    #[cold]
    pub(super) fn take_buffer(&mut self, index: u32) -> DmaBuf {
        mem::take(&mut self.entry(index).buffer)
    }

    /// Lists the commands that are staged or in flight.
    #[cold]
    pub(super) fn unfinished(&self) -> Vec<u32> {
        let is_open = |entry: &Entry| !matches!(entry.state, State::Free | State::Completed | State::Failed);
        (0..).zip(&self.entries).filter(|(_, entry)| is_open(entry)).map(|(index, _)| index).collect()
    }

    /// Takes the wakers of all tasks that wait.
    #[cold]
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let waker = |entry: &mut Entry| match &mut entry.owner {
            Owner::Task(waker) => waker.take(),
            Owner::Remote(_) => None,
        };
        self.entries.iter_mut().filter_map(waker).collect()
    }

    #[inline]
    fn release(&mut self, index: u32) {
        let free = mem::replace(&mut self.free, index);
        let entry = self.entry(index);
        (entry.state, entry.next) = (State::Free, free);
        self.live -= 1;
    }
}
