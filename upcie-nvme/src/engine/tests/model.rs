//! A device that the test controls, and the state that its queue must have.

use crate::{
    engine::{BufferLists, CopyLimits, Extent, KeyLimits, ListPool, Live, Parts, Queue, ZoneLimits},
    error::Refusal,
};
use nix::{sys::memfd, unistd::ftruncate};
use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::AsFd,
    sync::Arc,
};
use upcie_core::{
    dma::{DmaBuf, DmaSpace, Heap},
    memory::PageSize,
    mmio::{Mapping, Register},
    testing::{FakeIommu, Random},
};

pub(super) const PAGE: usize = 4096;
const STAMP: u64 = 7;
pub(super) const EXTENT: Extent = Extent {
    stamp: STAMP,
    last: u64::MAX - 1,
    nsid_high: 1 << 32,
    plain_blocks: 64,
    shift: 9,
    inverse: 1,
    max_blocks: 64,
    controller: 1,
    max_zeroes: 0,
    deallocates: false,
    optional: crate::spec::OptionalCommands::empty(),
    zones: ZoneLimits { blocks: 0, append: 0, extension: 0 },
    keys: KeyLimits { key: 0, value: 0, transfer: 0 },
    fused: 0,
    copy: CopyLimits::NONE,
    format: crate::protection::BlockFormat::new(512, 0, false),
};
/// The number of lists that a queue has memory for.
const LISTS: usize = 3;

/// Makes a heap of small pages with invented device addresses.
pub(in crate::engine) fn heap() -> Arc<Heap> {
    let space = DmaSpace::new("test", [0..=u64::MAX >> 16], PAGE as u64, Box::new(FakeIommu::default()));
    Heap::new(&space, Some(PageSize::Small), Some(Box::new(BufferLists { page_shift: 12 })))
}

pub(super) fn page(heap: &Arc<Heap>) -> DmaBuf {
    heap.alloc_aligned(512, 512).unwrap()
}

/// A command's tag: its first block, and a value that must be dropped once.
type Tag = (u64, Arc<()>);

/// The device's end of a queue.
pub(super) struct Device {
    pub(super) entries: usize,
    pub(super) sq: *const u64,
    pub(super) cq: *mut u64,
    /// The doorbells of the submission queue and of the completion queue.
    pub(super) doorbells: [Register<u32>; 2],
    pub(super) tail: usize,
    pub(super) phase: u64,
    /// Ids that were completed and not reaped yet.
    pub(super) posted: VecDeque<u16>,
}

impl Device {
    /// Completes `id`, if the ring has room.
    pub(super) fn post(&mut self, id: u16) {
        if self.posted.len() + 1 == self.entries {
            return;
        }
        // SAFETY: an entry of the ring, which outlives the device.
        let entry = unsafe { self.cq.add(self.tail * 2 + 1) };
        // SAFETY: an aligned word of the ring, which outlives the device.
        unsafe { entry.write_volatile(u64::from(id) << 32 | self.phase << 48) };
        self.tail = (self.tail + 1) % self.entries;
        self.phase ^= u64::from(self.tail == 0);
        self.posted.push_back(id);
    }

    /// Asserts that the doorbells cover all entries up to `tail`, and each completion that was reaped.
    pub(super) fn check_doorbells(&self, tail: usize) {
        let head = (self.tail + self.entries - self.posted.len()) % self.entries;
        assert_eq!(self.doorbells.each_ref().map(|doorbell| doorbell.read() as usize), [tail, head]);
    }

    /// Returns the id, the address and the first block of an entry.
    pub(super) fn entry(&self, index: usize) -> (u16, u64, u64) {
        let [first, prp1, slba] = [0, 3, 5].map(|word| {
            // SAFETY: an entry of the ring, which outlives the device.
            let at = unsafe { self.sq.add(index * 8 + word) };
            // SAFETY: an aligned word of the ring, which outlives the device.
            unsafe { at.read_volatile() }
        });
        ((first >> 16) as u16, prp1, slba)
    }
}

/// A command in flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) slba: u64,
    pub(super) address: u64,
    pub(super) listed: bool,
}

/// The expected state of a queue, whatever the device does.
pub(super) struct Model {
    pub(super) queue: Queue<Tag>,
    pub(super) device: Device,
    pub(super) heap: Arc<Heap>,
    pub(super) flying: BTreeMap<u16, Flight>,
    /// The submission entry to use next.
    pub(super) tail: usize,
    pub(super) next: u64,
    pub(super) tags: Arc<()>,
}

impl Model {
    pub(super) fn new(entries: usize) -> Self {
        Self::over(heap(), entries)
    }

    /// Makes a queue and its device in the memory of `heap`.
    pub(super) fn over(heap: Arc<Heap>, entries: usize) -> Self {
        let memory = |bytes: usize| heap.alloc_aligned(bytes.next_multiple_of(PAGE), PAGE).unwrap();
        let (sq, cq) = (memory(entries * 64), memory(entries * 16));
        let file = memfd::memfd_create(c"doorbells", memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&file, PAGE as i64).unwrap();
        let bar = Arc::new(Mapping::new(file.as_fd(), 0, PAGE, "doorbells").unwrap());
        let doorbells = [0, 4].map(|at| Register::new(&bar, at).unwrap());
        let chunk = ListPool::chunk_bytes(64 << 9, 12);
        let device = Device {
            entries,
            sq: sq.as_ptr().cast(),
            cq: cq.as_ptr().cast(),
            doorbells: doorbells.clone(),
            tail: 0,
            phase: 1,
            posted: VecDeque::new(),
        };
        let [sq_doorbell, cq_doorbell] = doorbells;
        let queue = Queue::new(Parts {
            name: "test".into(),
            qid: 1,
            entries: entries as u32,
            sq,
            sq_combining: true,
            cq,
            sq_doorbell,
            cq_doorbell,
            lists: ListPool::new(memory(PAGE).slice(0..LISTS * chunk), chunk, 12),
            live: Arc::new(Live::of(1, STAMP).unwrap()),
        });
        Self { queue, device, heap, flying: BTreeMap::new(), tail: 0, next: 0, tags: Arc::default() }
    }

