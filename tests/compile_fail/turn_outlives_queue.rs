// A turn does not outlive its queue.
use upcie_nvme::{Controller, Turn};

fn leak<'a>(controller: &Controller) -> Turn<'a, u64> {
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    queue.turn().unwrap()
}

fn main() {
    let _ = leak;
}
