//! One of a job's files: a namespace of a controller, with the job's own queue pair.

use crate::{
    address, controllers,
    controllers::{Open, Wanted},
    custom::Custom,
    errors::Failure,
    form::Form,
    metadata::MetadataMemory,
    placement,
    workload::{BlockBytes, Directive, Plan},
};
use std::{ptr, sync::Arc};
use upcie_nvme::{DmaBuf, Namespace, QueuePair, Wait, protection::Protect, queue::SglUse};

/// Bytes reserved for each trim's range: some controllers read all 4 KiB that a command's ranges can take.
pub(crate) const RANGE_STRIDE: usize = 4096;
/// Stands for the job's memory before it is allocated.
static NO_MEMORY: DmaBuf = DmaBuf::empty();

/// A file of a job.
#[derive(Debug)]
pub(crate) struct Target {
    /// The queue of plain reads and writes. `None` before the job's start, after a failed close, and for a target whose units
    /// need more than these.
    pub(crate) queue: Option<QueuePair<u32>>,
    /// The queue of such a target.
    pub(crate) custom: Option<Box<Custom>>,
    form: Form,
    pub(crate) namespace: Namespace,
    /// The job's memory in this controller's address space, and its address in this process.
    pub(crate) held: *const DmaBuf,
    pub(crate) base: *const u8,
    /// Limit on the bytes of one command: a multiple of the block size.
    pub(crate) piece: usize,
    /// Base-2 logarithm of the block size, for plain reads and writes.
    pub(crate) shift: u32,
    /// Number of commands in flight.
    pub(crate) in_flight: u32,
    /// One range for each I/O unit, [`RANGE_STRIDE`] bytes apart.
    pub(crate) ranges: DmaBuf,
    pub(crate) open: Arc<Open>,
}

impl Target {
    pub(crate) fn open(name: &str, plan: &Plan) -> Result<Self, Failure> {
        let address = address::parse(name).map_err(|error| {
            let mut failure = Failure::from(error);
            failure.text = format!("filename={name}: {}", failure.text);
            failure
        })?;
        let open =
            controllers::open(&address, Wanted { pages: plan.pages, priorities: plan.priority.is_some() })?;
        let namespace = open.controller.namespace(plan.nsid)?;
        namespace.check_usable()?;
        let form = Form::of(&open.controller, &namespace, plan)?;
        let most = form.most().saturating_mul(form.block);
        let target = Self {
            queue: None,
            custom: None,
            form,
            piece: usize::try_from(most).unwrap_or(usize::MAX),
            namespace,
            held: Self::no_memory(),
            base: ptr::null(),
            shift: form.block.trailing_zeros(),
            in_flight: 0,
            ranges: DmaBuf::empty(),
            open,
        };
        let name = target.open.controller.name();
        plan.check_blocks(name, &target.block())?;
        plan.check_zones(name, target.namespace.zones().is_ok())?;
        Ok(target)
    }

    /// Returns the queue pair, if the job has started.
    pub(crate) fn queue(&self) -> Option<&QueuePair<u32>> {
        self.queue.as_ref().or(self.custom.as_deref().map(|custom| &custom.queue))
    }

    /// Returns the queue pair for a wait.
    pub(crate) fn queue_mut(&mut self) -> Option<&mut QueuePair<u32>> {
        match &mut self.queue {
            None => self.custom.as_deref_mut().map(|custom| &mut custom.queue),
            plain => plain.as_mut(),
        }
    }

    /// Returns the bytes of a block in fio's buffers.
    pub(crate) fn block(&self) -> BlockBytes {
        let bytes = self.form.block;
        BlockBytes { bytes, metadata: bytes - self.form.format.data_size() as u64 }
    }

    /// Returns the empty buffer, for a target without memory.
    pub(crate) fn no_memory() -> *const DmaBuf {
        &raw const NO_MEMORY
    }

    /// Returns the bytes of the namespace.
    pub(crate) fn size(&self) -> u64 {
        self.namespace.blocks().saturating_mul(self.form.block)
    }

