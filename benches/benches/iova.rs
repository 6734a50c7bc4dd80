//! Translation of an offset into a device address: of a buffer, of a region, and through the page table that
//! a region has without an IOMMU, each against the arithmetic alone.

mod compare;

use compare::compare;
use criterion::{Criterion, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use upcie_benches::{Random, standin::StandIn, thread_time};
use upcie_core::{
    device::Device,
    dma::{Addresses, Heap},
    memory::PageSize,
};

const COUNT: u64 = 400_000;
const LEN: usize = 1 << 20;

/// Returns the nanoseconds of a look-up, over many random offsets.
#[inline(always)]
fn look_up(at: impl Fn(usize) -> u64) -> f64 {
    let (mut random, mut sum) = (Random::new(), 0_u64);
    let start = thread_time();
    for _ in 0..COUNT {
        sum = sum.wrapping_add(at(random.next() as usize & (LEN - 1)));
    }
    let time = thread_time() - start;
    black_box(sum);
    time as f64 / COUNT as f64
}

fn iova(criterion: &mut Criterion) {
    let standin = StandIn::new();
    let heap = Heap::new(standin.dma(), Some(PageSize::Small), None);
    let buffer = || heap.alloc(LEN).expect("memory");
    let base = |address: u64| {
        let address = black_box(address);
        move |offset| address + offset as u64
    };
    compare(criterion, "iova/buffer", &[("iova/buffer", 0, Some(1))], buffer, |buffer| {
        let buffer = black_box(buffer);
        [look_up(|offset| buffer.iova(offset)), look_up(base(buffer.iova(0)))]
    });
    compare(criterion, "iova/region", &[("iova/region", 0, Some(1))], buffer, |buffer| {
        let region = black_box(buffer.region().expect("a region"));
        [look_up(|offset| region.iova(offset)), look_up(base(region.iova(0)))]
    });
    let addresses = || Addresses::of_pages(12, (0..LEN as u64 >> 12).map(|page| page << 14).collect());
    compare(criterion, "iova/pages", &[("iova/pages", 0, Some(1))], addresses, |addresses| {
        let Addresses::Pages { pages, .. } = &*addresses else { unreachable!("pages that don't touch") };
        let (pages, addresses) = (black_box(&pages[..]), black_box(&*addresses));
        // SAFETY: offsets are below the region's length, which the pages cover.
        let by_hand = |offset: usize| unsafe { *pages.get_unchecked(offset >> 12) } + (offset & 4095) as u64;
        [look_up(|offset| addresses.at(offset)), look_up(by_hand)]
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = iova
}
criterion_main!(benches);
