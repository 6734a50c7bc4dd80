// No wait while a turn is open: its doorbells have not been written yet.
use upcie_nvme::{QueuePair, Wait};

fn wait(queue: &mut QueuePair<u64>) {
    let turn = queue.turn().unwrap();
    queue.wait(Wait::Poll, std::time::Duration::ZERO).unwrap();
    drop(turn);
}

fn main() {
    let _ = wait;
}
