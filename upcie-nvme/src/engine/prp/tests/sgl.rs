//! Scatter gather lists of random shapes, read back like a controller reads them.

use super::{super::shape::Whole, *};
use crate::{
    error::SegmentFault,
    spec::{FromBytes, IntoBytes, SglDescriptor},
};
use upcie_core::testing::Random;

/// Returns the data blocks of a list, and checks its structure.
fn blocks(host: &Host, pointer: DataPointer) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut next = Some(SglDescriptor::from_words((pointer.prp1, pointer.prp2)));
    assert_eq!(pointer.list != 0, next.is_some_and(|first| first.kind() != SglDescriptor::DATA_BLOCK));
    while let Some(SglDescriptor { address, length, .. }) = next {
        let kind = next.map_or(0, |descriptor| descriptor.kind());
        if kind == SglDescriptor::DATA_BLOCK {
            found.push((address, u64::from(length)));
            break;
        }
        assert!(length > 0 && length % 16 == 0 && address % 8 == 0, "{length} bytes at {address:#x}");
        next = None;
        for at in (0..u64::from(length)).step_by(16) {
            let words = [host.entry(address + at), host.entry(address + at + 8)];
            let descriptor = SglDescriptor::read_from_bytes(words.as_bytes()).unwrap();
            assert_eq!(descriptor.subtype(), 0);
            if descriptor.kind() == SglDescriptor::DATA_BLOCK {
                found.push((descriptor.address, descriptor.length.into()));
                continue;
            }
            assert_eq!(
                (kind, at + 16),
                (SglDescriptor::SEGMENT, length.into()),
                "the last of its segment leads on"
            );
            next = Some(descriptor);
        }
        assert_eq!(kind == SglDescriptor::LAST_SEGMENT, next.is_none());
    }
    found
}

/// Joins spans that continue each other.
fn joined(spans: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (address, len) in spans.into_iter().filter(|span| span.1 > 0) {
        match all.last_mut() {
            Some((start, before)) if *start + *before == address => *before += len,
            _ => all.push((address, len)),
        }
    }
    all
}

/// Makes a chain of random segments, gathered or not.
fn chain(heap: &Arc<Heap>, random: &mut Random, step: usize) -> DmaBuf {
    let mut parts = Vec::new();
    for _ in 0..1 + random.below(12) {
        let all = heap.alloc_aligned(4096, 4096).unwrap();
        let start = random.below(2000 / step) * step;
        let len = [4096 - start, step + random.below(2000 / step) * step][random.below(2)];
        let part = if (start, len) == (0, 4096) { all } else { all.slice(start..start + len) };
        if part.len() > 2 * step && random.one_in(3) {
            let (low, high) = part.split_at(step);
            parts.extend([low, high]);
        } else {
            parts.push(part);
        }
    }
    if random.one_in(2) {
        return DmaBuf::gather(parts);
    }
    parts.into_iter().rev().fold(DmaBuf::empty(), |chain, mut part| {
        if !chain.is_empty() {
            part.chain(chain);
        }
        part
    })
}

fn with_sgls(pool: ListPool, sgl: SglUse, sgl_mask: u64) -> ListPool {
    let shape = Shape { sgl, sgl_mask, ..pool.shape() };
    pool.with_shape(shape)
}

#[test]
fn lists_of_any_shape_name_all_bytes() {
    let mut random = Random(11);
    let (heap, host) = heap(12);
    let (mut by_prps, mut by_sgl, mut listed) = (0, 0, 0);
    for (max, bytes) in [(4096, 4096), (24 << 10, 4096), (2 << 20, 16 << 10)] {
        let uses =
            [(SglUse::Always, 0), (SglUse::WhereNeeded, 0), (SglUse::Beyond(3), 0), (SglUse::Always, 3)];
        for (usage, mask) in uses {
            let mut pool = with_sgls(pool(&heap, bytes, max, 12), usage, mask);
            for _ in 0..300 {
                let step = if mask == 0 { 1 } else { [4, 4, 2][random.below(3)] };
                let buf = chain(&heap, &mut random, step);
                let wanted = joined(buf.segments().map(|segment| (segment.iova(0), segment.len() as u64)));
                let built = build(&mut pool, &buf);
                if wanted.iter().any(|(address, len)| (address | len) & mask != 0) {
                    assert_eq!(built, Err(Refusal::Unaligned));
                    continue;
                }
                let pointer = built.unwrap();
                if pointer.psdt == 0 {
                    assert!(matches!(usage, SglUse::WhereNeeded | SglUse::Beyond(_)));
                    let found = host.pages(pointer.prp1, pointer.prp2, buf.total_len(), 12);
                    assert!(usage == SglUse::WhereNeeded || found.len() <= 3, "{found:?}");
                    assert_eq!(joined(found.into_iter().map(|(at, len)| (at, len as u64))), wanted);
                    by_prps += 1;
                } else {
                    let found = blocks(&host, pointer);
                    assert_eq!(found, wanted, "one block for contiguous bytes");
                    (by_sgl, listed) = (by_sgl + 1, listed + usize::from(found.len() > 1));
                }
                // A part of it, across segments.
                let start = random.below(buf.total_len()) & !3;
                let len = (1 + random.below(buf.total_len() - start)).next_multiple_of(4);
                if mask == 0 && start + len <= buf.total_len() {
                    let mut bytes: Vec<(u64, u64)> = Vec::new();
                    let all = wanted.iter().flat_map(|&(at, len)| (at..at + len).map(|at| (at, 1)));
                    bytes.extend(all.skip(start).take(len));
                    let part = pool.build_range(&buf, start, len).unwrap();
                    if part.psdt != 0 {
                        assert_eq!(joined(blocks(&host, part)), joined(bytes));
                    }
                    [part.list].into_iter().filter(|&list| list != 0).for_each(|list| pool.release(list));
                }
                [pointer.list].into_iter().filter(|&list| list != 0).for_each(|list| pool.release(list));
            }
        }
    }
    assert!(by_prps > 10 && by_sgl > 1000 && listed > 1000, "{by_prps} {by_sgl} {listed}");
}

