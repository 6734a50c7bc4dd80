//! Queues by their handles: a queue pair, and a turn of it that stays open from call to call.
//!
//! The turn is what makes a call cheap: it has the ring positions, so that a submission writes an entry, a slot and a
//! record, and nothing else. It is closed, which rings, before every call that needs the queue pair: waits, arming,
//! recovery, and the look at a controller that is silent.

use crate::{
    abi::{Completion, IoVec, QueueOpts, Request},
    controller::{Ctrlr, PSDT},
    errors::{Failure, Result, of_refusal},
    flight::{Flight, Range, Record},
    guard::Guard,
    lists::Lists,
    pieces::{Pages, contiguous, too_long, total},
    translation::{BIG_BYTES, Translation},
};
use std::{
    ffi::c_void,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};
use upcie_nvme::{
    DmaBuf, QueuePair, Turn, Wait,
    queue::Returned,
    spec::{Command, CompletionEntry, Status},
};

/// Calls of poll in a row that find nothing, before the controller is looked at.
const IDLE: u32 = 1024;
/// The controller of a silent queue is looked at this often.
const QUIET: Duration = Duration::from_millis(100);
/// The default of the longest command.
const LONGEST: usize = 2 << 20;
const INTERRUPT: u32 = 1;

/// A program's pointer: it comes back as it is, and is never followed.
#[derive(Debug, Clone, Copy)]
struct User(*mut c_void);

// SAFETY: a number here.
unsafe impl Send for User {}

/// A queue.
pub(crate) struct Queue {
    /// Absent while the queue pair takes no turns.
    turn: Option<Turn<'static, User>>,
    translation: *const Translation,
    records: *const Record,
    /// The controller's page, less one.
    mask: u64,
    longest: usize,
    /// Polls in a row that found nothing.
    idle: u32,
    /// Polls that are in progress.
    polls: u32,
    /// The time of the last look at the controller.
    looked: Instant,
    pub(crate) guard: Guard,
    /// From a box; the turn borrows it.
    pair: *mut QueuePair<User>,
    lists: Option<Lists>,
    flight: Arc<Flight>,
    fd: Option<i32>,
    controller: Arc<Ctrlr>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("controller", &self.controller.controller).finish_non_exhaustive()
    }
}

