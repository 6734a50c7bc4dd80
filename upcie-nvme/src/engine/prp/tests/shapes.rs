//! Random shapes, compared with entries made in a simple way: the pages of all bytes, in order.

use super::*;
use upcie_core::testing::Random;

/// Returns the PRP entries for these bytes, including the first; `None` if PRPs can't describe them.
fn entries(spans: &[(u64, usize)], page: u64) -> Option<Vec<u64>> {
    let mut all: Vec<u64> = Vec::new();
    let mut end = None;
    for &(start, len) in spans {
        let goes_on = end == Some(start) && start % page != 0;
        match end {
            None if start % 4 != 0 => return None,
            Some(end) if !goes_on && (end % page != 0 || start % page != 0) => return None,
            _ => {}
        }
        let (mut at, last) = (start, start + (len as u64 - 1));
        if !goes_on {
            all.push(at);
        }
        while at / page < last / page {
            at = (at / page + 1) * page;
            all.push(at);
        }
        end = Some(last.wrapping_add(1));
    }
    Some(all)
}

/// Returns the chunks of `capacity` entries that a list takes; `None` if there is no such list.
fn chunks(entries: usize, capacity: usize, page: u64) -> Option<usize> {
    match entries.saturating_sub(1) {
        0 | 1 => Some(0),
        further if further <= capacity => Some(1),
        _ if ((capacity * ENTRY) as u64) < page => None,
        // Each chunk but the last uses one entry for the pointer.
        further => Some(1 + (further - capacity).div_ceil(capacity - 1)),
    }
}

/// Makes random segments, most of them with the alignment that PRPs need.
fn shape(heap: &Arc<Heap>, random: &mut Random, page: usize) -> DmaBuf {
    let mut chain = DmaBuf::empty();
    for _ in 0..1 + random.below(5) {
        let all = heap.alloc_aligned((1 + random.below(6)) * page, page).unwrap();
        let mut cut = || match random.below(12) {
            0 => random.below(page / 4) * 4,
            1 => random.below(page),
            _ => 0,
        };
        let (front, back) = (cut(), cut());
        let end = all.len() - back;
        if front >= end {
            continue;
        }
        let part = if front + back == 0 { all } else { all.slice(front..end) };
        if part.len() > 1 && random.one_in(3) {
            let middle = 1 + random.below(part.len() - 1);
            let (low, high) = part.split_at(middle);
            chain.chain(low);
            chain.chain(high);
        } else {
            chain.chain(part);
        }
    }
    chain
}

#[test]
fn lists_of_any_shape_match_the_model() {
    let mut random = Random(1);
    let (mut good, mut bad, mut dry) = (0, 0, 0);
    for shift in 12..=16 {
        let page = 1_usize << shift;
        // Chunks for transfers of less than a page, chunks of a few entries, and chunks of a page.
        for (max, bytes) in [(page as u64 / 2, 64), (page as u64 * 6, 256), (MAX_TRANSFER, 4 * page)] {
            let (heap, host) = heap(shift);
            let mut pool = pool(&heap, bytes, max, shift);
            let capacity = ListPool::chunk_bytes(max, shift) / ENTRY;
            let all = bytes / (capacity * ENTRY);
            let mut free = all;
            let mut taken: Vec<(u32, usize)> = Vec::new();
            for _ in 0..400 {
                if random.one_in(4) && !taken.is_empty() {
                    let (list, count) = taken.swap_remove(random.below(taken.len()));
                    pool.release(list);
                    free += count;
                }
                let buf = shape(&heap, &mut random, page);
                // With a table of its addresses, or without.
                let buf = if random.one_in(2) { DmaBuf::gather([buf]) } else { buf };
                let segments = buf.segments().filter(|segment| !segment.is_empty());
                let spans: Vec<_> = segments.map(|segment| (segment.iova(0), segment.len())).collect();
                let built = match spans.len() {
                    1.. if random.one_in(2) => pool.build_range(&buf, 0, buf.total_len()),
                    _ => build(&mut pool, &buf),
                };
                let Some(wanted) = entries(&spans, page as u64) else {
                    // The pool may run out first: then that is the reason.
                    assert!(built.is_err(), "{spans:x?}");
                    bad += usize::from(built == Err(Refusal::Unaligned));
                    continue;
                };
                let need = chunks(wanted.len(), capacity, page as u64);
                match built {
                    Ok(DataPointer { prp1, prp2, list, psdt: 0 }) => {
                        let need = need.expect("there is such a list");
                        assert!(need <= free, "{need} chunks of {free}");
                        free -= need;
                        if !spans.is_empty() {
                            let pieces = host.pages(prp1, prp2, buf.total_len(), shift);
                            let found: Vec<u64> = pieces.into_iter().map(|(at, _)| at).collect();
                            assert_eq!(found, wanted, "{spans:x?}");
                        }
                        assert_eq!(list != 0, need > 0);
                        if need > 0 {
                            taken.push((list, need));
                        }
                        good += 1;
                    }
                    Err(Refusal::ListsInUse) => {
                        assert!(need.is_none_or(|need| need > free), "{need:?} chunks of {free}");
                        dry += 1;
                    }
                    Ok(pointer) => panic!("an SGL without permission: {pointer:x?}"),
                    Err(refusal) => assert_eq!((refusal, need), (Refusal::TooLong, None), "{spans:x?}"),
                }
            }
            // All chunks are free again, and there are no more than before.
            taken.into_iter().for_each(|(list, _)| pool.release(list));
            let three = heap.alloc_aligned(3 * page, page).unwrap();
            for _ in 0..all {
                build(&mut pool, &three).unwrap();
            }
            assert_eq!(build(&mut pool, &three), Err(Refusal::ListsInUse));
        }
    }
    assert!(good > 1000 && bad > 500 && dry > 100, "{good} {bad} {dry}");
}