#[test]
fn a_list_larger_than_the_pool_is_refused_and_released() {
    let (heap, _) = heap(12);
    // Two chunks of two descriptors each.
    let mut pool = with_sgls(pool(&heap, 64, 4096, 12), SglUse::Always, 0);
    let pages = |count: usize| {
        DmaBuf::gather((0..count).map(|_| heap.alloc_aligned(8192, 4096).unwrap().slice(100..200)))
    };
    for _ in 0..3 {
        let three = build(&mut pool, &pages(3)).unwrap();
        assert_eq!(build(&mut pool, &pages(2)), Err(Refusal::ListsInUse));
        pool.release(three.list);
        assert_eq!(build(&mut pool, &pages(4)), Err(Refusal::TooLong));
    }
    let one = pages(1);
    let foreign = pool.describe(&Whole(&one, pool.space() + 1), |_| ());
    assert_eq!(foreign, Err(Refusal::ForeignBuffer));
}

#[test]
fn the_segment_that_does_not_fit_is_named() {
    let (heap, _) = heap(12);
    let page = || heap.alloc_aligned(4096, 4096).unwrap();
    let apart = |part| heap.alloc_aligned(12288, 4096).unwrap().slice(part);
    let cases: Vec<(DmaBuf, Option<u32>, Option<u32>)> = vec![
        (DmaBuf::gather([page(), page(), page()]), None, None),
        (DmaBuf::gather([page().slice(2048..4096), page(), page().slice(0..6)]), None, Some(2)),
        (DmaBuf::gather([apart(2..4096), page()]), Some(0), Some(0)),
        (DmaBuf::gather([page(), page().slice(4..4096), page()]), Some(1), None),
        (DmaBuf::gather([page(), page().slice(0..4092), page()]), Some(2), None),
        (DmaBuf::gather([page(), page().slice(0..512), page().slice(3..9)]), Some(2), Some(2)),
    ];
    for (number, (buf, by_prps, by_dwords)) in cases.into_iter().enumerate() {
        let segment = |number| Refusal::Segment { number, fault: SegmentFault::Unaligned };
        for (sgl, wanted) in [
            (SglUse::Never, by_prps),
            (SglUse::Always, by_dwords),
            (SglUse::WhereNeeded, by_prps.and(by_dwords)),
            (SglUse::Beyond(2), by_prps.and(by_dwords)),
        ] {
            let shape = Shape { sgl, sgl_mask: 3, ..Shape::prps(12) };
            assert_eq!(shape.refuse(&buf, 0..buf.total_len()), wanted.map(segment), "case {number}, {sgl:?}");
        }
    }
    let shape = Shape::prps(12);
    assert_eq!(
        shape.refuse(&page().slice(2..512), 0..510),
        Some(Refusal::Unaligned),
        "one segment has no number"
    );
}

#[test]
fn data_of_more_pages_than_the_limit_is_an_sgl() {
    let (heap, host) = heap(12);
    let mut pool = with_sgls(pool(&heap, 64 << 10, 1 << 20, 12), SglUse::Beyond(3), 3);
    let page = |part| heap.alloc_aligned(12288, 4096).unwrap().slice(part);
    for (len, start, by_prps) in [(12288, 0, true), (12284, 4, true), (8, 4092, true)] {
        let pointer = build(&mut pool, &page(start..start + len)).unwrap();
        assert_eq!(pointer.psdt == 0, by_prps, "{len} bytes at {start}");
        [pointer.list].into_iter().filter(|&list| list != 0).for_each(|list| pool.release(list));
    }
    let buffer = heap.alloc_aligned(32768, 4096).unwrap();
    let whole = build(&mut pool, &buffer).unwrap();
    assert_eq!(blocks(&host, whole), [(buffer.iova(0), 32768)], "no list, whatever its length");
    // Three pages and a byte of a fourth.
    for (start, len, by_prps) in [(0, 12288, true), (4096, 12288, true), (4, 12288, false), (0, 16384, false)]
    {
        let part = pool.build_range(&buffer, start, len).unwrap();
        assert_eq!(part.psdt == 0, by_prps, "{len} bytes at {start}");
        [part.list].into_iter().filter(|&list| list != 0).for_each(|list| pool.release(list));
    }
    let pages = |count| DmaBuf::gather((0..count).map(|_| page(0..4096)));
    assert_eq!(build(&mut pool, &pages(3)).unwrap().psdt, 0);
    assert_ne!(build(&mut pool, &pages(4)).unwrap().psdt, 0);
    // Data blocks have whole dwords here, and PRPs may end anywhere.
    let odd = DmaBuf::gather([page(0..12288), page(0..4095)]);
    assert_eq!(build(&mut pool, &odd).unwrap().psdt, 0);
}
