//! Lists are read back as a controller reads them, and compared with the pages that the buffer is in.

mod shapes;

use super::*;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, sync::Mutex};
use upcie_core::{
    Result,
    dma::{DmaBuf, DmaSpace, Heap, Mapper},
    memory::{Memory, PageSize},
};

/// Memory as a device sees it.
#[derive(Debug, Default, Clone)]
struct Host(Arc<Mutex<BTreeMap<u64, (usize, usize)>>>);

// SAFETY: there is no device.
unsafe impl Mapper for Host {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        self.0.lock().unwrap().insert(iova, (memory.as_ptr() as usize, memory.len()));
        Ok(())
    }
    fn unmap(&self, iova: u64, _len: u64) -> Result<()> {
        self.0.lock().unwrap().remove(&iova);
        Ok(())
    }
}

impl Host {
    fn entry(&self, iova: u64) -> u64 {
        assert_eq!(iova % 8, 0, "entries are qwords");
        let table = self.0.lock().unwrap();
        let (base, (at, len)) = table.range(..=iova).next_back().expect("mapped");
        assert!(iova - base + 8 <= *len as u64, "inside the mapping");
        // SAFETY: a live mapping of the heap's, bounds just checked.
        unsafe { ((at + (iova - base) as usize) as *const u64).read() }
    }

    /// What a controller makes of a data pointer: the address of every dword-aligned piece, page by page.
    fn pages(&self, prp1: u64, prp2: u64, len: usize, shift: u32) -> Vec<(u64, usize)> {
        let page = 1_u64 << shift;
        let first = (page - prp1 % page).min(len as u64) as usize;
        let mut all = vec![(prp1, first)];
        let mut left = len - first;
        if left == 0 {
            return all;
        }
        if left as u64 <= page {
            assert_eq!(prp2 % page, 0, "the second entry has no offset");
            all.push((prp2, left));
            return all;
        }
        let mut at = prp2;
        while left > 0 {
            let entry = self.entry(at);
            // The last entry of a page is a pointer, if more than a page is left.
            if at % page == page - 8 && left as u64 > page {
                assert_eq!(entry % page, 0, "lists continue at a page");
                at = entry;
                continue;
            }
            assert_eq!(entry % page, 0, "only the first entry has an offset");
            let piece = left.min(page as usize);
            all.push((entry, piece));
            left -= piece;
            at += 8;
        }
        all
    }
}

fn heap(shift: u32) -> (Arc<Heap>, Host) {
    heap_in(0..=u64::MAX >> 16, shift)
}

/// A heap whose device addresses are in `range`.
fn heap_in(range: RangeInclusive<u64>, shift: u32) -> (Arc<Heap>, Host) {
    let host = Host::default();
    let space = DmaSpace::new("test", [range], 4096, Box::new(host.clone()));
    let lists = BufferLists { page_shift: shift };
    (Heap::new(&space, Some(PageSize::Small), Some(Box::new(lists))), host)
}

/// The pieces as addresses of 4-byte words: what is transferred where, however it is cut.
fn words(pieces: impl IntoIterator<Item = (u64, usize)>) -> Vec<u64> {
    pieces.into_iter().flat_map(|(at, len)| (0..len as u64 / 4).map(move |word| at + word * 4)).collect()
}

fn expected(buf: &DmaBuf) -> Vec<u64> {
    words(buf.segments().map(|segment| (segment.iova(0), segment.len())))
}

fn pool(heap: &Arc<Heap>, bytes: usize, max_transfer: u64, shift: u32) -> ListPool {
    let chunk = ListPool::chunk_bytes(max_transfer, shift);
    ListPool::new(heap.alloc_aligned(bytes, 1 << shift).unwrap(), chunk, shift)
}

fn build(pool: &mut ListPool, buf: &DmaBuf) -> Result<DataPointer, Refusal> {
    let (pointer, len) = pool.build(buf, buf.transfer().space)?;
    assert_eq!(len, buf.total_len() as u64);
    Ok(pointer)
}

#[test]
fn whole_buffers_bring_their_list() {
    for shift in [12, 13, 16] {
        let (heap, host) = heap(shift);
        let page = 1 << shift;
        for len in [4, 512, page, page + 4, 2 * page, 2 * page + 4, 3 * page, 513 * page, 1024 * page + 512] {
            let buf = heap.alloc(len).unwrap();
            let transfer = buf.transfer();
            if len as u64 > MAX_TRANSFER {
                assert_eq!(transfer.ready, 0);
                continue;
            }
            assert_eq!(transfer.ready as usize, len);
            assert_eq!(
                words(host.pages(transfer.iova, transfer.companion, len, shift)),
                expected(&buf),
                "{len}"
            );
        }
    }
}

