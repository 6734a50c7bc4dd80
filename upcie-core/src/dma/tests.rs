use super::*;
use crate::{
    Failure,
    deadline::Budget,
    memory::{Memory, PageSize},
    testing::{FakeIommu, Random, in_child, thread_number, wait_until_asleep},
};
use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

/// A driver that needs only the address.
#[derive(Debug)]
struct Plain;

// SAFETY: no device sees the word.
unsafe impl Prepare for Plain {
    fn list_len(&self, _: u64, _: usize) -> usize {
        0
    }
    fn prepare(&self, _: &dyn Fn(usize) -> u64, _: usize, _: Option<List<'_>>) -> Option<u64> {
        Some(0)
    }
}

#[test]
fn an_unprepared_buffer_is_not_ready() {
    let (heap, _) = heap();
    let plain = Heap::new(heap.space(), Some(PageSize::Small), None);
    assert_eq!(plain.alloc(512).unwrap().prepared().len, 0);
    assert_eq!(heap.alloc(512).unwrap().prepared().len, 512);
}

fn heap() -> (Arc<Heap>, FakeIommu) {
    let mapped = FakeIommu::default();
    let space = DmaSpace::new("test", [0..=u64::MAX >> 16], 4096, Box::new(mapped.clone()));
    (Heap::new(&space, Some(PageSize::Small), Some(Box::new(Plain))), mapped)
}

