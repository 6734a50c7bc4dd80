//! Weighted round robin with urgent priority class (Base, "Weighted Round Robin with Urgent Priority Class
//! Arbitration"): it decides whose commands are fetched next, for a host that has chosen it by CC.AMS.

use super::{
    Host,
    media::Media,
    queue::Fault,
    queues::Queues,
    service::{BATCH, Round},
    state::Core,
};
use crate::spec::QueuePriority;
use std::time::Duration;

/// The value of the feature's arbitration burst that means no limit.
const NO_LIMIT: u8 = 7;

/// Commands of urgent queues before the admin queue is looked at again: as many as the heaviest class may have.
const URGENT_CREDIT: u32 = 256;

/// For each class, the submission queue with which its next round continues.
#[derive(Debug, Default)]
pub(super) struct Arbiter {
    next: [usize; 4],
}

impl Arbiter {
    /// Runs one round: urgent queues first and alone, as long as they have commands; then the commands of
    /// each class that its weight allows, from its queues in turn, in bursts. Returns the amount of work
    /// done.
    pub fn round<M: Media>(
        &mut self,
        core: &mut Core<M>,
        queues: &mut Queues,
        host: &mut impl Host,
        now: &impl Fn() -> Duration,
    ) -> Result<usize, Fault> {
        let setting = core.features.arbitration();
        let burst = if setting.ab() == NO_LIMIT { BATCH } else { 1 << setting.ab() };
        let mut work = 0;
        if self.class(QueuePriority::URGENT, URGENT_CREDIT, burst, (core, queues, host, now), &mut work)? > 0
        {
            return Ok(work);
        }
        for (class, weight) in [
            (QueuePriority::HIGH, setting.hpw()),
            (QueuePriority::MEDIUM, setting.mpw()),
            (QueuePriority::LOW, setting.lpw()),
        ] {
            self.class(class, u32::from(weight) + 1, burst, (core, queues, host, now), &mut work)?;
        }
        Ok(work)
    }

    /// Serves queues of `class` in turn, `burst` commands of a queue at a time, until `credit` commands were
    /// fetched or there are none. Returns the number fetched, and adds the work done to `work`.
    fn class<M: Media, H: Host, N: Fn() -> Duration>(
        &mut self,
        class: QueuePriority,
        credit: u32,
        burst: u32,
        (core, queues, host, now): (&mut Core<M>, &mut Queues, &mut H, &N),
        work: &mut usize,
    ) -> Result<u32, Fault> {
        let (mut fetched, count) = (0, queues.sqs.len());
        let next = &mut self.next[usize::from(class.0 & 3)];
        loop {
            let (before, first) = (fetched, *next);
            for index in (0..count).map(|step| (first + step) % count) {
                let sq = &mut queues.sqs[index];
                if sq.priority != class {
                    continue;
                }
                let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { continue };
                let (head, limit) = (sq.head(), burst.min(credit - fetched));
                let mut round = Round {
                    io: &mut core.io,
                    host,
                    now,
                    latency: core.options.latency,
                    staged: core.staging.as_deref_mut(),
                };
                match round.serve(sq, cq, limit) {
                    Ok(done) => *work += done,
                    Err(Fault::Doorbell) => core.doorbell_fault(),
                    Err(fault) => return Err(fault),
                }
                fetched += sq.fetched_since(head);
                if fetched >= credit {
                    *next = index + 1;
                    return Ok(fetched);
                }
            }
            if fetched == before {
                return Ok(fetched);
            }
        }
    }
}
