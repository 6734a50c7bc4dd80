//! A queue against a device that the test controls: it completes in any order, twice, too early, or unknown
//! commands.

mod exhaustive;
mod interleaved;
mod noise;

use super::{extent::ZoneLimits, *};
use crate::{Failure, spec::DirectiveType};
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

const PAGE: usize = 4096;
const STAMP: u64 = 7;
const EXTENT: Extent = Extent {
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
    format: crate::protection::BlockFormat::new(512, 0, false),
};
/// The number of lists that a queue has memory for.
const LISTS: usize = 3;

/// Makes a heap of small pages with invented device addresses.
pub(super) fn heap() -> Arc<Heap> {
    let space = DmaSpace::new("test", [0..=u64::MAX >> 16], PAGE as u64, Box::new(FakeIommu::default()));
    Heap::new(&space, Some(PageSize::Small), Some(Box::new(BufferLists { page_shift: 12 })))
}

/// A command's tag: its first block, and a value that must be dropped once.
type Tag = (u64, Arc<()>);

/// The device's end of a queue.
struct Device {
    entries: usize,
    sq: *const u64,
    cq: *mut u64,
    /// The doorbells of the submission queue and of the completion queue.
    doorbells: [Register<u32>; 2],
    tail: usize,
    phase: u64,
    /// Ids that were completed and not reaped yet.
    posted: VecDeque<u16>,
}

