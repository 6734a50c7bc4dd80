//! Sleeping until the controller's interrupt, with the queue's own wait and with an event loop's.
//!
//!     cargo run --example interrupts -- emu

use std::{os::fd::AsRawFd, time::Duration};
use upcie_nvme::{Address, Controller, Wait};

const LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    // Vector 0 is the admin queue's too, and the only one with INTx. Several queues may share a vector.
    let vector = controller.vectors()?.saturating_sub(1).min(1);
    let mut queue = controller.queue_pair().depth(16).interrupt(vector).create::<&str>()?;

    // Sleep at once, which takes no time of this core, or poll for a little while first, which takes less time to wake up.
    for how in [Wait::Interrupt, Wait::Adaptive(Duration::from_micros(20))] {
        queue.turn()?.read(&namespace, 0, controller.alloc(4096)?, "a read")?;
        assert!(queue.wait(how, LIMIT)?, "no completion within {LIMIT:?}");
        for done in queue.turn()? {
            done.result()?;
            println!("{how:?}: {} is done", done.tag());
        }
    }

    // In an event loop: a descriptor that becomes readable with the queue's interrupts (edge triggered). Before each sleep:
    // arm the vector, then look at the queue.
    queue.turn()?.flush(&namespace, "a flush")?;
    let mut left = 1;
    while left > 0 {
        queue.arm()?;
        for done in queue.turn()? {
            done.result()?;
            println!("epoll: {} is done", done.tag());
            left -= 1;
        }
        if left > 0 {
            let fd = queue.completion_fd().expect("a queue with an interrupt").as_raw_fd();
            let mut events = [libc::epoll_event { events: 0, u64: 0 }];
            // SAFETY: room for one event, and a descriptor that is open. It is an epoll set: waiting on it takes the edge.
            let count = unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), 1, LIMIT.as_millis() as i32) };
            assert!(count > 0, "no interrupt within {LIMIT:?}");
        }
    }
    Ok(())
}
