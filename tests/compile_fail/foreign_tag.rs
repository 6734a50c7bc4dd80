// A queue whose tags may not leave their thread stays in it too.
use std::rc::Rc;
use upcie_nvme::QueuePair;

fn moved(queue: QueuePair<Rc<u64>>) {
    std::thread::spawn(move || drop(queue));
}

fn main() {
    let _ = moved;
}
