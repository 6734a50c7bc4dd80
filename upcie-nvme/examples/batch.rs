//! The fast path: a queue kept full by reaping and submitting in one pass, polled.
//!
//!     cargo run --release --example batch -- emu

use std::time::Instant;
use upcie_nvme::{Address, Controller};

const READS: u64 = 20_000;
const DEPTH: u32 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;
    // 4 KiB, or a block where blocks are longer.
    let len = namespace.block_size().max(4096);
    let blocks_per_read = (len / namespace.block_size()) as u64;
    let reads_in_all = namespace.blocks() / blocks_per_read;

    // One entry of the rings stays empty. The tag that goes with each command, here its number, may be of any type.
    let mut queue = controller.queue_pair().depth(DEPTH).create::<u64>()?;
    let start = Instant::now();
    let (mut submitted, mut finished) = (0, 0);

    // Fill it. A buffer moves into its command, and nobody sees it until the command is done.
    let mut turn = queue.turn()?;
    while turn.room() > 0 {
        turn.read(&namespace, 0, controller.alloc(len)?, submitted)?;
        submitted += 1;
    }
    drop(turn); // The doorbell: the controller starts here.

    while finished < READS {
        let mut turn = queue.turn()?;
        // An iterator over what has finished, which takes new commands as well.
        while let Some(done) = turn.next() {
            let (_, result, buffer) = done.into_parts();
            result?;
            finished += 1;
            if submitted < READS {
                let block = submitted % reads_in_all * blocks_per_read;
                turn.read(&namespace, block, buffer, submitted)?;
                submitted += 1;
            }
        }
        // Dropped: each doorbell is written once, however many commands there were.
    }
    println!("{READS} reads of {len} bytes in {:?}", start.elapsed());
    Ok(())
}
