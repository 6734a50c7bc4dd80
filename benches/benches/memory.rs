//! Memory of a queue pair, in bytes; each run gives the same values.

use upcie_benches::{
    entry::Pairs,
    memory::{Counting, queue_pair},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if filter.is_some_and(|filter| !"memory/queue_pair_1024".contains(&filter)) {
        return;
    }
    let bytes = queue_pair(1024);
    for (name, bytes) in [("dma", bytes.dma), ("host", bytes.host), ("both", bytes.dma + bytes.host)] {
        let mut pairs = Pairs::default();
        pairs.push_alone(bytes as f64);
        pairs.report(&format!("memory/queue_pair_1024_{name}"), "bytes", "lower");
    }
}
