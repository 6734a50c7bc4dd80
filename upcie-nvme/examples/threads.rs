//! Several threads, a queue pair each. Nothing on the I/O path is shared, so nothing is locked.
//!
//!     cargo run --example threads -- emu

use std::{error::Error, thread, time::Duration};
use upcie_nvme::{Address, Controller, Namespace, Wait};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const WRITES: u64 = 500;
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    // Each queue pair is one of the controller's; it may have granted fewer than there are threads.
    let threads = u64::from(controller.max_queue_pairs()).min(4);

    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn({
                    let (controller, namespace) = (&controller, &namespace);
                    move || work(controller, namespace, number)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker that does not panic"))
    })?;
    println!("{threads} threads wrote and read {WRITES} blocks each");
    Ok(())
}

/// Writes blocks of the thread's own and reads each back.
fn work(controller: &Controller, namespace: &Namespace, number: u64) -> Result<()> {
    let mut queue = controller.queue_pair().depth(8).create::<u64>()?;
    let mut buffer = controller.alloc(namespace.block_size())?;
    for i in 0..WRITES {
        let block = number * WRITES + i;
        buffer.fill(block as u8);
        queue.turn()?.write(namespace, block, buffer, block)?;
        buffer = finish(&mut queue)?;
        buffer.fill(0);
        queue.turn()?.read(namespace, block, buffer, block)?;
        buffer = finish(&mut queue)?;
        assert!(buffer.to_vec().iter().all(|&byte| byte == block as u8), "block {block}");
    }
    Ok(())
}

/// Waits for the one command in flight, and gives its buffer.
fn finish(queue: &mut upcie_nvme::QueuePair<u64>) -> Result<upcie_nvme::DmaBuf> {
    if !queue.wait(Wait::Poll, LIMIT)? {
        return Err("no completion".into());
    }
    let done = queue.turn()?.next().ok_or("no completion")?;
    let (_, result, buffer) = done.into_parts();
    result?;
    Ok(buffer)
}
