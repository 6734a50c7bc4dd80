//! Submission and completion with data pointers of several pages, against a hand-written loop that fills a
//! PRP list for each command. `whole` is a buffer as allocated, with its list ready; `part` is a piece of a
//! larger buffer; `scattered` is a chain of pages; `gathered` is such a chain with a table of its addresses, as vectored
//! transfers have; `held` is the same pages as ranges of memory that stays with the program, `kept` the gathered chain as
//! memory that stays with it.

mod compare;

use compare::compare;
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;
use upcie_benches::{hand::Hand, held::Held, ours::Ours, thread_time};
use upcie_nvme::{Controller, DmaBuf};

const ENTRIES: usize = 128;
const DEPTH: usize = 8;
/// The approximate bytes of lists to fill in one measurement: the fewer pages, the more I/Os.
const WORK: usize = 400_000;
const PAGE: usize = 4096;

fn count(pages: usize) -> u64 {
    (WORK / (pages + 3)) as u64
}

fn alloc(controller: &Controller, len: usize) -> DmaBuf {
    controller.alloc(len).expect("a buffer")
}

/// Makes a chain of segments that are not adjacent: pages of two-page buffers, or two halves of pages for one
/// page.
fn chain(controller: &Controller, pages: usize) -> DmaBuf {
    if pages == 1 {
        let mut first = alloc(controller, PAGE).slice(PAGE / 2..PAGE);
        first.chain(alloc(controller, PAGE).slice(0..PAGE / 2));
        return first;
    }
    let segment = || alloc(controller, 2 * PAGE).slice(0..PAGE);
    let mut first = segment();
    for _ in 1..pages {
        first.chain(segment());
    }
    first
}

/// Makes the same as [`chain`], with a table of its addresses.
fn gather(controller: &Controller, pages: usize) -> DmaBuf {
    DmaBuf::gather([chain(controller, pages)])
}

/// The hand-written side: a list of one page per command, and a table of the pages of each scattered buffer.
struct Lists {
    hand: Hand,
    lists: Vec<[u64; 512]>,
    table: Vec<Vec<u64>>,
}

impl Lists {
    fn new(pages: usize) -> Self {
        // No two pages are adjacent.
        let table = (0..DEPTH)
            .map(|i| (0..pages).map(move |page| ((i * pages + page) * 2 * PAGE) as u64 + 0x10_0000));
        let table = table.map(Iterator::collect).collect();
        Self { hand: Hand::new(ENTRIES, DEPTH), lists: vec![[0; 512]; ENTRIES], table }
    }

    #[inline(never)]
    fn contiguous(&mut self, pages: usize) -> f64 {
        let Self { hand, lists, .. } = self;
        let start = thread_time();
        let done =
            hand.pass_with(DEPTH, count(pages), (pages * 8 - 1) as u64, |cid, _, address| match pages {
                1 => (address, 0),
                2 => (address, address + PAGE as u64),
                _ => {
                    let list = &mut lists[usize::from(cid)];
                    for (i, entry) in list[..pages - 1].iter_mut().enumerate() {
                        *entry = address + ((i + 1) * PAGE) as u64;
                    }
                    (address, list.as_ptr() as u64)
                }
            });
        (thread_time() - start) as f64 / done as f64
    }

    #[inline(never)]
    fn scattered(&mut self, pages: usize) -> f64 {
        let Self { hand, lists, table } = self;
        let start = thread_time();
        let done = hand.pass_with(DEPTH, count(pages), (pages * 8 - 1) as u64, |cid, user, _| {
            let table = &table[user as usize];
            match table[..] {
                [one] => (one, one + PAGE as u64),
                _ => {
                    let list = &mut lists[usize::from(cid)];
                    list[..pages - 1].copy_from_slice(&table[1..]);
                    (table[0], list.as_ptr() as u64)
                }
            }
        });
        (thread_time() - start) as f64 / done as f64
    }
}

fn prp(criterion: &mut Criterion) {
    for (size, pages) in [("4k", 1), ("64k", 16), ("1m", 256)] {
        let ours = |make: &dyn Fn(&Controller) -> DmaBuf| {
            Ours::with_buffers(ENTRIES, |controller| (0..DEPTH).map(|_| make(controller)).collect())
        };
        let names = ["whole", "part", "scattered", "gathered", "held", "kept"]
            .map(|kind| format!("prp/{kind}_{size}"));
        let len = pages * PAGE;
        compare(
            criterion,
            &names[0],
            &[(&names[0], 0, Some(1))],
            || (ours(&|controller| alloc(controller, len)), Lists::new(pages)),
            |(ours, lists)| [ours.run(count(pages)), lists.contiguous(pages)],
        );
        compare(
            criterion,
            &names[1],
            &[(&names[1], 0, Some(1))],
            || (ours(&|controller| alloc(controller, 2 * len).slice(PAGE..PAGE + len)), Lists::new(pages)),
            |(ours, lists)| [ours.run(count(pages)), lists.contiguous(pages)],
        );
        compare(
            criterion,
            &names[2],
            &[(&names[2], 0, Some(1))],
            || (ours(&|controller| chain(controller, pages)), Lists::new(pages)),
            |(ours, lists)| [ours.run(count(pages)), lists.scattered(pages)],
        );
        compare(
            criterion,
            &names[3],
            &[(&names[3], 0, Some(1))],
            || (ours(&|controller| gather(controller, pages)), Lists::new(pages)),
            |(ours, lists)| [ours.run(count(pages)), lists.scattered(pages)],
        );
        compare(
            criterion,
            &names[4],
            &[(&names[4], 0, Some(1))],
            || {
                let held = |controller: &Controller| -> Vec<Vec<DmaBuf>> {
                    (0..DEPTH).map(|_| chain(controller, pages).into_segments()).collect()
                };
                (Held::new(ENTRIES, held), Lists::new(pages))
            },
            |(held, lists)| [held.run(count(pages)), lists.scattered(pages)],
        );
        compare(
            criterion,
            &names[5],
            &[(&names[5], 0, Some(1))],
            || {
                let kept = |controller: &Controller| -> Vec<Vec<DmaBuf>> {
                    (0..DEPTH).map(|_| vec![gather(controller, pages)]).collect()
                };
                (Held::new(ENTRIES, kept), Lists::new(pages))
            },
            |(held, lists)| [held.run(count(pages)), lists.scattered(pages)],
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = prp
}
criterion_main!(benches);
