//! A job: the I/O of one of fio's threads.

use crate::{
    errors::Failure,
    ffi::{self, Op, Shared, Slot},
    memory::IoMemory,
    target::Target,
    workload::{Plan, check_block},
};
use std::{ffi::c_void, ptr};
use upcie_nvme::{
    QueueGroup, QueuePair, Refusal,
    queue::GroupMember,
    spec::{ProtectionField, Status},
};

/// A unit that failed before its submission.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsent {
    pub(crate) index: u32,
    pub(crate) reason: Refusal,
}

/// A pointer from `Box::into_raw` to a target of the job that holds this.
#[derive(Debug)]
pub(crate) struct TargetPtr(pub(crate) *mut Target);

impl GroupMember for TargetPtr {
    type Tag = u32;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<u32>> {
        // SAFETY: a box that the job owns, which has one pointer to each; the shim only returns their addresses.
        let target = unsafe { &mut *self.0 };
        if target.in_flight > 0 { target.queue_mut() } else { None }
    }
}

/// A job. `repr(C)`, because the shim accesses the first field.
#[derive(Debug)]
#[repr(C)]
pub struct Job {
    pub(crate) shared: Shared,
    /// The job's files.
    pub(crate) targets: Vec<TargetPtr>,
    /// Units to be reaped with an error: the first `unsent_count`.
    pub(crate) unsent: Box<[Unsent]>,
    pub(crate) unsent_count: usize,
    /// The errno of the failure that ended the job's I/O, or 0.
    pub(crate) broken: i32,
    /// Seconds that have passed, as far as ticks were reported.
    pub(crate) tick: u32,
    pub(crate) plan: Plan,
    /// The waits for the targets, and the number of events given to fio.
    pub(crate) group: QueueGroup,
    pub(crate) given: u64,
    /// fio's structure of the job's thread.
    pub(crate) thread: *mut c_void,
    memory: Option<IoMemory>,
    started: bool,
    /// Statuses and refusals that were printed already.
    pub(crate) printed: Vec<Status>,
    pub(crate) printed_refusals: Vec<Refusal>,
    pub(crate) printed_fields: Vec<ProtectionField>,
}

/// Makes a box and returns its pointer only, because C writes through it.
fn leak<T>(values: impl Iterator<Item = T>) -> *mut T {
    Box::into_raw(values.collect::<Box<[T]>>()).cast()
}

/// Frees an array from [`leak`].
///
/// # Safety
/// `values` is from `leak`, has `count` values, and is not used afterwards.
unsafe fn free<T>(values: *mut T, count: u32) {
    // SAFETY: the caller promises that the array is from `leak` and has `count` values.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(values, count as usize)) });
}

impl Job {
    /// Makes a job of the thread whose structure fio has at `thread`; `checks` is the text of `pi_chk=`.
    pub(crate) fn new(
        options: &ffi::Options,
        checks: &str,
        workload: &ffi::Workload,
        thread: *mut c_void,
    ) -> Result<Box<Self>, Failure> {
        let plan = Plan::new(options, checks, workload)?;
        let depth = plan.depth as usize;
        let empty = |_| Slot {
            offset: 0,
            len: 0,
            buf: ptr::null_mut(),
            target: ptr::null_mut(),
            op: Op::FLUSH,
            padding: 0,
            unit: ptr::null_mut(),
            pieces: 0,
            since: 0,
            failed: 0,
            directive: 0,
        };
        let shared = Shared {
            slots: leak((0..depth).map(empty)),
            pending: leak((0..depth).map(|_| 0)),
            events: leak((0..depth).map(|_| ptr::null_mut())),
            queued: 0,
            depth: plan.depth,
            op_of: [0; 8],
            second: 0,
            next: 0,
            end: 0,
            given: ptr::null_mut(),
        };
        let none = Unsent { index: 0, reason: Refusal::Full };
        Ok(Box::new(Self {
            shared,
            targets: Vec::new(),
            unsent: vec![none; depth].into_boxed_slice(),
            unsent_count: 0,
            broken: 0,
            tick: 0,
            plan,
            group: QueueGroup::new(),
            given: 0,
            thread,
            memory: None,
            started: false,
            printed: Vec::new(),
            printed_refusals: Vec::new(),
            printed_fields: Vec::new(),
        }))
    }

    /// Opens a file, and returns its size in bytes and its target.
    pub(crate) fn open(&mut self, name: &str) -> Result<(u64, *mut Target), Failure> {
        let mut target = Target::open(name, &self.plan)?;
        if self.started {
            target.start(&self.plan)?;
        }
        if let Some(memory) = &mut self.memory {
            (target.held, target.base) = (memory.view(&target.open.controller)?, memory.base());
        }
        let size = target.size();
        let target = Box::into_raw(Box::new(target));
        self.targets.push(TargetPtr(target));
        Ok((size, target))
    }

    /// Checks that `bytes`, a block size that fio may choose, suits all targets.
    pub(crate) fn check_block(&self, bytes: u64) -> Result<(), Failure> {
        self.targets().try_for_each(|target| {
            check_block(target.open.controller.name(), &target.block(), "a bs of bssplit", bytes)
        })
    }