#[test]
fn memory_may_end_with_the_address_space() {
    let (heap, host) = heap_in(u64::MAX - ((64 << 20) - 1)..=u64::MAX, 12);
    let mut pool = pool(&heap, 16 << 10, 1 << 20, 12);
    // Allocate everything, so that one buffer lies at the end of the address space.
    let mut all: Vec<DmaBuf> = Vec::new();
    while let Ok(buf) = heap.alloc_aligned(64 << 10, 4096) {
        all.push(buf);
    }
    let top = all.iter().position(|buf| buf.iova(buf.len() - 1) == u64::MAX).expect("the last byte");
    let mut buf = all.swap_remove(top);
    assert_eq!(buf.prepared().len, 64 << 10);
    let DataPointer { prp1, prp2, .. } = build(&mut pool, &buf).unwrap();
    let found = host.pages(prp1, prp2, buf.len(), 12).into_iter().map(|(at, _)| at).collect();
    assert_eq!(entries(&[(buf.iova(0), buf.len())], 4096), Some(found));
    // The buffer at the very end can't be followed by another.
    buf.chain(all.swap_remove(0).slice(512..4096));
    assert_eq!(build(&mut pool, &buf), Err(Refusal::Unaligned));
}

#[test]
fn a_ready_list_of_scattered_memory_names_its_pages() {
    let mut random = Random(2);
    for shift in 12..=16 {
        let lists = BufferLists { page_shift: shift };
        for _ in 0..200 {
            // Memory in pieces of 64 KiB, some of them side by side.
            let mut at = 0;
            let places: Vec<u64> = (0..24)
                .map(|_| {
                    at += if random.one_in(2) { 1 << 16 } else { 5 << 16 };
                    at
                })
                .collect();
            let start = random.below(1 << 14) * 4;
            let len = 1 + random.below((23 << 16) - start);
            let iova = |offset: usize| places[(start + offset) >> 16] + ((start + offset) & 0xffff) as u64;
            let mut list = vec![0; lists.list_len(iova(0), len) / ENTRY];
            let base = 1 << 47;
            let ready = (!list.is_empty()).then_some(());
            let word = lists.prepare(&iova, len, ready.map(|()| List::new(&mut list, base))).unwrap();
            let (mut spans, mut walked) = (Vec::new(), 0);
            while walked < len {
                let piece = (0x1_0000 - ((start + walked) & 0xffff)).min(len - walked);
                spans.push((iova(walked), piece));
                walked += piece;
            }
            match entries(&spans, 1 << shift).unwrap()[..] {
                [_] => assert_eq!(word, 0),
                [_, second] => assert_eq!(word, second),
                // All entries fit into one page of the list.
                [_, ref further @ ..] => assert!(word == base && list == further, "{spans:x?}"),
                [] => unreachable!("there is a first page"),
            }
        }
    }
}
