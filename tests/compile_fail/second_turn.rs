// A queue has one turn at a time.
use upcie_nvme::QueuePair;

fn twice(queue: &mut QueuePair<u64>) {
    let first = queue.turn().unwrap();
    let second = queue.turn().unwrap();
    drop((first, second));
}

fn main() {
    let _ = twice;
}
