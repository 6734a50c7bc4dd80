//! One queue for the tasks of a runtime with several threads: a thread owns the queue and drives it, the tasks have handles.
//! Each task writes blocks of its own, reads them back and compares. The namespace's first blocks are overwritten.
//!
//!     cargo run --features async --example async_handles -- emu

use std::{sync::mpsc, task::Context, thread};
use tokio::{io::unix::AsyncFd, task::JoinSet};
use upcie_nvme::{Address, Controller, Namespace, async_queue::AsyncHandle};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DEPTH: u32 = 32;
/// The most commands of all handles at once; further ones wait in their tasks.
const REQUESTS: usize = 64;
const TASKS: u64 = 100;
/// The blocks of a task.
const BLOCKS: u64 = 20;

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    if namespace.blocks() < TASKS * BLOCKS {
        return Err(format!("{address}: {} blocks are too few", namespace.blocks()).into());
    }
    // A controller can be sent to the thread; an asynchronous queue can't leave it.
    let (opener, (sender, handles)) = (controller.clone(), mpsc::channel());
    let owner = thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(drive(&opener, &sender))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build()?;
    let compared = handles.recv().map(|handle| runtime.block_on(run(&controller, &namespace, &handle)));
    // The last handle is gone, so the driver ends. If no handle came, this says why.
    owner.join().map_err(|_| "the queue's thread has panicked")??;
    println!("{} blocks read back as written, by {TASKS} tasks", compared??);
    Ok(())
}

/// Makes a queue, gives a handle away, and drives the queue until all handles are gone.
async fn drive(controller: &Controller, handles: &mpsc::Sender<AsyncHandle>) -> Result<()> {
    let vectors = controller.vectors()?;
    let builder = controller.queue_pair().depth(DEPTH);
    // With MSI-X a vector of its own; with INTx there is vector 0 alone; without interrupts the driver polls.
    let builder = if vectors > 0 { builder.interrupt((vectors - 1).min(1)) } else { builder };
    let queue = builder.create_async()?;
    handles.send(queue.handle(REQUESTS)?)?;
    if vectors == 0 {
        let driver = queue.drive_polled();
        drop(queue);
        return Ok(driver.await?);
    }
    let driver = queue.drive(|fd| {
        // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and the closure keeps it.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(move |cx: &mut Context<'_>| fd.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready()))
    })?;
    drop(queue);
    Ok(driver.await?)
}

/// Runs the tasks; returns the number of blocks that they have compared.
async fn run(controller: &Controller, namespace: &Namespace, handle: &AsyncHandle) -> Result<u64> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(write_and_read(task * BLOCKS, handle.clone(), controller.clone(), namespace.clone()));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(TASKS * BLOCKS)
}

/// Writes blocks from `first` on, then reads them back.
async fn write_and_read(
    first: u64,
    handle: AsyncHandle,
    controller: Controller,
    namespace: Namespace,
) -> Result<()> {
    let len = namespace.block_size();
    let mut buffer = controller.alloc(len)?;
    for slba in first..first + BLOCKS {
        buffer.write_at(0, &pattern(slba, len));
        let (result, written) = handle.write(&namespace, slba, buffer).await;
        result?;
        buffer = written;
    }
    for slba in first..first + BLOCKS {
        let (result, read) = handle.read(&namespace, slba, buffer).await;
        result?;
        if read.to_vec() != pattern(slba, len) {
            return Err(format!("block {slba} is not as it was written").into());
        }
        buffer = read;
    }
    Ok(())
}

/// Returns the data of a block, which differs from that of other blocks, and of other processes.
fn pattern(slba: u64, len: usize) -> Vec<u8> {
    ((u64::from(std::process::id()) << 32) ^ slba).to_le_bytes().repeat(len / 8)
}