#[test]
fn random_operations_do_not_grow_the_heap() {
    let (heap, _) = heap();
    let mut random = Random(88_172_645_463_325_252);
    let mut live: Vec<Option<DmaBuf>> = (0..256).map(|_| None).collect();
    let mut after_warm_up = 0;
    for i in 0..10_000_000 {
        let at = random.below(live.len());
        if live[at].take().is_none() && heap.in_use() < 1 << 20 {
            let shift = 6 + random.below(11);
            let len = 1 + random.below(1 << shift);
            live[at] = Some(heap.alloc(len).unwrap());
        }
        if i == 1_000_000 {
            after_warm_up = heap.footprint();
        }
    }
    assert_eq!(heap.footprint(), after_warm_up);
    drop(live);
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn buffers_are_disjoint_aligned_and_returned() {
    let (heap, mapped) = heap();
    let mut bufs: Vec<DmaBuf> =
        (0..200).map(|i| heap.alloc_aligned(100 + i * 37, 1 << (i % 13)).unwrap()).collect();
    for (i, buf) in bufs.iter_mut().enumerate() {
        assert_eq!(buf.iova(0) % (1 << (i % 13)), 0);
        assert_ne!(buf.iova(0), 0);
        buf.fill(i as u8);
    }
    for (i, buf) in bufs.iter().enumerate() {
        assert!(buf.to_vec().iter().all(|&b| b == i as u8), "buffer {i} was overwritten");
    }
    let big = heap.alloc(8 << 20).unwrap();
    assert!(mapped.mappings() >= 2, "a buffer larger than a region gets one of its own");
    drop((big, bufs));
    assert_eq!(heap.in_use(), 0);
    drop(heap);
    assert!(mapped.mappings() == 0, "the last handle unmaps");
}

/// A block of a buffer that was freed is taken again: its bytes must not show in a buffer that is said to be zeroed.
#[test]
fn only_an_unzeroed_buffer_has_its_former_bytes() {
    let (heap, _) = heap();
    let dirty = || heap.alloc(4096).unwrap().fill(7);
    dirty();
    assert_eq!(heap.alloc(4096).unwrap().to_vec(), [0; 4096]);
    dirty();
    assert_eq!(heap.alloc_aligned(4096, 4096).unwrap().to_vec(), [0; 4096]);
    dirty();
    assert_eq!(heap.alloc_unzeroed(4096).unwrap().to_vec(), [7; 4096]);
}

#[test]
fn a_buffer_keeps_its_memory_when_the_heap_is_dropped() {
    let (heap, mapped) = heap();
    let mut buf = heap.alloc(4096).unwrap();
    drop(heap);
    buf.fill(7);
    assert_eq!(mapped.mappings(), 1);
    drop(buf);
    assert!(mapped.mappings() == 0);
}

#[test]
fn parts_share_memory_and_can_be_rejoined() {
    let (heap, _) = heap();
    let mut buf = heap.alloc(4096).unwrap();
    buf.write_at(600, &[9]);
    let base = buf.iova(0);
    let (low, high) = buf.split_at(512);
    assert_eq!((low.len(), high.len(), high.iova(0)), (512, 3584, base + 512));
    assert_eq!(high.to_vec()[88], 9);
    let high = high.try_reunite().expect_err("the lower part still exists");
    drop(low);
    let part = high.slice(88..89);
    assert_eq!(part.as_slice(), Some(&[9][..]));
    let high = part.try_reunite().unwrap();
    let buf = high.try_reunite().unwrap();
    assert_eq!((buf.len(), buf.iova(0)), (4096, base));
    let buf = buf.try_reunite().expect_err("not a part");
    let used = heap.in_use();
    let part = buf.slice(0..1);
    assert_eq!(heap.in_use(), used, "a part keeps all of it");
    drop(part);
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn a_buffer_can_be_split_4096_times() {
    let (heap, _) = heap();
    // Cuts the remaining part again and again, so that each part keeps the one before alive.
    let mut rest = heap.alloc(2 << 20).unwrap();
    let mut pieces = Vec::new();
    while rest.len() > 512 {
        let (piece, more) = rest.split_at(512);
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    assert_eq!(pieces.len(), 4096);
    let small = std::thread::Builder::new().stack_size(64 << 10);
    small.spawn(move || drop(pieces)).unwrap().join().unwrap();
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn chains_hold_their_segments_and_come_apart() {
    let (heap, _) = heap();
    let mut all = heap.alloc(512).unwrap();
    let ready = all.prepared().len;
    assert_eq!(ready, 512);
    for i in 0..100_000 {
        // Prepended, so that building the chain takes linear time.
        let mut first = heap.alloc(512).unwrap();
        first.fill(i as u8);
        first.chain(all);
        all = first;
    }
    assert_eq!(all.total_len(), 512 * 100_001);
    assert_eq!(all.prepared().len, 0, "a chain has no words of its own");
    let rest = all.unchain().unwrap();
    assert_eq!((all.prepared().len, rest.segments().count()), (512, 100_000));
    drop((all, rest));
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn a_gathered_chain_has_a_table_of_its_addresses() {
    let (heap, _) = heap();
    let mut random = Random(7);
    for _ in 0..2_000 {
        let mut pieces = Vec::new();
        for _ in 0..1 + random.below(8) {
            let len = [4096, 4096, 8192, 64, 1 + random.below(9000)][random.below(5)];
            let (before, rest) = heap.alloc(64 + len).unwrap().split_at(64);
            // A piece and its neighbour are contiguous.
            pieces.extend([before, rest].into_iter().skip(random.below(2)));
            pieces.push(DmaBuf::empty());
        }
        let kept: Vec<_> = pieces.iter().map(|piece| (piece.as_ptr(), piece.len())).collect();
        let chain = DmaBuf::gather(pieces);
        let mut expected: Vec<(u64, u64)> = Vec::new();
        for part in chain.segments() {
            match expected.last_mut() {
                Some((start, len)) if *start + *len == part.iova(0) => *len += part.len() as u64,
                _ => expected.push((part.iova(0), part.len() as u64)),
            }
        }
        if let Some(spans) = chain.spans() {
            let all: Vec<_> = spans.addresses().iter().copied().zip(spans.lens().iter().copied()).collect();
            assert_eq!(all, expected);
            let inside: Vec<_> = all.windows(2).flat_map(|pair| [pair[0].0 + pair[0].1, pair[1].0]).collect();
            assert_eq!(spans.joints(), inside.iter().fold(0, |bits, at| bits | at));
            assert_eq!(spans.bits() & 63, all.iter().fold(0, |bits, (at, len)| bits | at | len) & 63);
            let middle = all.get(1..all.len() - 1).unwrap_or_default();
            for len in [64, 4096, 8192] {
                assert_eq!(spans.are_inner(len), middle.iter().all(|span| span.1 == len), "{all:?}");
            }
            assert!(spans.is_in(heap.space().id()) && !spans.is_in(heap.space().id() + 1));
        } else {
            assert_eq!(chain.segments().count(), 1);
        }
        let mut apart = chain.into_segments();
        assert!(apart.iter().all(|segment| segment.spans().is_none() && segment.next_segment().is_none()));
        assert!(
            kept.iter().filter(|piece| piece.1 > 0).eq(apart
                .iter()
                .map(|s| (s.as_ptr(), s.len()))
                .collect::<Vec<_>>()
                .iter())
        );
        let mut again = DmaBuf::gather(apart.drain(..));
        again.chain(heap.alloc(64).unwrap());
        assert!(again.spans().is_none(), "the table would lack the last segment");
    }
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn several_threads_share_a_heap() {
    let (heap, _) = heap();
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let heap = &heap;
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut live = Vec::new();
                for i in 0..20_000_usize {
                    let mut buf = heap.alloc(1 + random.below(9000)).unwrap();
                    buf.fill(seed as u8);
                    live.push(buf);
                    if i % 3 != 0 {
                        let buf = live.swap_remove(random.below(live.len()));
                        assert!(buf.to_vec().iter().all(|&b| b == seed as u8));
                    }
                    if live.len() > 500 {
                        live.clear();
                    }
                }
            });
        }
    });
    assert_eq!(heap.in_use(), 0);
}

#[test]
fn a_closed_space_frees_but_does_not_allocate() {
    let (heap, mapped) = heap();
    let buf = heap.alloc(4096).unwrap();
    heap.space().close();
    drop(buf);
    assert_eq!(heap.in_use(), 0);
    assert!(heap.alloc(4096).is_err());
    drop(heap);
    assert!(mapped.mappings() == 0);
}

/// A thread that had seen the space open got memory of a device that did not stop.
#[test]
fn an_allocation_looks_with_the_blocks_in_hand() {
    let (heap, _) = heap();
    drop(heap.alloc(512).unwrap());
    let (tells, told) = mpsc::channel();
    let (held, late) = (heap.hold(), heap.clone());
    let thread = std::thread::spawn(move || {
        tells.send(thread_number()).unwrap();
        late.alloc(512).map(drop)
    });
    // It waits for the heap.
    wait_until_asleep(told.recv_timeout(Duration::from_secs(60)).unwrap());
    heap.space().close();
    drop(held);
    let error = thread.join().unwrap().unwrap_err();
    assert!(matches!(error.failure(), Failure::Allocation { .. }), "{error}");
}

#[test]
fn impossible_allocations_are_errors() {
    let (heap, _) = heap();
    for (len, align) in [(0, 1), (1, 0), (1, 3), (usize::MAX, 1), (1 << 31, 1), (1, 1 << 40)] {
        let error = heap.alloc_aligned(len, align).unwrap_err().to_string();
        assert!(error.contains("test"), "{error}");
    }
    let empty = DmaBuf::empty();
    assert_eq!((empty.len(), empty.total_len(), empty.prepared().space), (0, 0, 0));
}

#[test]
fn a_forked_child_does_not_wait_for_the_parents_lock() {
    let (heap, _) = heap();
    let mut buf = heap.alloc(4096).unwrap();
    let held = heap.hold();
    let code = in_child(|| {
        drop(std::mem::take(&mut buf));
        let is_refused = heap.verify().is_err() && (heap.in_use(), heap.footprint()) == (0, 0);
        (!is_refused).into()
    });
    drop(held);
    assert_eq!(code, Some(0), "1: it is not refused; none: the child waits for the lock");
}

/// Maps the first region at once, and later ones when the test allows it.
#[derive(Debug)]
struct Slow {
    inner: FakeIommu,
    begins: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

// SAFETY: `FakeIommu` does the mapping, and waiting before it changes nothing.
unsafe impl Mapper for Slow {
    fn map(&self, iova: u64, memory: &Memory) -> crate::Result<()> {
        if self.inner.mappings() > 0 {
            self.begins.send(()).unwrap();
            // An error means that the test has ended.
            let _ = self.go.lock().unwrap().recv();
        }
        self.inner.map(iova, memory)
    }

    fn unmap(&self, iova: u64, len: u64) -> crate::Result<()> {
        self.inner.unmap(iova, len)
    }
}

/// Regression: the heap's lock was held while memory was mapped, and threads waited for it without a deadline.
#[test]
fn a_thread_behind_a_slow_mapping_keeps_its_deadline() {
    let ((begins, begun), (go, wait)) = (mpsc::channel(), mpsc::channel());
    let slow = Slow { inner: FakeIommu::default(), begins, go: Mutex::new(wait) };
    let space = DmaSpace::new("test", [0..=u64::MAX >> 16], 4096, Box::new(slow));
    let heap = Heap::new(&space, Some(PageSize::Small), None);
    let first = heap.alloc(1 << 20).unwrap();
    let mut all = heap.alloc(1 << 20).unwrap();
    std::thread::scope(|scope| {
        // Ends the mapping also when this test fails.
        let go = go;
        let growing = scope.spawn(|| heap.alloc(4096).unwrap().len());
        begun.recv_timeout(Duration::from_secs(60)).unwrap();
        let budget = Budget::new(Duration::from_millis(20));
        let error = heap.alloc(4096).unwrap_err();
        drop(budget);
        let text = error.to_string();
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{text}");
        for part in ["test: allocating 4096 bytes", "other threads that map more", "try again", "20ms"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Calls that need no more memory do not wait.
        assert_eq!((heap.in_use(), heap.footprint()), (2 << 20, 2 << 20));
        heap.verify().unwrap();
        drop(first);
        all.fill(7);
        assert_eq!(heap.alloc(4096).unwrap().len(), 4096);
        go.send(()).unwrap();
        assert_eq!(growing.join().unwrap(), 4096);
    });
    assert_eq!((heap.in_use(), heap.footprint()), (1 << 20, 4 << 20));
}
