//! The queue pair and the table of its commands: submits, reaps, and tells each command's future how it ended.

use super::{
    command::{Command, Ended, Sent, Token, closed_before},
    pair::Half,
    remote::Remote,
    table::{Finished, Owner, Table},
};
use crate::{Error, Failure, QueuePair, Result, engine::Returned, error::Refusal};
use std::{mem, sync::Arc, task::Waker, time::Duration};
use upcie_core::dma::DmaBuf;

/// Resets in a row that a queue recovers from, each of which came while it recovered from the one before.
const RECOVERIES: u32 = 8;

/// The reason why a queue takes no commands any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The program has closed it.
    Closed,
    /// The queue pair says why.
    Failed,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) pair: QueuePair<Token>,
    pub(super) table: Table,
    /// Commands that the queue pair has.
    in_flight: usize,
    end: Option<End>,
    /// The tasks to wake, once nothing is borrowed.
    pub(super) woken: Vec<Waker>,
    /// The driver's waker, while it sleeps.
    pub(super) sleeping: Option<Waker>,
    /// Drivers that have been polled, and were not dropped.
    pub(super) drivers: usize,
    pub(super) remote: Option<Arc<Remote>>,
}

impl Inner {
    pub(super) fn new(pair: QueuePair<Token>) -> Self {
        let capacity = pair.capacity();
        Self {
            pair,
            table: Table::new(capacity),
            in_flight: 0,
            end: None,
            woken: Vec::with_capacity(capacity),
            sleeping: None,
            drivers: 0,
            remote: None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns `true` if commands are in flight, or wait for room.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.table.staged() > 0
    }

    /// Returns `true` if tasks do the driver's work: there is none, or it is in the parent of this forked child.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.drivers == 0 || self.pair.is_inherited()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Returns `true` if the program has closed the queue.
    pub(super) fn is_closed(&self) -> bool {
        self.end == Some(End::Closed)
    }

    /// Makes the reason why the queue takes no commands.
    #[cold]
    pub(super) fn reason(&mut self) -> Error {
        let failed = match self.end {
            Some(End::Closed) => None,
            _ => self.pair.turn().err(),
        };
        failed.unwrap_or_else(|| {
            Error::argument(self.pair.device(), "the asynchronous queue is closed: create another")
        })
    }

    /// Makes the reason why the queue does not take `command`; `None` if it does.
    #[inline]
    pub(super) fn refuse(&mut self, command: &Command, buffer: &DmaBuf) -> Option<Error> {
        // In a forked child nobody may drive the queue.
        if self.end.is_none() && !self.pair.is_inherited() {
            return None;
        }
        Some(match self.end {
            Some(End::Closed) => closed_before(self.pair.device(), command, buffer),
            _ => self.reason(),
        })
    }

    /// Reaps what the controller has completed, then submits what waits, as far as there is room: one turn of the queue pair.
    /// Returns the number of commands that ended.
    ///
    /// # Errors
    /// The queue has ended, now or before; all futures have their results.
    #[inline]
    pub(super) fn turn(&mut self) -> Result<usize> {
        if self.end.is_some() {
            return Err(self.reason());
        }
        self.take_requests();
        match self.try_turn() {
            Ok(count) => Ok(count),
            Err(error) => self.recover(error),
        }
    }

    #[inline]
    fn take_requests(&mut self) {
        let Some(remote) = &self.remote else { return };
        // A forked child takes no lock of the handles, which a thread of its parent may hold for ever there.
        if !remote.has_requests() || self.pair.is_inherited() {
            return;
        }
        while let Some((slot, command, buffer)) = remote.take() {
            // The table has room: handles have fewer slots than it has indices.
            let _ = self.table.stage(command, buffer, Owner::Remote(slot));
        }
    }

    #[inline]
    fn try_turn(&mut self) -> Result<usize> {
        let Self { pair, table, in_flight, woken, remote, .. } = self;
        let mut turn = pair.turn()?;
        let (mut count, mut ended) = (0, 0);
        for done in turn.by_ref() {
            let value = done.block();
            let (Token(token), result, buffer) = done.into_parts();
            count += 1;
            ended += settle(table.complete(token, value, result, buffer), woken, remote);
        }
        *in_flight -= count;
        while !turn.is_full() {
            let Some(index) = table.first() else { break };
            if !table.is_plain(index) {
                drop(turn);
                return Ok(ended + self.send_any()?);
            }
            let (command, buffer) = table.begin(index);
            let Err(refused) = command.send(&mut turn, buffer, Token(index)) else {
                *in_flight += 1;
                continue;
            };
            if is_for_later(refused.reason, *in_flight) {
                table.put_back(index, refused.buffer);
                break;
            }
            let refused = table.finish(index, Ended::Refused(refused.reason), refused.buffer);
            ended += settle(Some(refused), woken, remote);
        }
        Ok(ended)
    }

    /// Submits what waits, of whatever kind, in a turn of its own: the turn of plain commands stays in registers. Returns the
    /// number of commands that were refused.
    #[cold]
    #[inline(never)]
    fn send_any(&mut self) -> Result<usize> {
        let Self { pair, table, in_flight, woken, remote, .. } = self;
        let mut turn = pair.turn()?;
        let mut ended = 0;
        while !turn.is_full() {
            let Some(index) = table.first() else { break };
            let (command, buffer) = table.begin(index);
            match command.send_any(&mut turn, buffer, index) {
                Ok(Sent::One) => *in_flight += 1,
                Ok(Sent::Pair) => {
                    table.halve(index);
                    *in_flight += 2;
                }
                Err(refused) if is_for_later(refused.reason, *in_flight) => {
                    table.put_back(index, refused.buffer);
                    break;
                }
                Err(refused) => {
                    let refused = table.finish(index, Ended::Refused(refused.reason), refused.buffer);
                    ended += settle(Some(refused), woken, remote);
                }
            }
        }
        Ok(ended)
    }

    /// Ends what the failure of a turn ends: late commands, those that a reset has stopped, or the queue.
    #[cold]
    #[inline(never)]
    pub(super) fn recover(&mut self, error: Error) -> Result<usize> {
        match error.failure() {
            Failure::Overdue { qid, command, .. } => {
                self.end_overdue(*qid, *command);
                return Ok(0);
            }
            Failure::Reset { .. } => {
                for _ in 0..RECOVERIES {
                    match self.pair.recover() {
                        Ok(returned) => return Ok(self.give_back(returned, true)),
                        Err(again) if matches!(again.failure(), Failure::Reset { .. }) => {}
                        Err(_) => break,
                    }
                }
            }
            // The controller was slow to answer; the queue goes on.
            _ if self.pair.check_live().is_ok() => {
                tracing::debug!(device = self.pair.device(), %error, "a look at the controller failed");
                return Ok(0);
            }
            _ => {}
        }
        if !self.pair.is_inherited() {
            tracing::warn!(device = self.pair.device(), queue = self.pair.id(), %error, "an asynchronous queue has ended");
        }
        // Why it failed counts more than what its end brings.
        let _ = self.finish_all(End::Failed);
        Err(self.reason())
    }

    /// Gives the futures of overdue commands their errors. The buffers stay in flight.
    fn end_overdue(&mut self, qid: u16, command: u16) {
        let late: Vec<_> = self.pair.overdue().map(|(token, age)| (Half::from(token.0).0, age)).collect();
        for (index, age) in late {
            let error = Error::overdue(self.pair.device(), qid, command, age);
            settle(self.table.give_up(index, error), &mut self.woken, &self.remote);
        }
    }

    /// Ends commands that came back without a turn; returns their number.
    fn give_back(&mut self, returned: Vec<Returned<Token>>, was_reset: bool) -> usize {
        let count = returned.len();
        for command in returned {
            let (token, ended, buffer) = match command {
                Returned::Completed(done) => {
                    let value = done.block();
                    let (token, result, buffer) = done.into_parts();
                    (token, Ended::Completed(result.map(|()| value)), buffer)
                }
                Returned::Unknown { tag, buffer } => {
                    let index = Half::from(tag.0).0;
                    (tag, Ended::Failed(self.unknown(index, &buffer, was_reset)), buffer)
                }
            };
            settle(self.table.end(token.0, ended, buffer), &mut self.woken, &self.remote);
        }
        self.in_flight = self.in_flight.saturating_sub(count);
        count
    }

    /// Makes the error of a command in flight that ended without a completion.
    fn unknown(&mut self, index: u32, buffer: &DmaBuf, was_reset: bool) -> Error {
        let (command, _) = self.table.command(index);
        if was_reset {
            return Error::reset_call(self.pair.device(), command.describe(buffer));
        }
        if self.end == Some(End::Failed) {
            return self.reason();
        }
        Error::argument(
            self.pair.device(),
            format!(
                "{}: the asynchronous queue was closed with the command in flight, so it is not known whether it was \
                 executed",
                command.describe(buffer)
            ),
        )
    }

    /// Closes the queue pair; every command has its result after that.
    ///
    /// # Errors
    /// [`Failure::Undeleted`]: the controller keeps the buffers of commands in flight, and their futures get empty ones.
    #[cold]
    pub(super) fn close(&mut self) -> Result<()> {
        if self.end.is_some() { Ok(()) } else { self.finish_all(End::Closed) }
    }

    fn finish_all(&mut self, end: End) -> Result<()> {
        self.end = Some(end);
        if self.pair.is_inherited() {
            // The handles are the parent's, and so are their requests and locks.
            mem::forget(self.remote.take());
        }
        let closed = self.pair.try_close();
        let closed = closed.map(|returned| {
            self.give_back(returned, false);
        });
        for index in self.table.unfinished() {
            let (command, is_staged) = self.table.command(index);
            let (buffer, error);
            if is_staged {
                buffer = self.table.take_buffer(index);
                error = match self.refuse(&command, &buffer) {
                    Some(error) => error,
                    None => self.reason(),
                };
            } else {
                buffer = DmaBuf::empty();
                error = self.unknown(index, &buffer, false);
            }
            let finished = self.table.finish(index, Ended::Failed(error), buffer);
            settle(Some(finished), &mut self.woken, &self.remote);
        }
        self.in_flight = 0;
        self.woken.extend(self.sleeping.take());
        if let Some(remote) = &self.remote {
            remote.close();
        }
        closed
    }

    /// Takes the wakers of all tasks that wait for commands.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        self.table.take_wakers()
    }

