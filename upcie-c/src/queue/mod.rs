//! Queues by their handles: a queue pair, and a turn of it that stays open from call to call.
//!
//! The turn is what makes a call cheap: its [lane](upcie_nvme::queue::Lane), in the queue's [station](Station), has the ring
//! positions, so that a submission writes an entry and a slot, and nothing else. It is closed, which rings, before every call
//! that needs the queue pair: waits, arming, recovery, and the look at a controller that is silent.

mod reap;
mod submit;

use crate::{
    abi::QueueOpts,
    controller::Ctrlr,
    errors::{Failure, Result},
    flight::Flight,
    held::Held,
    lists::Lists,
    station::{Seat, Station},
};
use std::{
    ffi::c_void,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};
use upcie_nvme::{
    QueuePair, Wait,
    queue::Returned,
    spec::{CompletionEntry, Status},
};

/// The default of the longest command.
const LONGEST: usize = 2 << 20;
const INTERRUPT: u32 = 1;

/// A queue: all of it that is not in its station.
pub(crate) struct Queue {
    pub(crate) station: &'static Station,
    lists: Option<Lists>,
    flight: Arc<Flight>,
    /// A leaked box, which the open lane uses.
    pair: *mut QueuePair<Held>,
    /// The time of the last look at the controller.
    looked: Instant,
    fd: Option<i32>,
    controller: Arc<Ctrlr>,
    /// Dropped last: the handle is free then.
    seat: Seat,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("controller", &self.controller.controller).finish_non_exhaustive()
    }
}

// SAFETY: the pointers are to what the queue owns or keeps; all of it may move to another thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Makes a queue on a controller, in a station whose handle does not find it yet.
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
        let seat = Seat::take(&controller.space.translation, of.page_size() as u64 - 1, longest)?;
        controller.count_queue()?;
        let made = builder.create::<Held>().map_err(Failure::from).and_then(|mut pair| {
            let lists = Lists::new(of, pair.capacity(), longest)?;
            // SAFETY: a new queue pair; its commands are submitted by the lane alone.
            let slots = unsafe { pair.turn()?.fill_slots(Held::nothing) };
            Ok((pair, lists, slots))
        });
        let (pair, lists, slots) = made.inspect_err(|_| controller.discount_queue(None))?;
        let flight = Arc::new(Flight::new(slots, seat.station));
        controller.heap.watch(&flight);
        controller.watch(&flight);
        let mut queue = Box::new(Self {
            station: seat.station,
            lists: Some(lists),
            flight,
            fd: pair.completion_fd().map(|fd| fd.as_raw_fd()),
            pair: Box::into_raw(Box::new(pair)),
            looked: Instant::now(),
            controller: controller.clone(),
            seat,
        });
        if let Err(failure) = queue.reopen() {
            queue.delete()?;
            return Err(failure);
        }
        Ok(queue)
    }

    /// Lets the queue's handle find it, and returns the handle.
    pub(crate) fn publish(self: Box<Self>) -> usize {
        let handle = self.seat.handle;
        let queue = Box::into_raw(self);
        // SAFETY: from the box.
        unsafe { (*queue).seat.seat(queue.cast()) };
        handle
    }

    /// Closes the lane, and returns the queue pair.
    fn pair(&mut self) -> &mut QueuePair<Held> {
        self.station.lane.close();
        // SAFETY: from a box that the queue owns; the lane, which uses it, is closed.
        unsafe { &mut *self.pair }
    }

    /// Closes the turn, which rings, and opens one: this looks at the controller where that is due.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.station.idle.set(0);
        let station = self.station;
        let turn = self.pair().turn()?;
        // SAFETY: the slots have tags since `create`; the queue pair is in a box, and its only users close the lane.
        unsafe { turn.keep_open(&station.lane) };
        self.flight.refresh();
        Ok(())
    }

    /// Rings, and waits until a completion can be taken.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let how = if self.fd.is_some() { Wait::Interrupt } else { Wait::Poll };
        let waited = self.pair().wait(how, timeout);
        let opened = self.reopen();
        let ready = waited?;
        opened?;
        Ok(ready)
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
        let armed = self.pair().arm();
        let opened = self.reopen();
        armed?;
        opened
    }

    /// Brings the queue back after a reset, and returns the commands that were in flight.
    pub(crate) fn recover(&mut self) -> Result<Vec<(CompletionEntry, *mut c_void)>> {
        self.flight.freeze();
        // A reset from here on is noted again.
        self.flight.take_reset();
        let qid = self.pair().id();
        let returned = match self.pair().recover() {
            Ok(returned) => returned,
            Err(error) => {
                let _ = self.reopen();
                return Err(error.into());
            }
        };
        let ended = returned.into_iter().map(|command| (entry_of(&command, qid), command.tag().user()));
        let ended = ended.collect();
        self.flight.thaw();
        // Another reset meanwhile is the next call's: the commands are returned here or nowhere.
        let _ = self.reopen();
        Ok(ended)
    }

    /// Deletes the queue.
    pub(crate) fn delete(mut self) -> Result<()> {
        self.flight.freeze();
        self.station.lane.close();
        // SAFETY: from `Box::into_raw` in `create`; the lane that used it is closed, and the queue ends here.
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
fn entry_of(command: &Returned<Held>, qid: u16) -> CompletionEntry {
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
