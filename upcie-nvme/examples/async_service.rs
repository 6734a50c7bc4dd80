//! A block service in one thread: each client is a task that writes blocks of its own and reads them back, with a time limit for
//! each read, and one task drives the queue that all of them share. The namespace's first blocks are overwritten.
//!
//!     cargo run --features async --example async_service -- emu
//!
//! A read whose time is up is cancelled by dropping its future. Its buffer stays with the queue until the controller is done
//! with it, so the client goes on with another one. An embedded controller (`emu`) loses one of the reads, to show that.

use std::{task::Context, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    task::{JoinSet, LocalSet},
    time::timeout,
};
use upcie_nvme::{
    Address, AsyncQueue, Controller, Namespace,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::NvmOpcode,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEPTH: u32 = 32;
const CLIENTS: u64 = 64;
/// The blocks of a client.
const BLOCKS: u64 = 20;
/// The time that a client gives a read.
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = match &address {
        Address::Emulated(options) => {
            let lost = FaultRule::new(Fault::Drop).opcode(NvmOpcode::READ.0).after(100).count(1);
            let device = spawn_with_faults(options, &FaultPlan::new(0).rule(lost))?;
            Controller::builder().from_device(device)?
        }
        _ => Controller::open(&address)?,
    };
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    if namespace.blocks() < CLIENTS * BLOCKS {
        return Err(format!("{address}: {} blocks are too few", namespace.blocks()).into());
    }
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

    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn_local(serve_client(client, queue.clone(), controller.clone(), namespace.clone()));
    }
    let mut late = 0;
    while let Some(client) = clients.join_next().await {
        late += client??;
    }
    // The controller gives up what it still has, such as a read that it has lost. Then the driver ends.
    queue.close()?;
    driver.await??;
    println!("{CLIENTS} clients: {} blocks read back as written, {late} too late", CLIENTS * BLOCKS - late);
    Ok(())
}

/// Serves one client: writes its blocks, then reads them one after the other. Returns the number of reads that were too late.
async fn serve_client(
    client: u64,
    queue: AsyncQueue,
    controller: Controller,
    namespace: Namespace,
) -> Result<u64> {
    let (first, len) = (client * BLOCKS, namespace.block_size());
    let (mut buffer, mut late) = (controller.alloc(len)?, 0);
    for slba in first..first + BLOCKS {
        buffer.write_at(0, &pattern(slba, len));
        let (result, back) = queue.write(&namespace, slba, buffer).await;
        result?;
        buffer = back;
    }
    for slba in first..first + BLOCKS {
        match timeout(PATIENCE, queue.read(&namespace, slba, buffer)).await {
            Ok((result, back)) => {
                result?;
                if back.to_vec() != pattern(slba, len) {
                    return Err(format!("block {slba} is not as it was written").into());
                }
                buffer = back;
            }
            Err(_) => {
                late += 1;
                // The old buffer is freed once the controller is done with it.
                buffer = controller.alloc(len)?;
            }
        }
    }
    Ok(late)
}

/// Returns the data of a block, which differs from that of other blocks, and of other processes.
fn pattern(slba: u64, len: usize) -> Vec<u8> {
    ((u64::from(std::process::id()) << 32) ^ slba).to_le_bytes().repeat(len / 8)
}
