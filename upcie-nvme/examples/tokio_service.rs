//! A block service for async code: one task owns the queue pair and sleeps until the controller's interrupt; any number of
//! tasks send it requests and await their answers. Here they write blocks, read them back and compare: the namespace's first
//! blocks are overwritten.
//!
//!     cargo run --example tokio_service -- emu
//!
//! The task never holds a `Turn` across an await: the doorbell is written when the turn is dropped, so its commands would wait
//! as long as the task sleeps. A turn is not `Send`, so the compiler refuses that in a task that moves between threads.

use std::time::Duration;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use upcie_nvme::{Address, Controller, Direction, DmaBuf, Io, Namespace, QueuePair, spec::Status};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DEPTH: u32 = 32;
const CLIENTS: u64 = 8;
/// The blocks of a client.
const BLOCKS: u64 = 50;
/// A controller that reports no completion for so long has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// A transfer of the blocks from `slba` on; `buffer` comes back with the answer.
struct Request {
    direction: Direction,
    slba: u64,
    buffer: DmaBuf,
    answer: oneshot::Sender<Answer>,
}

type Answer = (std::result::Result<(), Status>, DmaBuf);

#[tokio::main]
async fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    if namespace.blocks() < CLIENTS * BLOCKS {
        return Err(format!("{address}: {} blocks are too few", namespace.blocks()).into());
    }
    // With MSI-X a vector of its own; with INTx there is vector 0 alone.
    let vector = controller.vectors()?.saturating_sub(1).min(1);
    let queue = controller.queue_pair().depth(DEPTH).interrupt(vector).create()?;

    let (requests, received) = mpsc::channel(64);
    let service = tokio::spawn(serve(queue, namespace.clone(), received));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(write_and_read(client, controller.clone(), namespace.clone(), requests.clone()));
    }
    drop(requests);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    // The last client's sender is gone: the service ends.
    let served = service.await??;
    println!("{served} requests of {CLIENTS} clients, all blocks read back as written");
    Ok(())
}

/// Serves one client: it writes each of its blocks, and then reads them.
async fn write_and_read(
    client: u64,
    controller: Controller,
    namespace: Namespace,
    requests: mpsc::Sender<Request>,
) -> Result<()> {
    let (first, len) = (client * BLOCKS, namespace.block_size());
    let mut buffer = controller.alloc(len)?;
    for direction in [Direction::Write, Direction::Read] {
        for slba in first..first + BLOCKS {
            if direction == Direction::Write {
                buffer.write_at(0, &pattern(slba, len));
            }
            let (answer, answered) = oneshot::channel();
            let request = Request { direction, slba, buffer, answer };
            requests.send(request).await.map_err(|_| "the service has ended")?;
            let (status, data) = answered.await?;
            status?;
            if data.to_vec() != pattern(slba, len) {
                return Err(format!("block {slba} is not as it was written").into());
            }
            buffer = data;
        }
    }
    Ok(())
}

/// Returns the data of a block, which differs from that of other blocks, and of other processes.
fn pattern(slba: u64, len: usize) -> Vec<u8> {
    ((u64::from(std::process::id()) << 32) ^ slba).to_le_bytes().repeat(len / 8)
}

/// Owns the queue pair until all clients are gone; returns how many requests it has answered.
async fn serve(
    mut queue: QueuePair<oneshot::Sender<Answer>>,
    namespace: Namespace,
    mut requests: mpsc::Receiver<Request>,
) -> Result<u64> {
    // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and nothing takes it out of the `AsyncFd`.
    let interrupts =
        unsafe { AsyncFd::register_with_interest(queue.clone_completion_fd()?, Interest::READABLE) }?;
    let (mut served, mut open) = (0, true);
    let mut waiting: Option<Request> = None;
    loop {
        // Interrupts from before this line are forgotten, so the look at the queue comes after it.
        queue.arm()?;
        let next = || waiting.take().or_else(|| requests.try_recv().ok());
        served += reap_and_submit(&mut queue, &namespace, next)?;
        let (in_flight, is_full) = (queue.capacity() - queue.room(), queue.room() == 0);
        if in_flight == 0 && !open {
            return Ok(served);
        }
        tokio::select! {
            ready = interrupts.readable(), if in_flight > 0 => ready?.clear_ready(),
            request = requests.recv(), if open && !is_full => match request {
                Some(request) => waiting = Some(request),
                None => open = false,
            },
            () = tokio::time::sleep(LIMIT) => if in_flight > 0 {
                return Err(format!("no completion within {LIMIT:?}: {}", queue.diagnose()).into());
            },
        }
    }
}

/// Answers the requests whose transfers have completed, and submits the next ones; returns how many were answered.
fn reap_and_submit(
    queue: &mut QueuePair<oneshot::Sender<Answer>>,
    namespace: &Namespace,
    mut next: impl FnMut() -> Option<Request>,
) -> Result<u64> {
    let mut answered = 0;
    let mut turn = queue.turn()?;
    for done in turn.by_ref() {
        let (answer, status, buffer) = done.into_parts();
        // A client that has gone away needs no answer.
        let _ = answer.send((status, buffer));
        answered += 1;
    }
    while !turn.is_full() {
        let Some(Request { direction, slba, buffer, answer }) = next() else { break };
        if let Err(refused) = turn.submit(Io::new(direction, namespace, slba), buffer, answer) {
            return Err(format!("the {direction:?} at block {slba} was not sent: {}", refused.reason).into());
        }
    }
    Ok(answered)
}
