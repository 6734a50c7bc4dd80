// A queue whose tags may not leave their thread may not leave it either.
use std::rc::Rc;
use upcie_nvme::QueuePair;

fn moved(queue: QueuePair<Rc<u64>>) {
    std::thread::spawn(move || drop(queue));
}

fn main() {
    let _ = moved;
}