    /// Checks that a file is large enough for I/O from byte `offset` on.
    pub(crate) fn check_start(&self, target: *mut c_void, offset: u64) -> Result<(), Failure> {
        self.targets().filter(|&open| ptr::eq(ptr::from_ref(open).cast(), target)).try_for_each(|target| {
            self.plan.check_start(target.open.controller.name(), &target.block(), target.size(), offset)
        })
    }

    /// Makes the queue pairs, in the job's own thread.
    pub(crate) fn start(&mut self, longest: u64, trims: bool) -> Result<(), Failure> {
        self.started = true;
        self.plan.longest = longest;
        self.plan.trims |= trims;
        let plan = self.plan;
        self.targets_mut().try_for_each(|target| target.start(&plan))
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    pub(crate) fn set_unit(&mut self, index: u32, unit: *mut c_void) {
        if let Some(slot) = self.slot(index) {
            slot.unit = unit;
        }
    }

    pub(crate) fn slot(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots_mut().get_mut(index as usize)
    }

    fn slots_mut(&mut self) -> &mut [Slot] {
        // SAFETY: the job owns that many slots, and C does not run now.
        unsafe { std::slice::from_raw_parts_mut(self.shared.slots, self.shared.depth as usize) }
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        // SAFETY: the job owns that many slots, and C does not run now.
        unsafe { std::slice::from_raw_parts(self.shared.slots, self.shared.depth as usize) }
    }

    /// Allocates memory for all units, `bytes` in total.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<*mut u8, Failure> {
        // Marks the job as broken, because fio continues without memory.
        self.try_allocate(bytes).inspect_err(|failure| self.broken = failure.errno)
    }

    fn try_allocate(&mut self, bytes: usize) -> Result<*mut u8, Failure> {
        let spaces = self.targets().map(|target| target.open.controller.heap().space().id());
        let mut spaces: Vec<_> = spaces.collect();
        spaces.dedup();
        let first = self.targets().next().map(|target| target.open.controller.clone());
        let Some(first) = first else {
            return Err(Failure::refused("the job has no device: filename= names them"));
        };
        let mut memory = IoMemory::new(&first, bytes, self.plan.pages, spaces.len() < 2)?;
        let base = memory.base();
        self.targets_mut().try_for_each(|target| {
            (target.held, target.base) = (memory.view(&target.open.controller)?, base);
            Ok::<_, Failure>(())
        })?;
        self.memory = Some(memory);
        Ok(base)
    }

    /// Frees the memory. Commands still in flight are given up, with their queues.
    pub(crate) fn free(&mut self) {
        let mut closed = true;
        if self.targets().any(|target| target.in_flight > 0) {
            self.broken = if self.broken == 0 { libc::ECANCELED } else { self.broken };
            // Stops all targets, even after one that could not be closed.
            for target in self.targets_mut() {
                closed &= target.stop();
            }
        }
        for target in self.targets_mut() {
            (target.held, target.base) = (Target::no_memory(), ptr::null());
        }
        match self.memory.take() {
            Some(memory) if !closed => memory.keep(),
            memory => drop(memory),
        }
    }

    /// Returns a file of the job by the pointer that the shim has of it.
    pub(crate) fn target(&self, target: *mut c_void) -> Option<&Target> {
        self.targets().find(|&open| ptr::eq(ptr::from_ref(open).cast(), target))
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        // SAFETY: boxes that the job owns; the shim only returns their addresses.
        self.targets.iter().map(|&TargetPtr(target)| unsafe { &*target })
    }

    pub(crate) fn targets_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        // SAFETY: boxes that the job owns, each visited once; the shim only returns their addresses.
        self.targets.iter().map(|&TargetPtr(target)| unsafe { &mut *target })
    }

    /// Ends the job's I/O, and prints the first reason.
    #[cold]
    pub(crate) fn abort_job(&mut self, failure: &Failure) {
        if self.broken == 0 {
            ffi::print(&failure.text);
            self.broken = failure.errno;
        }
    }

    /// Returns the target of a unit.
    pub(crate) fn target_of(&self, slot: &Slot) -> Option<&Target> {
        self.targets().find(|&target| ptr::eq(ptr::from_ref(target).cast(), slot.target))
    }

    /// Returns whether a unit that was not submitted can be reaped, because nothing of it is in flight.
    pub(crate) fn has_unsent(&self) -> bool {
        let unsent = self.unsent.iter().take(self.unsent_count);
        let mut slots = unsent.filter_map(|unsent| self.slots().get(unsent.index as usize));
        slots.any(|slot| slot.pieces == 1)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.free();
        for TargetPtr(target) in std::mem::take(&mut self.targets) {
            // SAFETY: the pointer is from `Box::into_raw` in `open`, and not used afterwards.
            drop(unsafe { Box::from_raw(target) });
        }
        let Shared { slots, pending, events, depth, .. } = self.shared;
        // SAFETY: the array is from `leak` in `new`, with this length; nobody has the job any more.
        unsafe { free(slots, depth) };
        // SAFETY: the array is from `leak` in `new`, with this length; nobody has the job any more.
        unsafe { free(pending, depth) };
        // SAFETY: the array is from `leak` in `new`, with this length; nobody has the job any more.
        unsafe { free(events, depth) };
    }
}