#[test]
fn a_list_that_ends_with_its_page_has_no_pointer() {
    let (heap, host) = heap(12);
    // 512 entries fill a list page exactly; one more needs a second.
    for pages in [513, 514, 1024, 1025] {
        let buf = heap.alloc(pages * 4096).unwrap();
        let transfer = buf.transfer();
        assert_eq!(host.pages(transfer.iova, transfer.companion, buf.len(), 12).len(), pages);
    }
    assert_eq!(list_bytes(512, 12), 4096);
    assert_eq!(list_bytes(513, 12), 4096 + 16);
    assert_eq!(list_bytes(511 + 512, 12), 2 * 4096);
    assert_eq!(list_bytes(511 + 513, 12), 2 * 4096 + 16);
}

#[test]
fn parts_at_any_dword_take_lists_from_the_pool() {
    let (heap, host) = heap(12);
    let max = 4 << 20;
    let mut pool = pool(&heap, 64 << 10, max, 12);
    for start in [0, 4, 512, 2048, 4092, 4096, 6000] {
        for len in [4, 512, 4096, 8192, 12288, 100_000, 1 << 20, 3 << 20] {
            let part = heap.alloc(max as usize).unwrap().slice(start..start + len);
            let pointer = build(&mut pool, &part).unwrap();
            assert_eq!(
                words(host.pages(pointer.prp1, pointer.prp2, len, 12)),
                expected(&part),
                "{start} {len}"
            );
            let ranged = pool.build_range(&part, 0, len).unwrap();
            assert_eq!(words(host.pages(ranged.prp1, ranged.prp2, len, 12)), expected(&part));
            for pointer in [pointer, ranged] {
                if pointer.list != 0 {
                    pool.release(pointer.list);
                }
            }
        }
    }
}

#[test]
fn touching_segments_merge_and_others_meet_at_pages() {
    let (heap, host) = heap(12);
    let mut pool = pool(&heap, 64 << 10, 1 << 20, 12);
    // Cut inside of a page, and put together again: touching.
    let (mut low, high) = heap.alloc(16384).unwrap().split_at(1000);
    let (middle, high) = high.split_at(7192);
    low.chain(middle);
    low.chain(high);
    let pointer = build(&mut pool, &low).unwrap();
    assert_eq!(words(host.pages(pointer.prp1, pointer.prp2, 16384, 12)), expected(&low));
    // Whole pages from elsewhere, the first one and the last one in part.
    let mut first = heap.alloc(8192).unwrap().slice(512..8192);
    first.chain(heap.alloc(4096).unwrap());
    first.chain(heap.alloc(4096).unwrap().slice(0..100 * 4));
    let len = first.total_len();
    let pointer = build(&mut pool, &first).unwrap();
    assert_eq!(words(host.pages(pointer.prp1, pointer.prp2, len, 12)), expected(&first));
    // An end, or a start, inside of a page that does not touch.
    let mut bad = heap.alloc(8192).unwrap().slice(0..512);
    bad.chain(heap.alloc(4096).unwrap());
    assert_eq!(build(&mut pool, &bad), Err(Refusal::Unaligned));
    let mut bad = heap.alloc(4096).unwrap();
    bad.chain(heap.alloc(8192).unwrap().slice(512..4096));
    assert_eq!(build(&mut pool, &bad), Err(Refusal::Unaligned));
    assert_eq!(build(&mut pool, &heap.alloc(512).unwrap().slice(2..510)), Err(Refusal::Unaligned));
}

#[test]
fn an_empty_pool_refuses_and_recovers() {
    let (heap, _) = heap(12);
    for (bytes, max) in [(4096, 64 << 10), (32 << 10, 4 << 20)] {
        let mut pool = pool(&heap, bytes, max, 12);
        let part = heap.alloc(max as usize * 2).unwrap().slice(512..512 + max as usize);
        let mut taken = Vec::new();
        let refusal = loop {
            match build(&mut pool, &part) {
                Ok(pointer) => taken.push(pointer.list),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::ListsInUse);
        let count = taken.len();
        assert!(count > 0);
        // Given back in another order, as many fit again.
        taken.rotate_left(1);
        for list in taken.drain(..) {
            pool.release(list);
        }
        while let Ok(pointer) = build(&mut pool, &part) {
            taken.push(pointer.list);
        }
        assert_eq!(taken.len(), count);
    }
}

#[test]
fn more_than_the_pool_is_made_for_is_refused() {
    let (heap, _) = heap(12);
    let mut pool = pool(&heap, 4096, 64 << 10, 12);
    let part = heap.alloc(1 << 20).unwrap().slice(4..1 << 20);
    assert_eq!(build(&mut pool, &part), Err(Refusal::TooLong));
}
