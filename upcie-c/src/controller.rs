//! Controllers by their handles: opened in the heap's address spaces, asked, reset, and used for single commands.

use crate::{
    abi::{Info, IoVec, Opts, QueueOpts, text},
    errors::{Failure, Result},
    flight::Flight,
    handles::Kind,
    heap::{Heap, Space},
    held::Range,
    pieces::{covered, too_long},
    queue::Queue,
};
use std::{
    mem::ManuallyDrop,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use upcie_nvme::{
    Address, Controller, DmaBuf, ErrorKind, ResetKind,
    spec::{Command, CompletionEntry},
    upcie_core::device::Device,
};

/// The default limit of admin and synchronous commands.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An open controller.
#[derive(Debug)]
pub(crate) struct Ctrlr {
    /// Dropped first: the controller stops, and then its address space may end.
    pub(crate) controller: ManuallyDrop<Controller>,
    pub(crate) space: Arc<Space>,
    pub(crate) heap: Arc<Heap>,
    timeout: Duration,
    uses: Mutex<Uses>,
    /// The queue of [`io`](Self::io). It keeps the controller open, and ends in [`close`](Self::close).
    own: Mutex<Option<Box<Queue>>>,
}

#[derive(Debug, Default)]
struct Uses {
    queues: usize,
    closed: bool,
    flights: Vec<Weak<Flight>>,
    /// Commands of queues whose deletion was not confirmed: their memory stays in use.
    stuck: Vec<Arc<Flight>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the reason why an admin command is the driver's own, if it is.
fn reserved(command: &Command) -> Option<&'static str> {
    let feature = command.cdw10 as u8;
    match command.opcode {
        0x00 | 0x01 | 0x04 | 0x05 => {
            Some("creates or deletes a queue: use upcie_queue_create and upcie_queue_delete")
        }
        0x0c => Some("asks for events, which the driver does"),
        // The data is copied, and the copy ends with the command.
        0x45 => Some("gives the controller memory that it writes to until the queue is deleted"),
        0x7c => Some("gives the controller memory for doorbells"),
        0x09 if feature == 0x07 => Some("sets the number of queues: use upcie_opts.queues"),
        0x09 if feature == 0x0d => Some("gives the controller host memory"),
        _ => None,
    }
}

impl Ctrlr {
    /// Opens a controller, beside another one of the heap where the transport can.
    pub(crate) fn open(heap: &Arc<Heap>, address: &str, opts: Opts) -> Result<Arc<Self>> {
        if opts.reserved != [0; 3] {
            return Err(Failure::argument("upcie_opts has a reserved field that must be 0"));
        }
        let address: Address = address.parse()?;
        let given = Duration::from_millis(opts.timeout_ms.into());
        let timeout = if given.is_zero() { TIMEOUT } else { given };
        let mut builder = Controller::builder().timeout(timeout);
        if opts.queues > 0 {
            builder = builder.queues(opts.queues);
        }
        let _opening = lock(&heap.opening);
        let mut opened = None;
        if let Address::Device(_) = address {
            for neighbour in heap.neighbours() {
                match builder.clone().open_beside(&neighbour.controller, &address) {
                    Ok(controller) => {
                        opened = Some(controller);
                        break;
                    }
                    // Another transport, or another page size: it gets a space of its own.
                    Err(error) if error.kind() == ErrorKind::Unsupported => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let controller = opened.map_or_else(|| builder.open(&address), Ok)?;
        Self::join(heap, controller, timeout)
    }

    /// Opens a controller on a device of the caller's.
    pub(crate) fn on_device(heap: &Arc<Heap>, device: Arc<dyn Device>) -> Result<Arc<Self>> {
        let _opening = lock(&heap.opening);
        Self::join(heap, Controller::builder().from_device(device)?, TIMEOUT)
    }

    /// Maps the heap's memory for a controller that was opened.
    fn join(heap: &Arc<Heap>, controller: Controller, timeout: Duration) -> Result<Arc<Self>> {
        let space = heap.join(controller.heap().space())?;
        let made = Arc::new(Self {
            controller: ManuallyDrop::new(controller),
            space,
            heap: heap.clone(),
            timeout,
            uses: Mutex::default(),
            own: Mutex::default(),
        });
        heap.opened(&made);
        Ok(made)
    }

    /// Refuses further queues; a controller that has some stays open.
    pub(crate) fn close(&self) -> Result<()> {
        let own = lock(&self.own).take();
        if let Some(queue) = own {
            // What it could not end goes to the controller, which is stopped next.
            let _ = queue.delete();
        }
        let mut uses = lock(&self.uses);
        if uses.queues > 0 {
            return Err(Failure::new(
                libc::EBUSY,
                format!("{}: {} queues are open: delete them first", self.controller.name(), uses.queues),
            ));
        }
        uses.closed = true;
        Ok(())
    }

    /// Counts a new queue.
    pub(crate) fn count_queue(&self) -> Result<()> {
        let mut uses = lock(&self.uses);
        if uses.closed {
            return Err(Kind::Controller.bad());
        }
        uses.queues += 1;
        Ok(())
    }

    /// Ends the count of a queue. `stuck` are its commands if the controller may still use their memory.
    pub(crate) fn discount_queue(&self, stuck: Option<Arc<Flight>>) {
        let mut uses = lock(&self.uses);
        uses.queues -= 1;
        uses.stuck.extend(stuck);
    }

    /// Lets a queue know of resets.
    pub(crate) fn watch(&self, flight: &Arc<Flight>) {
        let mut uses = lock(&self.uses);
        uses.flights.retain(|flight| flight.strong_count() > 0);
        uses.flights.push(Arc::downgrade(flight));
    }

    /// Resets the controller. Its queues take no command until they are recovered.
    pub(crate) fn reset(&self, kind: ResetKind) -> Result<()> {
        self.controller.reset_by(kind)?;
        lock(&self.uses).flights.iter().filter_map(Weak::upgrade).for_each(|flight| flight.note_reset());
        Ok(())
    }

    pub(crate) fn info(&self) -> Info {
        let (controller, identify) = (&self.controller, self.controller.identify());
        Info {
            size: 0,
            timeout_ms: self.timeout.as_millis() as u32,
            max_transfer: controller.max_transfer() as u32,
            max_depth: controller.max_depth(),
            page_size: controller.page_size() as u32,
            version: controller.version().into_bits(),
            queues: controller.max_queue_pairs(),
            vectors: controller.irq_kind().and_then(|_| controller.vectors().ok()).unwrap_or(0),
            reserved: 0,
            address: text(controller.name()),
            model: text(&identify.model()),
            serial: text(&identify.serial()),
            firmware: text(&identify.firmware()),
            padding: [0; 5],
        }
    }

    /// Runs an admin command; its data is copied, so that a controller that answers late writes to memory of the
    /// driver's.
    ///
    /// # Safety
    /// If the ranges are memory of the heap, they may be read and written.
    pub(crate) unsafe fn admin(
        &self,
        mut command: Command,
        data: Range,
        meta: Range,
    ) -> Result<CompletionEntry> {
        if let Some(reason) = reserved(&command) {
            let text = format!("{}: admin command {:#04x} {reason}", self.controller.name(), command.opcode);
            return Err(Failure::new(libc::EPERM, text));
        }
        if data.len > self.controller.max_transfer() {
            return Err(too_long());
        }
        // Until the copies are made.
        let _lent = self.heap.lend([data, meta]);
        for range in [data, meta] {
            covered(&self.space.translation, range.at, range.len)?;
        }
        let (mut buffer, metadata) = (self.bounce(data.len)?, self.bounce(meta.len)?);
        command.flags &= !PSDT;
        command.set_data_pointer(buffer.prepared().iova, buffer.prepared().second);
        command.set_metadata_pointer(metadata.prepared().iova);
        // Bits 0 and 1 of an opcode: data goes to the controller, and from it.
        let (to, from) = match command.opcode & 3 {
            0 => (true, true),
            bits => (bits & 1 != 0, bits & 2 != 0),
        };
        if to {
            // SAFETY: the range was checked to be the heap's, and the buffer is as long at least.
            unsafe { copy(at(data), buffer.as_ptr(), data.len) };
            // SAFETY: the metadata's range was checked to be the heap's, and its buffer is as long at least.
            unsafe { copy(at(meta), metadata.as_ptr(), meta.len) };
        }
        let has_data = !buffer.is_empty();
        if has_data {
            buffer.chain(metadata);
        } else {
            buffer = metadata;
        }
        // SAFETY: the pointers name `buffer` and its chain, which the command owns. Commands that would change what the
        // driver owns were refused; a program that changes namespaces with commands in flight sees their statuses.
        let (entry, mut buffer) = unsafe { self.controller.admin_entry(&command, buffer) }?;
        if from && entry.is_success() {
            let metadata = if has_data { buffer.unchain() } else { None };
            let (first, second) = if has_data { (data, meta) } else { (meta, Range::default()) };
            // SAFETY: the range was checked to be the heap's, and the buffer is as long at least.
            unsafe { copy(buffer.as_ptr(), at(first), first.len) };
            if let Some(metadata) = metadata.filter(|_| second.len > 0) {
                // SAFETY: the metadata's range was checked to be the heap's, and its buffer is as long at least.
                unsafe { copy(metadata.as_ptr(), at(second), second.len) };
            }
        }
        Ok(entry)
    }

    /// Runs an I/O command on a queue of its own, and waits for it.
    ///
    /// # Safety
    /// If the ranges are memory of the heap, they may be read and written until the command has ended, and until the
    /// controller is closed if it is not known to have ended.
    pub(crate) unsafe fn io(
        self: &Arc<Self>,
        command: &Command,
        data: &[IoVec],
        meta: Range,
    ) -> Result<CompletionEntry> {
        let mut own = lock(&self.own);
        // After a reset, or a deletion that the last call began, the queue is made anew.
        if own.as_mut().is_some_and(|queue| queue.reopen().is_err()) {
            if let Some(queue) = own.take() {
                queue.delete()?;
            }
        }
        let queue = match &mut *own {
            Some(queue) => queue,
            none => {
                let opts = QueueOpts { depth: 2, ..zerocopy::FromZeros::new_zeroed() };
                none.insert(Queue::create(self, opts)?)
            }
        };
        // SAFETY: the caller's promise.
        unsafe { queue.submit_pieces(command, data, meta, std::ptr::null_mut()) }?;
        match queue.finish_one(self.timeout) {
            Ok(entry) => Ok(entry),
            Err(failure) => {
                // The deletion ends the command; without it the memory stays in use.
                if let Some(queue) = own.take() {
                    queue.delete()?;
                }
                Err(failure)
            }
        }
    }

    /// Allocates memory that a command's data is copied through.
    fn bounce(&self, len: usize) -> Result<DmaBuf> {
        if len == 0 {
            return Ok(DmaBuf::empty());
        }
        let page = self.controller.page_size();
        Ok(self.controller.heap().alloc_aligned(len.next_multiple_of(page), page)?)
    }
}

impl Drop for Ctrlr {
    fn drop(&mut self) {
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.controller) };
        self.heap.left(&self.space);
    }
}

/// Bits 7:6 of a command's flags: the kind of its data pointer.
pub(crate) const PSDT: u8 = 0xc0;

fn at(range: Range) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(range.at)
}

/// Copies `len` bytes, if there are any.
///
/// # Safety
/// `from` and `to` have so many bytes, which don't overlap.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}
