//! Lists are read back like a controller reads them, and compared with the pages of the buffer.

mod sgl;
mod shapes;

use super::*;
use std::{ops::RangeInclusive, sync::Arc};
use upcie_core::{
    dma::{DmaBuf, DmaSpace, Heap},
    memory::PageSize,
    testing::FakeIommu,
};

/// Memory as a device sees it.
#[derive(Debug, Default)]
struct Host(FakeIommu);

impl Host {
    fn entry(&self, iova: u64) -> u64 {
        assert_eq!(iova % 8, 0, "entries are qwords");
        let entry = self.0.pointer(iova, 8).cast::<u64>();
        // SAFETY: a live mapping of the heap's, of 8 bytes at least from there on; aligned, as its device address is.
        unsafe { entry.read() }
    }

    /// Walks a data pointer like a controller: returns the address of every dword-aligned piece, page by
    /// page.
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
    let space = DmaSpace::new("test", [range], 4096, Box::new(host.0.clone()));
    let lists = BufferLists { page_shift: shift };
    (Heap::new(&space, Some(PageSize::Small), Some(Box::new(lists))), host)
}

/// Returns the pieces as addresses of 4-byte words, so that the cut between pieces does not matter.
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
    let (pointer, len) = pool.build(buf)?;
    assert_eq!(len, buf.total_len() as u64);
    Ok(pointer)
}

#[test]
fn whole_buffers_have_their_list_ready() {
    for shift in [12, 13, 16] {
        let (heap, host) = heap(shift);
        let page = 1 << shift;
        for len in [4, 512, page, page + 4, 2 * page, 2 * page + 4, 3 * page, 513 * page, 1024 * page + 512] {
            let buf = heap.alloc(len).unwrap();
            let transfer = buf.prepared();
            if len as u64 > MAX_TRANSFER {
                assert_eq!(transfer.len, 0);
                continue;
            }
            assert_eq!(transfer.len as usize, len);
            assert_eq!(
                words(host.pages(transfer.iova, transfer.second, len, shift)),
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
        let transfer = buf.prepared();
        assert_eq!(host.pages(transfer.iova, transfer.second, buf.len(), 12).len(), pages);
    }
    assert_eq!(list_bytes(512, 12), 4096);
    assert_eq!(list_bytes(513, 12), 4096 + 16);
    assert_eq!(list_bytes(511 + 512, 12), 2 * 4096);
    assert_eq!(list_bytes(511 + 513, 12), 2 * 4096 + 16);
}