    /// Checks the controller, and looks for late commands, as waits of a queue pair do every 50 ms.
    #[cold]
    pub(super) fn look(&mut self, quiet: Duration) -> Result<()> {
        match self.pair.check_progress(quiet) {
            Ok(()) => Ok(()),
            Err(error) if self.end.is_none() => self.recover(error).map(drop),
            Err(error) => Err(error),
        }
    }
}

/// Returns `true` if a refused command waits: it is sent once others have completed, or the next turn says why not.
#[cold]
fn is_for_later(reason: Refusal, in_flight: usize) -> bool {
    match reason {
        Refusal::ListsInUse => in_flight > 0,
        Refusal::Full | Refusal::Closed => true,
        _ => false,
    }
}

/// Passes a result on: notes the task to wake, or delivers it to a handle. Returns the number of commands that have ended:
/// none for the first half of one.
#[inline]
fn settle(finished: Option<Finished>, woken: &mut Vec<Waker>, remote: &Option<Arc<Remote>>) -> usize {
    let Some(finished) = finished else { return 0 };
    match finished {
        Finished::Task(waker) => woken.extend(waker),
        Finished::Remote(slot, command, ended, buffer) => {
            let remote = remote.as_ref();
            woken.extend(remote.and_then(|remote| remote.deliver(slot, &command, ended, buffer)));
        }
        Finished::Nobody(buffer) => drop(buffer),
    }
    1
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Futures in this thread keep the queue; those of other threads get their buffers, and an error.
        let _ = self.close();
        mem::take(&mut self.woken).into_iter().for_each(Waker::wake);
    }
}
