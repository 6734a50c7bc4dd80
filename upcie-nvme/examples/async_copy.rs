//! Copies one half of a namespace's first blocks to the other, with back-pressure: some tasks take one piece after the other, so
//! the number of tasks bounds the memory and the commands in flight, whatever the speed of either side. Blocking calls fill the
//! one half before, and compare the other with it afterwards: the data of both is overwritten.
//!
//!     cargo run --features async --example async_copy -- emu

use smol::{Async, LocalExecutor};
use std::{cell::Cell, task::Context};
use upcie_nvme::{Address, AsyncQueue, Controller, Namespace};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TASKS: usize = 8;
/// The most bytes to copy.
const BYTES: u64 = 8 << 20;
const PIECE: usize = 64 << 10;

/// The copy's state: each task takes the next piece.
struct Copy<'c> {
    queue: AsyncQueue,
    controller: &'c Controller,
    namespace: &'c Namespace,
    next: Cell<u64>,
    blocks: u64,
}

impl Copy<'_> {
    /// Copies pieces until none is left; returns their number.
    async fn run(&self) -> upcie_nvme::Result<u64> {
        let (mut buffer, mut count) = (self.controller.alloc(PIECE)?, 0);
        let blocks = (PIECE / self.namespace.block_size()) as u64;
        loop {
            let slba = self.next.get();
            if slba + blocks > self.blocks {
                return Ok(count);
            }
            self.next.set(slba + blocks);
            let (result, read) = self.queue.read(self.namespace, slba, buffer).await;
            result?;
            let (result, written) = self.queue.write(self.namespace, self.blocks + slba, read).await;
            result?;
            (buffer, count) = (written, count + 1);
        }
    }
}

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = &controller.namespace(1)?;
    namespace.check_usable()?;
    // Whole pieces in either half.
    let block_size = namespace.block_size() as u64;
    let half = BYTES.min(namespace.blocks() * block_size) / 2 / PIECE as u64 * PIECE as u64;
    let blocks = half / block_size;
    let seed = u64::from(std::process::id()) << 32;
    let source: Vec<u8> = (0..half / 8).flat_map(|word| (seed ^ word).to_le_bytes()).collect();
    namespace.write_at(0, &source)?;

    let vectors = controller.vectors()?;
    let builder = controller.queue_pair();
    let builder = if vectors > 0 { builder.interrupt((vectors - 1).min(1)) } else { builder };
    let queue = builder.create_async()?;
    let copy = Copy { queue, controller: &controller, namespace, next: Cell::new(0), blocks };
    let executor = LocalExecutor::new();
    let driver = if vectors > 0 {
        executor.spawn(copy.queue.drive(|fd| {
            let fd = Async::new_nonblocking(fd)?;
            Ok(move |cx: &mut Context<'_>| fd.poll_readable(cx))
        })?)
    } else {
        executor.spawn(copy.queue.drive_polled())
    };

    let count = smol::block_on(executor.run(async {
        let tasks: Vec<_> = (0..TASKS).map(|_| executor.spawn(copy.run())).collect();
        let mut count = 0;
        for task in tasks {
            count += task.await?;
        }
        copy.queue.flush(namespace).await.0?;
        Ok::<u64, upcie_nvme::Error>(count)
    }))?;
    // The driver ends when the queue is closed.
    copy.queue.close()?;
    smol::block_on(executor.run(driver))?;
    let mut copied = vec![0; source.len()];
    namespace.read_at(half, &mut copied)?;
    if copied != source {
        return Err("the copy differs from the source".into());
    }
    println!("{count} pieces of {PIECE} bytes copied by {TASKS} tasks and compared");
    Ok(())
}
