// A queue belongs to one thread at a time.
use upcie_nvme::QueuePair;

fn shared(queue: &QueuePair<u64>) {
    std::thread::scope(|scope| {
        scope.spawn(|| queue.capacity());
    });
}

fn main() {
    let _ = shared;
}
