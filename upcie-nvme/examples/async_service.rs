//! A block service in one thread: each client is a task that awaits its reads, with a time limit for each, and one task drives
//! the queue that all of them share.
//!
//!     cargo run --features async --example async_service -- emu
//!
//! A read whose time is up is cancelled by dropping its future. Its buffer stays with the queue until the controller is done
//! with it, so the client goes on with another one.

use std::{cell::Cell, rc::Rc, task::Context, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    task::{JoinSet, LocalSet},
    time::timeout,
};
use upcie_nvme::{Address, AsyncQueue, Controller, Namespace};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEPTH: u32 = 32;
const CLIENTS: u64 = 64;
const READS: u64 = 20;
/// The time that a client gives a read.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(&controller, &namespace))
}

async fn serve(controller: &Controller, namespace: &Namespace) -> Result<()> {
    let vectors = controller.vectors()?;
    let builder = controller.queue_pair().depth(DEPTH);
    // With MSI-X a vector of its own; with INTx there is vector 0 alone; without interrupts the driver polls.
    let builder = if vectors > 0 { builder.interrupt((vectors - 1).min(1)) } else { builder };
    let queue = builder.create_async()?;
    let driver = if vectors > 0 {
        let driver = queue.drive(|fd| {
            // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and the closure keeps it.
            let fd = unsafe { AsyncFd::register(fd) }?;
            Ok(move |cx: &mut Context<'_>| fd.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready()))
        })?;
        tokio::task::spawn_local(driver)
    } else {
        tokio::task::spawn_local(queue.drive_polled())
    };

    let served = Rc::new(Cell::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (queue, served) = (queue.clone(), served.clone());
        clients.spawn_local(read_blocks(client, queue, controller.clone(), namespace.clone(), served));
    }
    drop(queue);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    // The driver ends when nobody uses the queue any more.
    driver.await??;
    println!("{} of {} reads in time, for {CLIENTS} clients", served.get(), CLIENTS * READS);
    Ok(())
}

/// Serves one client: one read after the other.
async fn read_blocks(
    client: u64,
    queue: AsyncQueue,
    controller: Controller,
    namespace: Namespace,
    served: Rc<Cell<u64>>,
) -> upcie_nvme::Result<()> {
    let mut buffer = controller.alloc(namespace.block_size())?;
    for read in 0..READS {
        let slba = (client * READS + read) % namespace.blocks();
        match timeout(PATIENCE, queue.read(&namespace, slba, buffer)).await {
            Ok((result, back)) => {
                result?;
                buffer = back;
                served.set(served.get() + 1);
            }
            // The old buffer is freed once the controller has completed the read.
            Err(_) => buffer = controller.alloc(namespace.block_size())?,
        }
    }
    Ok(())
}
