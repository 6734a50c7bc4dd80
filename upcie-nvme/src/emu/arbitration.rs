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

/// The place at which rounds continue.
#[derive(Debug, Default)]
pub(super) struct Arbiter {
    /// The submission queue of each class with which the class continues.
    next: [usize; 4],
    /// The class with which the next round begins, counted from the highest weighted one, and the commands that its weight allows
    /// it still, if the last round ended in it.
    begun: (usize, Option<u32>),
}

impl Arbiter {
    /// Runs one round: urgent queues first and alone, as long as they have commands; then the commands of each class that its
    /// weight allows, from its queues in turn, in bursts. A round that has processed the bytes that are `left` for the step ends,
    /// and the next one goes on where it was. Returns the amount of work done.
    pub fn round<M: Media>(
        &mut self,
        core: &mut Core<M>,
        queues: &mut Queues,
        host: &mut impl Host,
        now: &impl Fn() -> Duration,
        mut left: u64,
    ) -> Result<usize, Fault> {
        let setting = core.features.arbitration();
        let burst = if setting.ab() == NO_LIMIT { BATCH } else { 1 << setting.ab() };
        let mut work = 0;
        let (urgent, credit) = (QueuePriority::URGENT, URGENT_CREDIT);
        let fetched = self.class(urgent, credit, burst, (core, queues, host, now), (&mut work, &mut left))?;
        if fetched > 0 || left == 0 {
            return Ok(work);
        }
        let weights = [
            (QueuePriority::HIGH, setting.hpw()),
            (QueuePriority::MEDIUM, setting.mpw()),
            (QueuePriority::LOW, setting.lpw()),
        ];
        let (first, mut begun) = std::mem::take(&mut self.begun);
        for (at, (class, weight)) in weights.into_iter().enumerate().skip(first) {
            let credit = begun.take().unwrap_or(u32::from(weight) + 1);
            let fetched =
                self.class(class, credit, burst, (core, queues, host, now), (&mut work, &mut left))?;
            if left == 0 {
                self.begun = match credit.saturating_sub(fetched) {
                    0 => ((at + 1) % weights.len(), None),
                    rest => (at, Some(rest)),
                };
                break;
            }
        }
        Ok(work)
    }

    /// Serves queues of `class` in turn, `burst` commands of a queue at a time, until `credit` commands were fetched, there are
    /// none, or no bytes are `left` for the step. Returns the number fetched, and adds the work done to `work`.
    fn class<M: Media, H: Host, N: Fn() -> Duration>(
        &mut self,
        class: QueuePriority,
        credit: u32,
        burst: u32,
        (core, queues, host, now): (&mut Core<M>, &mut Queues, &mut H, &N),
        (work, left): (&mut usize, &mut u64),
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
                    left,
                };
                match round.serve(sq, cq, limit) {
                    Ok(done) => *work += done,
                    Err(Fault::Doorbell) => core.doorbell_fault(),
                    Err(fault) => return Err(fault),
                }
                fetched += sq.fetched_since(head);
                if fetched >= credit || *left == 0 {
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