    /// Makes the queue pair, large enough for all commands that `plan` can have in flight, so that it is never full.
    pub(crate) fn start(&mut self, plan: &Plan) -> Result<(), Failure> {
        let controller = &self.open.controller;
        let refuse = |reason: String| Err(Failure::refused(format!("{}: {reason}", controller.name())));
        let pieces = plan.longest.div_ceil(self.piece as u64).max(1);
        let needed = u64::from(plan.depth) * pieces;
        let why = || match pieces {
            1 => format!("iodepth={}", plan.depth),
            _ => format!(
                "iodepth={} with bs of {} bytes, which takes {pieces} commands of at most {} bytes (MDTS) each,",
                plan.depth, plan.longest, self.piece
            ),
        };
        let room = u64::from(controller.max_depth()) - 1;
        let commands = match u64::from(plan.queue_depth) {
            0 if needed > room => {
                return refuse(format!(
                    "{} needs a queue of {needed} commands, and the controller has room for {room} (CAP.MQES)",
                    why()
                ));
            }
            0 => needed,
            given if given > room => {
                return refuse(format!(
                    "upcie_queue_depth={given} is more than the {room} commands that a queue of the controller has room \
                     for (CAP.MQES)"
                ));
            }
            given if given < needed => {
                return refuse(format!(
                    "upcie_queue_depth={given} is less than the {needed} commands that {} has in flight",
                    why()
                ));
            }
            given => given,
        };
        let longest = (self.piece as u64).min(plan.longest);
        let mut builder = controller.queue_pair().depth(commands as u32 + 1);
        let lists = self.list_memory(commands, longest);
        builder = match plan.blocks.sgl {
            // A descriptor has the bytes of two entries.
            true => builder.sgl(SglUse::Always).list_memory(lists.saturating_mul(2)),
            false => builder.list_memory(lists),
        };
        if plan.wait != Wait::Poll {
            builder = builder.interrupt(self.vector()?);
        }
        if let Some(priority) = plan.priority {
            builder = builder.priority(priority);
        }
        let queue = builder.create()?;
        if plan.directive == Directive::Streams {
            placement::enable_streams(controller, &self.namespace)?;
        }
        if self.form.is_plain() {
            self.queue = Some(queue);
        } else {
            self.form.check_room(controller.name(), &plan.blocks, plan.longest)?;
            let metadata = MetadataMemory::new(controller, &self.form, plan.depth, plan.longest)?;
            let verified = self.form.format.protection().map(|_| plan.blocks.protect_verify());
            // Without options the controller makes the protection information of zeros, as it does for data.
            let implied = self.form.format.protection().map(|_| Protect::new().action());
            let zeroed = self.form.protect.or(implied);
            let to_check = Vec::with_capacity(plan.depth as usize);
            let form = self.form;
            self.custom = Some(Box::new(Custom { queue, form, metadata, verified, zeroed, to_check }));
        }
        if plan.trims {
            self.ranges =
                controller.heap().alloc_aligned(plan.depth as usize * RANGE_STRIDE, RANGE_STRIDE)?;
        }
        Ok(())
    }

    /// Returns the bytes of PRP lists for `commands` commands of `longest` bytes, so that lists are never lacking. Lists
    /// are allocated in chunks of the longest transfer's list, at most a page.
    fn list_memory(&self, commands: u64, longest: u64) -> usize {
        let page = self.open.controller.page_size() as u64;
        let entries = |bytes: u64| (bytes / page + 2) * 8;
        let chunk = entries(self.open.controller.max_transfer() as u64).next_power_of_two().min(page);
        // Two pages need no list.
        let chunks = if longest + page <= 2 * page { 0 } else { (entries(longest) + 8).div_ceil(chunk) };
        usize::try_from(commands * chunks * chunk).unwrap_or(usize::MAX)
    }

    /// Returns an interrupt vector; the admin queue's only if there is no other.
    fn vector(&self) -> Result<u16, Failure> {
        let count = self.open.controller.vectors()?;
        let next = self.open.next_vector();
        Ok(if count < 2 { 0 } else { 1 + next % (count - 1) })
    }

    /// Deletes the queue pair; `false` if the controller does not confirm that it no longer uses the job's memory.
    pub(crate) fn stop(&mut self) -> bool {
        let (mut queue, mut metadata) = (self.queue.take(), DmaBuf::empty());
        if let Some(mut custom) = self.custom.take() {
            metadata = custom.metadata.take();
            queue = Some(custom.queue);
        }
        let closed = queue.is_none_or(|queue| queue.close().is_ok());
        let ranges = std::mem::take(&mut self.ranges);
        if !closed {
            self.open.controller.keep(ranges);
            self.open.controller.keep(metadata);
        }
        self.in_flight = 0;
        closed
    }
}