    /// Completes commands whose doorbell was rung, in any order; if it `lies`, also others.
    pub(super) fn complete(&mut self, random: &mut Random, lies: bool) {
        let mut told: Vec<u16> =
            self.flying.keys().filter(|id| !self.device.posted.contains(id)).copied().collect();
        for _ in 0..random.below(told.len() + 1) {
            self.device.post(told.swap_remove(random.below(told.len())));
        }
        if lies {
            let again = self.device.posted.front().copied().unwrap_or(0);
            let id = match random.below(4) {
                0 => random.below(1 << 16) as u16,
                1 => again,
                // The slot's next use, or its last one.
                2 => again.wrapping_add(self.device.entries.next_power_of_two() as u16),
                _ => again.wrapping_sub(self.device.entries.next_power_of_two() as u16),
            };
            self.device.post(id);
        }
    }

    /// Runs a turn that reaps and submits in any order. Returns `false` when it found a forged completion.
    pub(super) fn turn(&mut self, random: &mut Random, lies: bool, leak: bool) -> bool {
        let Self { queue, device, heap, flying, tail, next, tags } = self;
        let slots = device.entries - 1;
        let (mut left, mut honest) = (flying.len(), true);
        let mut turn = queue.turn().unwrap();
        for _ in 0..random.below(3 * slots.min(100)) + 1 {
            if random.one_in(8) {
                turn.ring();
                device.check_doorbells(*tail);
                if honest {
                    left = flying.len();
                    let told = flying.keys().find(|id| !device.posted.contains(id));
                    told.into_iter().for_each(|id| device.post(*id));
                }
            } else if random.one_in(2) {
                let id = if left > 0 && honest { device.posted.front().copied() } else { None };
                let Some(id) = id else {
                    assert!(turn.next().is_none(), "no more than was in flight when it was opened");
                    continue;
                };
                match (turn.next(), flying.remove(&id)) {
                    (Some(done), Some(flight)) => {
                        let ((slba, _), status, buffer) = done.into_parts();
                        assert_eq!((slba, buffer.iova(0)), (flight.slba, flight.address));
                        assert_eq!(status, Ok(()));
                        device.posted.pop_front();
                        left -= 1;
                    }
                    // The completion was forged: from here on the turn takes no commands.
                    (None, None) => honest = false,
                    (done, flight) => panic!("{done:?} for {flight:?}"),
                }
            } else {
                let listed = random.one_in(4);
                let buffer = heap.alloc_aligned(4 * PAGE, PAGE).unwrap();
                // Slices of more than two pages have no list yet.
                let buffer = buffer.slice(0..if listed { 3 * PAGE } else { PAGE });
                let flight = Flight { slba: *next, address: buffer.iova(0), listed };
                let tag = (flight.slba, tags.clone());
                let sent = turn.read(&EXTENT, *next, buffer, tag);
                let lists = flying.values().filter(|flight| flight.listed).count();
                match sent.map_err(|refused| refused.reason) {
                    Ok(()) => {
                        assert!(honest && flying.len() < slots && !(listed && lists == LISTS));
                        let (id, address, slba) = device.entry(*tail);
                        assert_eq!((address, slba), (flight.address, flight.slba));
                        assert_ne!(id, 0xffff, "reserved");
                        assert!(flying.insert(id, flight).is_none(), "an id of its own");
                        (*tail, *next) = ((*tail + 1) % device.entries, *next + 1);
                        if lies && random.one_in(8) {
                            // The doorbell of this command was not rung.
                            device.post(id);
                        }
                    }
                    Err(Refusal::Closed) => assert!(!honest),
                    Err(Refusal::Full) => assert_eq!(flying.len(), slots),
                    Err(reason) => assert_eq!((reason, listed, lists), (Refusal::ListsInUse, true, LISTS)),
                }
            }
            assert_eq!(turn.room(), if honest { slots - flying.len() } else { 0 });
            assert_eq!((turn.len(), turn.is_empty()), (flying.len(), flying.is_empty()));
            assert_eq!(turn.is_full(), turn.room() == 0);
        }
        if leak {
            std::mem::forget(turn);
            return honest;
        }
        drop(turn);
        device.check_doorbells(*tail);
        assert_eq!(queue.room() as usize, if honest { slots - flying.len() } else { 0 });
        honest
    }

    /// Ends the queue, and checks that every buffer and tag comes back once.
    pub(super) fn end(mut self) {
        assert_eq!(self.queue.in_flight() as usize, self.flying.len());
        assert_eq!(Arc::strong_count(&self.tags), self.flying.len() + 1);
        let retired = self.queue.retire();
        // The rings, the lists, and the buffers that the device may still use.
        assert_eq!(retired.0.len(), self.flying.len() + 3);
        let mut kept: Vec<u64> = retired.0.iter().map(|buffer| buffer.prepared().iova).collect();
        kept.truncate(self.flying.len());
        kept.sort_unstable();
        let mut flying: Vec<u64> = self.flying.values().map(|flight| flight.address).collect();
        flying.sort_unstable();
        assert_eq!(kept, flying);
        drop(self.queue);
        assert_eq!(Arc::strong_count(&self.tags), 1);
        drop(retired);
        assert_eq!(self.heap.in_use(), 0);
    }
}
