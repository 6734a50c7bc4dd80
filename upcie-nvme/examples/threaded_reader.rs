//! Reads a whole namespace with several threads, each with a queue pair of its own and many reads in flight, and prints the
//! throughput and a checksum.
//!
//!     cargo run --release --example threaded_reader -- emu 4
//!
//! Each thread reads the next piece of the namespace that no other thread has taken.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use upcie_nvme::{Address, Controller, Namespace, Wait};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of one read, if the controller takes so many in one command.
const PIECE: usize = 128 << 10;
const DEPTH: u32 = 16;
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: Address = arguments.next().as_deref().unwrap_or("emu").parse()?;
    let wanted: u16 = arguments.next().as_deref().unwrap_or("4").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    // A controller grants as many queue pairs as it has, which may be fewer.
    let threads = wanted.clamp(1, controller.max_queue_pairs());

    let (next, start) = (AtomicU64::new(0), Instant::now());
    let sums = thread::scope(|scope| {
        let readers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| read_pieces(&controller, &namespace, &next))).collect();
        readers.into_iter().map(|reader| reader.join().expect("no panic")).collect::<Result<Vec<u64>>>()
    })?;
    let (time, bytes) = (start.elapsed(), namespace.blocks() * namespace.block_size() as u64);
    let sum = sums.into_iter().fold(0, u64::wrapping_add);
    let rate = bytes as f64 / time.as_secs_f64() / 1e6;
    println!("{bytes} bytes by {threads} threads, {rate:.0} MB/s, checksum {sum:016x}");
    Ok(())
}

/// Takes pieces until none is left, and adds up all their words.
fn read_pieces(controller: &Controller, namespace: &Namespace, next: &AtomicU64) -> Result<u64> {
    let block = namespace.block_size();
    let per_piece = (PIECE.min(namespace.max_transfer()) / block).max(1) as u64;
    // The number of blocks of the next piece, and its first block.
    let take = || {
        let first = next.fetch_add(per_piece, Ordering::Relaxed);
        (first < namespace.blocks()).then(|| (first, per_piece.min(namespace.blocks() - first) as usize))
    };
    let mut queue = controller.queue_pair().depth(DEPTH).create::<()>()?;
    let (mut sum, mut left) = (0_u64, true);
    loop {
        let mut turn = queue.turn()?;
        // Buffers of finished reads go into the next ones.
        while let Some(done) = turn.next() {
            let ((), result, mut buffer) = done.into_parts();
            result?;
            let words = buffer
                .as_slice()
                .expect("memory of this process alone")
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
            sum = words.fold(sum, u64::wrapping_add);
            match take() {
                Some((first, blocks)) => {
                    if buffer.len() != blocks * block {
                        buffer = controller.alloc(blocks * block)?;
                    }
                    turn.read(namespace, first, buffer, ())?;
                }
                None => left = false,
            }
        }
        while left && !turn.is_full() {
            match take() {
                Some((first, blocks)) => {
                    turn.read(namespace, first, controller.alloc(blocks * block)?, ())?
                }
                None => left = false,
            }
        }
        let is_done = turn.is_empty() && !left;
        drop(turn); // rings the doorbell
        if is_done {
            return Ok(sum);
        }
        if !queue.wait(Wait::Poll, LIMIT)? {
            return Err(format!("no completion within {LIMIT:?}: {}", queue.diagnose()).into());
        }
    }
}
