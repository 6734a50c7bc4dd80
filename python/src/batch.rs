//! Batches: many commands at once on one queue pair, which the controller's batches share.

use crate::{
    failure::Failure,
    open::{Open, check_signals, lock},
};
use std::time::Duration;
use upcie_nvme::{
    Direction, DmaBuf, Io, Namespace, QueuePair, Refusal, Wait, upcie_core::deadline::Stopwatch,
};

/// The interval at which Python's signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// One transfer. The data is `None` while the queue pair has it, and after that if the controller has kept it.
#[derive(Debug)]
pub struct Item {
    pub slba: u64,
    pub data: Option<DmaBuf>,
}

/// Transfers all items, writes with a placement identifier if there is one. After an error some may not have been sent; those in
/// flight have ended.
pub fn transfer(
    open: &Open,
    namespace: &Namespace,
    (direction, placement): (Direction, Option<u16>),
    items: &mut [Item],
) -> Result<(), Failure> {
    let idle = lock(&open.queue).take();
    let mut queue = match idle {
        Some(queue) => queue,
        None => open.controller.queue_pair().create()?,
    };
    // A reset since the last batch.
    for returned in queue.recover()? {
        drop(returned);
    }
    let lens: Vec<_> = items.iter().map(|item| item.data.as_ref().map_or(0, DmaBuf::len)).collect();
    let describe = |index: usize, slba: u64| {
        let (opcode, len, nsid) = (direction.opcode(), lens[index], namespace.nsid());
        format!("{opcode} of {len} bytes at block {slba} of namespace {nsid}")
    };
    let io = |slba| {
        let io = Io::new(direction, namespace, slba);
        placement.map_or(io, |identifier| io.placement(identifier))
    };
    match run(open, &mut queue, &io, items, &describe) {
        Ok(done) => {
            *lock(&open.queue) = Some(queue);
            done
        }
        Err(failure) => {
            if let Ok(returned) = queue.close() {
                for command in returned {
                    let (index, _, data) = command.into_parts();
                    items[index].data = Some(data);
                }
            }
            Err(failure)
        }
    }
}

/// Returns the failure of a command once nothing is in flight, or the failure of the queue.
fn run<'n>(
    open: &Open,
    queue: &mut QueuePair<usize>,
    io: &dyn Fn(u64) -> Io<'n>,
    items: &mut [Item],
    describe: &dyn Fn(usize, u64) -> String,
) -> Result<Result<(), Failure>, Failure> {
    let device = || open.controller.name().to_owned();
    let (mut next, mut in_flight, mut result) = (0, 0_usize, Ok(()));
    // Since the last completion. The blocking calls measure likewise: a stop of the process does not count.
    let mut idle = Stopwatch::new();
    loop {
        let mut turn = queue.turn()?;
        for done in turn.by_ref() {
            let (index, status, data) = done.into_parts();
            items[index].data = Some(data);
            in_flight -= 1;
            idle = Stopwatch::new();
            if let (Err(status), true) = (status, result.is_ok()) {
                let operation = describe(index, items[index].slba);
                result = Err(Failure::Status { device: device(), operation, status });
            }
        }
        while result.is_ok() && next < items.len() && !turn.is_full() {
            let slba = items[next].slba;
            let data = items[next].data.take().unwrap_or_default();
            let Err(refused) = turn.submit(io(slba), data, next) else {
                (next, in_flight) = (next + 1, in_flight + 1);
                continue;
            };
            items[next].data = Some(refused.buffer);
            match refused.reason {
                Refusal::Closed => break,
                Refusal::Full | Refusal::ListsInUse if in_flight > 0 => break,
                reason => {
                    let operation = describe(next, slba);
                    result = Err(Failure::Refused { device: device(), operation, reason });
                }
            }
        }
        drop(turn);
        if in_flight == 0 && (result.is_err() || next == items.len()) {
            return Ok(result);
        }
        if !queue.wait(Wait::Poll, LOOK.min(open.timeout))? {
            check_signals()?;
            if idle.waited() >= open.timeout {
                let operation = "a batch of transfers".into();
                return Err(Failure::Timeout { device: device(), operation, after: open.timeout });
            }
        }
    }
}
