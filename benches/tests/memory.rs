//! A queue pair is small.

use upcie_benches::memory::{Counting, queue_pair};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_queue_pair_of_depth_1024_takes_at_most_256_kib() {
    let bytes = queue_pair(1024);
    // The rings alone are 80 KiB.
    assert!(bytes.dma >= 80 << 10, "{bytes:?}");
    assert!(bytes.dma + bytes.host <= 256 << 10, "{bytes:?}");
}