impl Device {
    /// Completes `id`, if the ring has room.
    fn post(&mut self, id: u16) {
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
    fn check_doorbells(&self, tail: usize) {
        let head = (self.tail + self.entries - self.posted.len()) % self.entries;
        assert_eq!(self.doorbells.each_ref().map(|doorbell| doorbell.read() as usize), [tail, head]);
    }

    /// Returns the id, the address and the first block of an entry.
    fn entry(&self, index: usize) -> (u16, u64, u64) {
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
struct Flight {
    slba: u64,
    address: u64,
    listed: bool,
}

/// The expected state of a queue, whatever the device does.
struct Model {
    queue: Queue<Tag>,
    device: Device,
    heap: Arc<Heap>,
    flying: BTreeMap<u16, Flight>,
    /// The submission entry to use next.
    tail: usize,
    next: u64,
    tags: Arc<()>,
}

impl Model {
    fn new(entries: usize) -> Self {
        Self::over(heap(), entries)
    }

    /// Makes a queue and its device in the memory of `heap`.
    fn over(heap: Arc<Heap>, entries: usize) -> Self {
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
    fn complete(&mut self, random: &mut Random, lies: bool) {
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
    fn turn(&mut self, random: &mut Random, lies: bool, leak: bool) -> bool {
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
                    // Soundness finding 15: from here on the turn takes no commands.
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
    fn end(mut self) {
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

#[test]
fn completions_in_any_order_return_their_payloads() {
    let mut random = Random(3);
    for (entries, rounds) in [(2, 500), (3, 1000), (4, 1000), (5, 1000), (33, 300), (64, 300), (65536, 5)] {
        let mut model = Model::new(entries);
        for _ in 0..rounds {
            model.complete(&mut random, false);
            assert!(model.turn(&mut random, false, false), "no lie");
        }
        assert!(model.next > rounds / 4 && model.queue.turn().is_ok());
        model.end();
    }
}

#[test]
fn a_full_ring_of_65536_entries_uses_no_reserved_id() {
    let mut model = Model::new(65536);
    let mut turn = model.queue.turn().unwrap();
    for slba in 0..65535 {
        turn.read(&EXTENT, slba, page(&model.heap), (slba, model.tags.clone())).unwrap();
    }
    assert_eq!(turn.room(), 0);
    drop(turn);
    let ids: std::collections::BTreeSet<u16> = (0..65535).map(|index| model.device.entry(index).0).collect();
    assert_eq!((ids.len(), ids.contains(&0xffff)), (65535, false));
    assert_eq!(model.queue.in_flight(), 65535);
}

#[test]
fn command_ids_are_reused_after_a_wrap() {
    let mut model = Model::new(2);
    let mut buffer = page(&model.heap);
    for slba in 0..33_000_u64 {
        let mut turn = model.queue.turn().unwrap();
        turn.read(&EXTENT, slba, buffer, (slba, model.tags.clone())).unwrap();
        drop(turn);
        let (id, ..) = model.device.entry(slba as usize % 2);
        // One bit tells the two slots apart.
        assert_eq!(u64::from(id), slba * 2 % 65536);
        model.device.post(id);
        model.device.posted.clear();
        let done = model.queue.turn().unwrap().next().expect("completed");
        let tag;
        (tag, _, buffer) = done.into_parts();
        assert_eq!(tag.0, slba);
    }
}

fn page(heap: &Arc<Heap>) -> DmaBuf {
    heap.alloc_aligned(512, 512).unwrap()
}

#[test]
fn forged_completions_lose_and_double_nothing() {
    let mut random = Random(4);
    let (mut found, mut leaked) = (0, 0);
    for round in 0..600 {
        let mut model = Model::new(2 + round % 9);
        for turn in 0..40 {
            let lies = turn > 5 && random.one_in(3);
            model.complete(&mut random, lies);
            let leak = random.one_in(50);
            let honest = model.turn(&mut random, turn > 5, leak);
            found += usize::from(!honest);
            leaked += usize::from(leak && honest);
            let error = match model.queue.turn() {
                Ok(_) if honest && !leak => continue,
                Ok(_) => panic!("a queue that is of no more use is closed"),
                Err(error) => error,
            };
            assert!(if honest {
                matches!(error.failure(), Failure::LeakedTurn { .. })
            } else {
                matches!(error.failure(), Failure::ForgedCompletion { .. })
            });
            break;
        }
        model.end();
    }
    assert!(found > 150 && leaked > 30, "{found} {leaked}");
}

#[test]
fn a_reset_stops_an_open_turn_and_returns_each_command_once() {
    let mut random = Random(5);
    for entries in [2, 3, 8, 33, 64] {
        let mut model = Model::new(entries);
        let live = model.queue.live.clone();
        for _ in 0..50 {
            for _ in 0..3 {
                model.complete(&mut random, false);
                assert!(model.turn(&mut random, false, false), "no lie");
            }
            model.complete(&mut random, false);
            let posted = model.device.posted.len();
            let mut in_flight: Vec<u64> = model.flying.values().map(|flight| flight.slba).collect();
            let doorbells = model.device.doorbells.each_ref().map(Register::read);
            let mut turn = model.queue.turn().unwrap();
            while turn.room() > 0 {
                in_flight.push(model.next);
                turn.read(&EXTENT, model.next, page(&model.heap), (model.next, model.tags.clone())).unwrap();
                model.next += 1;
            }
            let before = live.end();
            match random.below(3) {
                0 => {
                    turn.ring();
                    drop(turn);
                }
                1 => std::mem::forget(turn),
                _ => drop(turn),
            }
            assert_eq!(model.device.doorbells.each_ref().map(Register::read), doorbells, "no doorbell rung");
            let error = model.queue.turn().unwrap_err();
            assert!(matches!(error.failure(), Failure::Reset { qid: Some(1), .. }), "{error}");
            before.set_let_go();

            let all = model.queue.take_all();
            assert_eq!(all.iter().filter(|returned| returned.result().is_some()).count(), posted);
            let mut tags: Vec<u64> = all.into_iter().map(|returned| returned.into_parts().0.0).collect();
            tags.sort_unstable();
            in_flight.sort_unstable();
            assert_eq!(tags, in_flight);
            assert_eq!(Arc::strong_count(&model.tags), 1, "every tag came back");

            // The next epoch begins with empty rings, and an entry of the last one completes no command of it.
            let old = model.flying.keys().next().copied();
            model.queue.renew();
            model.queue.join(live.begin().unwrap());
            (model.tail, model.device.tail, model.device.phase) = (0, 0, 1);
            model.device.posted.clear();
            model.flying.clear();
            if let (Some(old), true) = (old, entries < 1 << 15) {
                let mut turn = model.queue.turn().unwrap();
                while turn.room() > 0 {
                    turn.read(&EXTENT, 0, page(&model.heap), (0, model.tags.clone())).unwrap();
                }
                drop(turn);
                model.device.post(old);
                assert!(model.queue.turn().unwrap().next().is_none());
                assert!(
                    matches!(model.queue.turn(), Err(error) if matches!(error.failure(), Failure::ForgedCompletion { .. }))
                );
                live.end();
                model.queue.renew();
                model.queue.join(live.begin().unwrap());
                (model.tail, model.device.tail, model.device.phase) = (0, 0, 1);
                model.device.posted.clear();
            }
            // The test's device knows no reset: its doorbells follow the rings.
            for doorbell in &model.device.doorbells {
                // SAFETY: memory of this test.
                unsafe { doorbell.write(0) };
            }
        }
        model.end();
    }
}

#[test]
fn a_directive_stands_beside_the_flags() {
    let io = Io::write(&EXTENT, 0).fua().directive(DirectiveType::STREAMS, 7).placement(0x8003);
    assert_eq!(io.flags.word(), 1 << 30 | 2 << 20 | 0x8003 << 48, "the last directive, and the flag");
    assert_eq!(Io::read(&EXTENT, 0).placement(3).flags, Dwords::NONE, "a read has none");
    let zeroes = Zeroes::new(&EXTENT, 0, 1).placement(u16::MAX).deallocate();
    assert_eq!(zeroes.flags.word(), 1 << 25 | 2 << 20 | 0xffff << 48);
}
