//! The blocking calls, on a queue pair that all of a controller's calls share.

use super::retries::Tries;
use crate::{
    Error, Failure, IoFlags, Refusal, Result,
    controller::{Inner, Limit, PRIORITY, create},
    engine::{Extent, Io, Pieces, Queue, Refused, Turn, WithMetadata, Zeroes},
    spec::{ALL_NAMESPACES, Command, NvmOpcode, Status},
};
use std::ops::Range;
use upcie_core::{deadline::Backoff, dma::DmaBuf, gate::Pass};

/// Names the call for messages; called only for a message.
pub(super) type What<'w> = &'w dyn Fn() -> String;

/// Entries of the rings: the most commands of one call in flight.
const ENTRIES: u32 = 32;

/// Transfers or compares the bytes `part` of `buffer`, split into commands.
pub(super) fn transfer(
    controller: &Inner,
    command: (NvmOpcode, Io<'_>),
    buffer: &mut DmaBuf,
    part: Range<usize>,
    what: What<'_>,
    limit: &mut Limit<'_>,
) -> Result<()> {
    let place = (controller.space().id(), controller.shape(controller.sgl_use()));
    let pieces = Pieces::new(controller.live(), place, command, buffer, part, None);
    let mut pieces = pieces.map_err(|reason| refused(controller, what, reason))?;
    let how = (tries_of(controller, command.0), Order::of(command));
    run(controller, buffer, what, limit, how, |turn, held, again| {
        again.into_iter().for_each(|tag| pieces.rewind(tag));
        // SAFETY: `held` is `buffer`, which was judged. It outlives the command: `run` gives it back or frees it only when
        // nothing is in flight, or once the queue has been deleted, and leaks it otherwise.
        unsafe { pieces.send(turn, held) }
    })
    .map(drop)
}

/// Transfers or compares all of `data` and `metadata`, split into commands.
pub(super) fn transfer_with_metadata(
    controller: &Inner,
    command: (NvmOpcode, Io<'_>),
    data: &mut DmaBuf,
    metadata: &mut DmaBuf,
    what: What<'_>,
) -> Result<()> {
    let len = data.total_len();
    let place = (controller.space().id(), controller.shape(controller.sgl_use()));
    let pieces = Pieces::new(controller.live(), place, command, data, 0..len, Some(metadata));
    let mut pieces = pieces.map_err(|reason| refused(controller, what, reason))?;
    let mut whole = WithMetadata { data: std::mem::take(data), metadata: std::mem::take(metadata) }.join();
    let (how, mut limit) =
        ((tries_of(controller, command.0), Order::of(command)), controller.limit_for(len as u64));
    let result = run(controller, &mut whole, what, &mut limit, how, |turn, held, again| {
        again.into_iter().for_each(|tag| pieces.rewind(tag));
        // SAFETY: `held` is the data and the metadata that were judged, in this order. It outlives the command: `run` gives it
        // back or frees it only when nothing is in flight, or once the queue has been deleted, and leaks it otherwise.
        unsafe { pieces.send(turn, held) }
    });
    let WithMetadata { data: first, metadata: second } = WithMetadata::from(whole);
    (*data, *metadata) = (first, second);
    result.map(drop)
}

/// Returns the tries of a transfer: a write is sent once, and so is a Compare.
fn tries_of(controller: &Inner, opcode: NvmOpcode) -> Tries {
    if opcode == NvmOpcode::READ { Tries::of(controller) } else { Tries::NONE }
}

pub(super) fn flush(
    controller: &Inner,
    extent: &Extent,
    what: What<'_>,
    limit: &mut Limit<'_>,
) -> Result<()> {
    let (mut none, how) = (DmaBuf::empty(), (Tries::of(controller), Order::Any));
    run(controller, &mut none, what, limit, how, |turn, _, _| turn.flush(extent, 0).map(|()| false)).map(drop)
}

/// Flushes all namespaces. The caller has checked that the controller does.
pub(super) fn flush_all(controller: &Inner, what: What<'_>, limit: &mut Limit<'_>) -> Result<()> {
    let (mut none, how) = (DmaBuf::empty(), (Tries::of(controller), Order::Any));
    run(controller, &mut none, what, limit, how, |turn, _, _| {
        // SAFETY: a Flush moves no data, and is about no queue and no command; it changes no namespace.
        unsafe { turn.submit_raw(&Command::flush(ALL_NAMESPACES), DmaBuf::empty(), 0) }.map(|()| false)
    })
    .map(drop)
}

/// Zeroes `blocks` (not 0) blocks from `slba` on with Write Zeroes. The caller has checked the range.
pub(super) fn zeroes(
    controller: &Inner,
    extent: &Extent,
    (slba, blocks): (u64, u64),
    flags: IoFlags,
    what: What<'_>,
) -> Result<()> {
    let (mut sent, mut limit) = (0, controller.limit());
    // A command stays within a zone.
    let zone = if extent.is_zoned() { extent.zones.blocks } else { u64::MAX };
    limit.allow_seconds(blocks / u64::from(extent.max_zeroes).min(zone).max(1));
    let how = (Tries::NONE, Order::of_writes(extent));
    run(controller, &mut DmaBuf::empty(), what, &mut limit, how, |turn, _, _| {
        let most = extent.left_in_zone(slba + sent).min(extent.max_zeroes.into());
        let count = (blocks - sent).min(most);
        turn.write_zeroes(
            Zeroes::new(extent, slba + sent, count as u32).flags(flags),
            sent * extent.format.transfer_size() as u64,
        )?;
        sent += count;
        Ok(sent < blocks)
    })
    .map(drop)
}

/// The order in which a call sends its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Several at once, which change nothing; or a single one.
    Any,
    /// Several at once, each tagged with the units of this name before it: if one fails, others may have changed something.
    Parts(&'static str),
    /// One after the other, tagged with the bytes before it: the writes of a zone must arrive in the order of their blocks.
    OneByOne,
}

impl Order {
    fn of((opcode, io): (NvmOpcode, Io<'_>)) -> Self {
        if opcode == NvmOpcode::WRITE { Self::of_writes(io.extent) } else { Self::Any }
    }

    pub(super) fn of_writes(extent: &Extent) -> Self {
        if extent.is_zoned() { Self::OneByOne } else { Self::Parts("byte") }
    }

    /// Adds to `text`, which names a call, the place of the command that failed.
    fn place(self, text: String, tag: u64) -> String {
        match self {
            Self::OneByOne if tag > 0 => format!("{text}, after the first {tag} bytes"),
            Self::Parts(unit) => {
                format!("{text}, in the part from {unit} {tag} on (other parts may have been carried out)")
            }
            Self::Any | Self::OneByOne => text,
        }
    }
}

/// Sends commands until `send` says that there are no more, and waits for them. The commands may use
/// `buffer`; it is returned when all are done. They take `limit` at most, all tries included: `send` is given the tag of a
/// command that failed, from which on it sends again. Returns dwords 0 and 1 of the completion that came last.
pub(super) fn run(
    controller: &Inner,
    buffer: &mut DmaBuf,
    what: What<'_>,
    limit: &mut Limit<'_>,
    (mut tries, order): (Tries, Order),
    mut send: impl FnMut(&mut Turn<'_, u64>, &DmaBuf, Option<u64>) -> Result<bool, Refused<u64>>,
) -> Result<u64> {
    controller.check_owner_of(what)?;
    let _budget = limit.budget();
    // The first of several commands was sent.
    let (mut again, mut has_parts) = (None, false);
    loop {
        let ended = attempt(controller, buffer, what, limit, order, |turn, held| {
            let more = send(turn, held, again.take())?;
            has_parts |= more;
            Ok(more)
        });
        let (status, tag) = match ended {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(failed)) => failed,
            Err(error) if has_parts && order != Order::Any => {
                return Err(error.with_note(" (a part of it may have been carried out)"));
            }
            Err(error) => return Err(error),
        };
        if !tries.again(controller, (status, tag), limit, what)? {
            let text = if has_parts { order.place(what(), tag) } else { what() };
            return Err(Error::of_status(controller.name(), text, status));
        }
        again = Some(tag);
    }
}

/// Sends commands until `send` says that there are no more, or one fails, and waits for them, within `limit`. Returns the status
/// and the tag of the command that failed.
fn attempt(
    controller: &Inner,
    buffer: &mut DmaBuf,
    what: What<'_>,
    limit: &mut Limit<'_>,
    order: Order,
    mut send: impl FnMut(&mut Turn<'_, u64>, &DmaBuf) -> Result<bool, Refused<u64>>,
) -> Result<Result<u64, (Status, u64)>> {
    controller.wait_for_reset(limit, what)?;
    controller.check_pci_error_once(what)?;
    controller.notice_events_once();
    let mut slot = controller.enter_blocking(limit, what)?;
    if let Some(mut before) = slot.take_if(|queue| queue.is_over()) {
        controller.end_queue(&mut before, &mut DmaBuf::empty(), limit);
    }
    let timeout = controller.timeout();
    if slot.is_none() {
        let entries = ENTRIES.min(controller.max_queue_entries());
        let (sgl, mut limit) = ((None, controller.sgl_use()), limit.part(timeout));
        let queue = create(controller, entries, None, sgl, None, PRIORITY, &mut limit);
        *slot = Some(queue.map_err(|error| of_call(controller, error, what))?);
    }
    let backoff = limit.backoff(timeout);
    if backoff.limit().is_zero() {
        // Earlier commands of the call, or the wait for other threads, have used up its time.
        return Err(Error::timeout(controller.name(), what(), limit.whole()));
    }
    // This call owns the buffer until the controller is done with it, whatever happens.
    let mut call = InFlight { controller, slot, held: std::mem::take(buffer), is_over: false };
    let (queue, held) = call.parts();
    match send_all(controller, queue, what, backoff, (&*limit, order), |turn| send(turn, held)) {
        Ok(result) => {
            *buffer = call.end();
            Ok(result)
        }
        Err((error, false)) => {
            *buffer = call.end();
            Err(of_call(controller, error, what))
        }
        Err((mut error, true)) => {
            if matches!(error.failure(), Failure::Timeout { after, .. } if *after < timeout) {
                error = limit.tell(error);
            }
            // Commands may still be in flight: delete the queue, for which it has a deadline of its own. If the controller does
            // not confirm that, the buffer is leaked.
            let mut queue = call.slot.take().expect("made above");
            let mut held = call.end();
            if controller.end_queue(&mut queue, &mut held, &mut controller.limit()) {
                drop(queue);
                *buffer = held;
            } else {
                error.set_kept();
            }
            Err(of_call(controller, error, what))
        }
    }
}

/// A call's queue and buffer while commands may be in flight. If the call ends by a panic, of the program's clock or its
/// subscriber of log events, dropping this leaves both to the controller.
struct InFlight<'c> {
    controller: &'c Inner,
    /// The queue of all calls, which is there.
    slot: Pass<'c, Option<Queue<u64>>>,
    held: DmaBuf,
    is_over: bool,
}

impl InFlight<'_> {
    fn parts(&mut self) -> (&mut Queue<u64>, &DmaBuf) {
        (self.slot.as_mut().expect("made above"), &self.held)
    }

    /// Returns the buffer: nothing is in flight, or the caller ends the queue.
    fn end(&mut self) -> DmaBuf {
        self.is_over = true;
        std::mem::take(&mut self.held)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let queue = if self.is_over { None } else { self.slot.take() };
        if let Some(mut queue) = queue {
            self.controller.abandon_queue(&mut queue, &mut self.held, None);
        }
    }
}

/// Makes the error of a call from that of its queue.
fn of_call(controller: &Inner, error: Error, what: What<'_>) -> Error {
    match error.failure() {
        Failure::Reset { .. } => Error::reset_call(controller.name(), what()),
        _ => error,
    }
}

/// Sends and reaps all commands. Returns `Ok` with the bad status of the least tag once nothing is in flight; otherwise
/// the error, and `true` if commands still are in flight. Neither a command nor the call, by its `limit`, may take too long.
fn send_all(
    controller: &Inner,
    queue: &mut Queue<u64>,
    what: What<'_>,
    mut backoff: Backoff<'_>,
    (limit, order): (&Limit<'_>, Order),
    mut send: impl FnMut(&mut Turn<'_, u64>) -> Result<bool, Refused<u64>>,
) -> Result<Result<u64, (Status, u64)>, (Error, bool)> {
    let (mut more, mut pending, mut result) = (true, 0_u32, Ok(0));
    loop {
        let mut turn = queue.turn().map_err(|error| (error, pending > 0))?;
        let before = pending;
        for done in turn.by_ref() {
            pending -= 1;
            if let Ok(block) = &mut result {
                *block = done.block();
            }
            if let (tag, Err(status), _) = done.into_parts() {
                if result.is_ok() || matches!(result, Err((_, least)) if tag < least) {
                    result = Err((status, tag));
                }
            }
        }
        let progress = before != pending;
        while result.is_ok() && more && (pending == 0 || order != Order::OneByOne) {
            match send(&mut turn) {
                Ok(rest) => {
                    // A fused operation is two commands.
                    pending = turn.len() as u32;
                    more = rest;
                }
                // Wait for the commands that were sent before refusing the rest.
                Err(_) if pending > 0 => break,
                Err(Refused { reason, .. }) => {
                    return Err((Error::refused(controller.name(), what(), reason), false));
                }
            }
        }
        drop(turn);
        if pending == 0 && (result.is_err() || !more) {
            return Ok(result);
        }
        if progress {
            limit.renew(&mut backoff, controller.timeout());
            if !backoff.limit().is_zero() {
                continue;
            }
        }
        controller.pause(&mut backoff, what).map_err(|error| (error, true))?;
    }
}

/// Makes the error of a call that was refused.
pub(super) fn refused(controller: &Inner, what: What<'_>, reason: Refusal) -> Error {
    Error::refused(controller.name(), what(), reason)
}
