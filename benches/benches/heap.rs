//! The DMA heap against the system's malloc: the same random lengths, the same pattern of lifetimes.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{cell::RefCell, hint::black_box, sync::Arc, time::Duration};
use upcie_benches::{Random, entry::Pairs, standin::StandIn, thread_time};
use upcie_core::{device::Device, dma::Heap, memory::PageSize};

const LIVE: usize = 256;
const ROUNDS: usize = 100_000;

/// Returns the nanoseconds per allocation and release, with about 256 live buffers of 512 bytes to 32 KiB.
fn run<B>(allocate: impl Fn(usize) -> B) -> f64 {
    let mut random = Random::new();
    let mut live: Vec<Option<B>> = (0..LIVE).map(|_| None).collect();
    let start = thread_time();
    for _ in 0..ROUNDS {
        let number = random.next();
        let len = 512 << (number % 7);
        live[(number >> 32) as usize % LIVE] = Some(black_box(allocate(black_box(len))));
    }
    (thread_time() - start) as f64 / ROUNDS as f64
}

/// Memory of malloc, whose bytes are not touched; nor are the heap's.
struct Malloc(*mut libc::c_void);

impl Malloc {
    fn new(len: usize) -> Self {
        // SAFETY: malloc accepts any length.
        Self(unsafe { libc::malloc(len) })
    }
}

impl Drop for Malloc {
    fn drop(&mut self) {
        // SAFETY: the pointer is from `malloc`, and freed once.
        unsafe { libc::free(self.0) }
    }
}

fn alloc_free(criterion: &mut Criterion) {
    let pairs = RefCell::new(Pairs::default());
    let standin = StandIn::new();
    let heap: Arc<Heap> = Heap::new(standin.dma(), Some(PageSize::Small), None);
    criterion.bench_function("heap/alloc_free", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = 0.0;
            for _ in 0..iterations {
                let (ours, malloc) = (run(|len| heap.alloc_unzeroed(len).expect("memory")), run(Malloc::new));
                pairs.borrow_mut().push(ours, malloc);
                total += ours;
            }
            Duration::from_secs_f64(total * 1e-9)
        });
    });
    pairs.into_inner().report("heap/alloc_free", "ns", "lower");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = alloc_free
}
criterion_main!(benches);