// SAFETY: the pointers are to what the queue owns or keeps; all of it may move to another thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Makes a queue on a controller.
    pub(crate) fn create(controller: &Arc<Ctrlr>, opts: QueueOpts) -> Result<Box<Self>> {
        let of = &controller.controller;
        if opts.flags & !INTERRUPT != 0 || opts.reserved0 != 0 || opts.reserved != [0; 2] {
            return Err(Failure::argument("upcie_queue_opts has a flag or a reserved field that must be 0"));
        }
        let longest = match opts.max_transfer as usize {
            0 => of.max_transfer().min(LONGEST),
            bytes if bytes > of.max_transfer() => {
                return Err(Failure::argument(format!(
                    "commands of {bytes} bytes: {} takes {} at once",
                    of.name(),
                    of.max_transfer()
                )));
            }
            bytes => bytes.max(of.page_size()),
        };
        // A queue pair's own lists are not used.
        let mut builder = of.queue_pair().list_memory(0);
        if opts.depth > 0 {
            builder = builder.depth(opts.depth);
        }
        if opts.flags & INTERRUPT != 0 {
            builder = builder.interrupt(opts.vector);
        }
        controller.count_queue()?;
        let made = builder.create::<User>().map_err(Failure::from).and_then(|pair| {
            let lists = Lists::new(of, pair.capacity(), longest)?;
            Ok((pair, lists))
        });
        let (pair, lists) = made.inspect_err(|_| controller.discount_queue(None))?;
        let flight = Arc::new(Flight::new(pair.capacity()));
        controller.heap.watch(&flight);
        let fd = pair.completion_fd().map(|fd| fd.as_raw_fd());
        let mut queue = Box::new(Self {
            turn: None,
            translation: &raw const controller.space.translation,
            records: flight.first(),
            mask: of.page_size() as u64 - 1,
            longest,
            idle: 0,
            polls: 0,
            looked: Instant::now(),
            guard: Guard::default(),
            pair: Box::into_raw(Box::new(pair)),
            lists: Some(lists),
            flight,
            fd,
            controller: controller.clone(),
        });
        if let Err(failure) = queue.reopen() {
            queue.delete()?;
            return Err(failure);
        }
        Ok(queue)
    }

    /// Returns the queue pair, while no turn is open.
    fn pair(&mut self) -> &mut QueuePair<User> {
        debug_assert!(self.turn.is_none());
        // SAFETY: from a box that the queue owns; the turn, which borrows it, is closed.
        unsafe { &mut *self.pair }
    }

    /// Closes the turn, which rings, and opens one: this looks at the controller where that is due.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.turn = None;
        self.idle = 0;
        // SAFETY: from a box that the queue owns; the turn that borrows it is dropped before the box is used otherwise.
        let pair: &'static mut QueuePair<User> = unsafe { &mut *self.pair };
        self.turn = Some(pair.turn()?);
        Ok(())
    }

    /// Returns the failure of a submission that the turn has no room for.
    #[cold]
    fn why_full(&mut self) -> Failure {
        let Some(turn) = &self.turn else {
            return self.reopen().err().unwrap_or_else(|| of_refusal(upcie_nvme::Refusal::Closed));
        };
        if turn.len() < self.flight.len() {
            // Closed during the turn, by a reset or a forged completion.
            return self.reopen().err().unwrap_or_else(|| of_refusal(upcie_nvme::Refusal::Full));
        }
        of_refusal(upcie_nvme::Refusal::Full)
    }

    /// Submits a command with one piece of data, of at most two pages in memory that is mapped by 2 MiB, and without
    /// metadata. Returns `false` for all others, and if there is no room: nothing was done, and
    /// [`submit_pieces`](Self::submit_pieces) is for them.
    ///
    /// # Safety
    /// If the range is memory of the heap, it may be read and written by the controller until the command has ended.
    /// `command` is valid for reads of 64 bytes.
    #[inline(always)]
    pub(crate) unsafe fn submit_plain(
        &mut self,
        command: *const u8,
        data: usize,
        len: usize,
        user: *mut c_void,
    ) -> bool {
        let Some(turn) = &mut self.turn else { return false };
        // SAFETY: the controller, which the queue keeps, keeps its space.
        let Some(run) = (unsafe { &*self.translation }).find_big(data) else { return false };
        let (prp1, mask) = (run.iova, self.mask);
        let left = mask - (prp1 & mask);
        // No bytes at all are more than any page has.
        let last = (len as u64).wrapping_sub(1);
        let mut prp2 = 0;
        if last > left {
            if last > left + mask + 1 || len > run.len || len > self.longest {
                return false;
            }
            prp2 = (prp1 | mask) + 1;
        }
        if prp1 & 3 != 0 {
            return false;
        }
        let record = self.records.wrapping_add(turn.next_slot() as usize);
        // SAFETY: a slot of the queue, for which there is a record; a full queue's is that behind the last.
        let record = unsafe { &*record };
        record.begin(data, len);
        // SAFETY: the pointers name memory of the heap, which stays mapped while the record holds it; the rest is the
        // caller's promise.
        let is_sent = unsafe { turn.submit_copy(command, 0, [prp1, prp2], User(user)) };
        if !is_sent {
            record.end();
        }
        is_sent
    }

    /// Submits commands in order, and returns their number; the failure of the first one, if it can't be submitted.
    ///
    /// # Safety
    /// If the requests' data is memory of the heap, it may be read and written by the controller until the command has
    /// ended.
    pub(crate) unsafe fn submit_many(&mut self, requests: &[Request]) -> Result<usize> {
        let mut sent = 0;
        loop {
            // SAFETY: the caller's promise.
            sent += unsafe { self.submit_run(&requests[sent..]) };
            let Some(request) = requests.get(sent) else { return Ok(sent) };
            let piece =
                IoVec { base: std::ptr::without_provenance_mut(request.data), len: request.data_size };
            let user = std::ptr::without_provenance_mut(request.user);
            let command: Command = zerocopy::transmute!(request.cmd);
            // SAFETY: the caller's promise.
            match unsafe { self.submit_pieces(&command, &[piece], Range::default(), user) } {
                Ok(()) => sent += 1,
                Err(failure) if sent == 0 => return Err(failure),
                Err(_) => return Ok(sent),
            }
        }
    }

    /// Submits requests up to the first that is not plain ([`submit_plain`](Self::submit_plain)), and returns their
    /// number.
    ///
    /// # Safety
    /// The obligations are those of [`submit_many`](Self::submit_many).
    // Out of line: what its caller has in registers would push the turn's positions out of them.
    #[inline(never)]
    unsafe fn submit_run(&mut self, requests: &[Request]) -> usize {
        // In a variable of its own the turn's positions stay in registers.
        let Some(mut turn) = self.turn.take() else { return 0 };
        // SAFETY: the controller, which the queue keeps, keeps its space.
        let translation = unsafe { &*self.translation };
        let (records, mask, longest) = (self.records, self.mask, self.longest);
        let (mut known, mut base) = (usize::MAX, 0);
        let mut sent = 0;
        for request in requests {
            let (data, len) = (request.data, request.data_size);
            if data / BIG_BYTES != known {
                let Some(run) = translation.find_big(data & !(BIG_BYTES - 1)) else { break };
                (known, base) = (data / BIG_BYTES, run.iova);
            }
            let offset = data & (BIG_BYTES - 1);
            let prp1 = base + offset as u64;
            let left = mask - (prp1 & mask);
            let last = (len as u64).wrapping_sub(1);
            let mut prp2 = 0;
            if last > left {
                if last > left + mask + 1 || len > BIG_BYTES - offset || len > longest {
                    break;
                }
                prp2 = (prp1 | mask) + 1;
            }
            if prp1 & 3 != 0 {
                break;
            }
            let record = records.wrapping_add(turn.next_slot() as usize);
            // SAFETY: a slot of the queue, for which there is a record; a full queue's is that behind the last.
            let record = unsafe { &*record };
            record.begin(data, len);
            let user = User(std::ptr::without_provenance_mut(request.user));
            let command = (&raw const request.cmd).cast();
            // SAFETY: the pointers name memory of the heap, which stays mapped while the record holds it.
            if !unsafe { turn.submit_copy(command, 0, [prp1, prp2], user) } {
                record.end();
                break;
            }
            sent += 1;
        }
        self.turn = Some(turn);
        sent
    }

    /// Stores completed commands, and returns their number.
    ///
    /// # Safety
    /// `completions` is valid for writes of `max`.
    // Out of line, for the reason at `submit_run`.
    #[inline(never)]
    pub(crate) unsafe fn reap(&mut self, completions: *mut Completion, max: usize) -> usize {
        // In a variable of its own the turn's positions stay in registers.
        let Some(mut turn) = self.turn.take() else { return 0 };
        let records = self.records;
        let mut count = 0;
        while count < max {
            let Some((entry, slot, done)) = turn.next_entry() else { break };
            let record = records.wrapping_add(slot as usize);
            // SAFETY: a slot of the queue is below its capacity, and so many records there are.
            unsafe { &*record }.end();
            let completion = Completion { user: done.tag().0.addr(), cqe: zerocopy::transmute!(entry) };
            // SAFETY: the caller's, which has room for `max`.
            unsafe { completions.wrapping_add(count).write(completion) };
            count += 1;
        }
        self.turn = Some(turn);
        count
    }

    /// Submits a command with data in any number of pieces, and metadata.
    ///
    /// # Safety
    /// If the ranges are memory of the heap, they may be read and written by the controller until the command has
    /// ended.
    #[inline(never)]
    pub(crate) unsafe fn submit_pieces(
        &mut self,
        command: &Command,
        data: &[IoVec],
        meta: Range,
        user: *mut c_void,
    ) -> Result<()> {
        if self.turn.as_ref().is_none_or(Turn::is_full) {
            return Err(self.why_full());
        }
        let (Some(turn), Some(lists)) = (&mut self.turn, &self.lists) else {
            return Err(of_refusal(upcie_nvme::Refusal::Closed));
        };
        if total(data)? > self.longest {
            return Err(too_long());
        }
        let slot = turn.next_slot();
        // SAFETY: the controller, which the queue keeps, keeps its space.
        let translation = unsafe { &*self.translation };
        let mut pages = Pages::new(self.mask, lists.place(slot));
        for piece in data {
            pages.add(translation, piece.base.addr(), piece.len)?;
        }
        let (prp1, prp2) = pages.finish();
        let mut command = *command;
        command.flags &= !PSDT;
        command.set_data_pointer(prp1, prp2);
        command.set_metadata_pointer(0);
        if meta.len > 0 {
            let mptr = contiguous(translation, meta.at, meta.len)?;
            if mptr % 4 != 0 {
                return Err(Failure::argument("metadata must begin at a multiple of 4"));
            }
            command.set_metadata_pointer(mptr);
        }
        let Some(record) = self.flight.get(slot) else {
            return Err(of_refusal(upcie_nvme::Refusal::Full));
        };
        let pieces = data.iter().map(|piece| Range { at: piece.base.addr(), len: piece.len });
        record.begin_with(std::iter::once(meta).chain(pieces));
        // SAFETY: the pointers name memory of the heap, which stays mapped while the record holds it, and the slot's
        // list.
        match unsafe { turn.submit_raw(&command, DmaBuf::empty(), User(user)) } {
            Ok(()) => Ok(()),
            Err(refused) => {
                record.end();
                Err(of_refusal(refused.reason))
            }
        }
    }

    /// Writes the doorbells.
    #[inline(always)]
    pub(crate) fn ring(&mut self) -> Result<()> {
        match &mut self.turn {
            Some(turn) => {
                turn.ring();
                // Full, or closed by a reset.
                if turn.is_full() { self.check_full() } else { Ok(()) }
            }
            None => self.reopen(),
        }
    }

    #[cold]
    fn check_full(&mut self) -> Result<()> {
        if self.turn.as_ref().is_some_and(|turn| turn.len() >= self.flight.len()) {
            return Ok(());
        }
        self.reopen()
    }

    /// Returns the next completed command: its entry, and the program's pointer. Its slot is free.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(CompletionEntry, *mut c_void)> {
        let (entry, slot, done) = self.turn.as_mut()?.next_entry()?;
        let record = self.records.wrapping_add(slot as usize);
        // SAFETY: a slot of the queue is below its capacity, and so many records there are.
        unsafe { &*record }.end();
        Some((entry, done.tag().0))
    }

    /// Notes the begin or the end of a poll, within which the queue can't be deleted.
    #[inline(always)]
    pub(crate) fn begin_poll(&mut self) -> Result<()> {
        if self.turn.is_none() {
            self.reopen()?;
        }
        self.polls += 1;
        Ok(())
    }

    /// Ends a poll that found `count` completions.
    #[inline(always)]
    pub(crate) fn end_poll(&mut self, count: u32) -> Result<()> {
        self.polls -= 1;
        if count > 0 {
            self.idle = 0;
            return Ok(());
        }
        self.idle += 1;
        if self.idle < IDLE { Ok(()) } else { self.look() }
    }

    /// Opens a turn in place of one that found nothing for long, which tells that the controller was reset. Now and
    /// then, if commands are in flight, looks at the controller itself: that may be a message to its server.
    #[cold]
    fn look(&mut self) -> Result<()> {
        self.reopen()?;
        if self.in_flight() == 0 || self.looked.elapsed() < QUIET {
            return Ok(());
        }
        self.turn = None;
        let looked = self.pair().wait(Wait::Poll, Duration::ZERO);
        self.looked = Instant::now();
        self.reopen()?;
        looked?;
        Ok(())
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.polls > 0
    }

    /// Returns the number of commands in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.turn.as_ref().map_or(0, Turn::len)
    }

    /// Rings, and waits until a completion can be taken.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let how = if self.fd.is_some() { Wait::Interrupt } else { Wait::Poll };
        self.turn = None;
        let waited = self.pair().wait(how, timeout);
        let opened = self.reopen();
        let ready = waited?;
        opened?;
        Ok(ready)
    }

    /// Waits for the one command in flight.
    pub(crate) fn finish_one(&mut self, timeout: Duration) -> Result<CompletionEntry> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let ready = self.wait(left)?;
            if let Some((entry, _)) = self.next() {
                return Ok(entry);
            }
            if !ready && left.is_zero() {
                return Err(Failure::new(
                    libc::ETIMEDOUT,
                    format!(
                        "{}: a command was not completed within {timeout:?}",
                        self.controller.controller.name()
                    ),
                ));
            }
        }
    }

    /// Returns the descriptor of the queue's interrupts.
    pub(crate) fn fd(&self) -> Result<i32> {
        self.fd.ok_or_else(|| {
            Failure::argument("the queue was made without UPCIE_QUEUE_INTERRUPT, so it has no descriptor")
        })
    }

    /// Rings, and asks for the next interrupt.
    pub(crate) fn arm(&mut self) -> Result<()> {
        self.fd()?;
        self.turn = None;
        let armed = self.pair().arm();
        let opened = self.reopen();
        armed?;
        opened
    }

    /// Brings the queue back after a reset, and returns the commands that were in flight.
    pub(crate) fn recover(&mut self) -> Result<Vec<(CompletionEntry, *mut c_void)>> {
        self.turn = None;
        let qid = self.pair().id();
        let returned = self.pair().recover();
        let returned = match returned {
            Ok(returned) => returned,
            Err(error) => {
                let _ = self.reopen();
                return Err(error.into());
            }
        };
        self.flight.clear();
        let ended = returned.into_iter().map(|command| (entry_of(&command, qid), command.tag().0));
        let ended = ended.collect();
        self.reopen()?;
        Ok(ended)
    }

    /// Deletes the queue.
    pub(crate) fn delete(mut self) -> Result<()> {
        self.turn = None;
        // SAFETY: from `Box::into_raw` in `create`; the turn that borrowed it is closed, and the queue ends here.
        let pair = unsafe { Box::from_raw(self.pair) };
        let lists = self.lists.take().map(Lists::into_memory).unwrap_or_default();
        match pair.close() {
            Ok(returned) => {
                drop(returned);
                self.flight.clear();
                self.controller.discount_queue(None);
                Ok(())
            }
            Err(error) => {
                // The controller may still read the lists, and use the memory of the commands.
                self.controller.controller.keep(lists);
                self.controller.discount_queue(Some(self.flight.clone()));
                Err(error.into())
            }
        }
    }
}

/// Makes the entry of a command that comes back without a turn.
fn entry_of(command: &Returned<User>, qid: u16) -> CompletionEntry {
    let (dw0, dw1, status) = match command {
        Returned::Completed(done) => (done.dword0(), done.dword1(), done.status()),
        Returned::Unknown { .. } => (0, 0, Status::ABORTED_BY_HOST),
    };
    CompletionEntry {
        dw0,
        dw1,
        sqid: qid,
        status_phase: status.into_bits() << 1,
        ..CompletionEntry::default()
    }
}
