//! Resets a controller with commands in flight on four queues, recovers the queues, and prints how long that took, up to
//! the first new completion.
//!
//!     cargo run --release --example recover [ADDRESS]
//!
//! Without an address, an embedded controller is used that drops every read.

use std::{
    env, error,
    time::{Duration, Instant},
};
use upcie_nvme::{
    Controller, QueuePair, Wait,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::NvmOpcode,
};

const QUEUES: u16 = 4;
const DEPTH: u32 = 1025;

fn main() -> Result<(), Box<dyn error::Error>> {
    let controller = match env::args().nth(1) {
        Some(address) => Controller::open(address.as_str())?,
        None => {
            let plan = FaultPlan::new(0).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::READ.0));
            Controller::builder().from_device(spawn_with_faults(&"size=16M".parse()?, &plan)?)?
        }
    };
    let namespace = controller.namespace(1)?;
    let depth = DEPTH.min(controller.max_depth());
    let mut queues: Vec<QueuePair<u64>> = (0..QUEUES.min(controller.max_queue_pairs()))
        .map(|_| controller.queue_pair().depth(depth).create())
        .collect::<Result<_, _>>()?;
    let mut sent = 0;
    for queue in &mut queues {
        let mut turn = queue.turn()?;
        while !turn.is_full() {
            turn.read(
                &namespace,
                sent % namespace.blocks(),
                controller.alloc(namespace.block_size())?,
                sent,
            )?;
            sent += 1;
        }
    }

    let start = Instant::now();
    controller.reset()?;
    let reset = start.elapsed();
    let mut back = 0;
    for queue in &mut queues {
        back += queue.recover()?.len() as u64;
    }
    assert_eq!(back, sent, "each command comes back once");
    let recovered = start.elapsed();
    let queue = queues.first_mut().ok_or("the controller has no queues")?;
    queue.turn()?.flush(&namespace, 0)?;
    if !queue.wait(Wait::Poll, Duration::from_secs(30))? {
        return Err(queue.diagnose().into());
    }
    println!(
        "{sent} commands in flight: the reset took {reset:.1?}, all were back after {recovered:.1?}, the first new completion \
         came after {:.1?}",
        start.elapsed()
    );
    Ok(())
}
