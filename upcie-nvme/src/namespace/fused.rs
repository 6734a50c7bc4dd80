//! Blocking Compare and Write.

use super::{
    Namespace,
    blocking::{Order, refused, run},
    retries::Tries,
};
use crate::{Refusal, Result, engine::Refused, spec::Status};
use upcie_core::dma::DmaBuf;

impl Namespace {
    /// Returns the most bytes that [`compare_and_write`](Self::compare_and_write) takes, a whole number of blocks: what the
    /// controller compares and writes as one (NACWU or ACWU), and transfers at once. 0 if it lacks the operation.
    pub fn max_compare_and_write(&self) -> usize {
        self.extent.fused.min(self.extent.max_blocks) as usize * self.extent.block_size()
    }

    /// Writes all of `new` to the blocks from `slba` on if they have the data of `expected`, which is as long, and waits for it;
    /// no other command of any host comes in between. Returns `false` if the blocks differ: nothing was written.
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// let (mut free, mut taken) = (controller.alloc(512)?, controller.alloc(512)?);
    /// free.fill(0);
    /// taken.fill(7);
    /// assert!(namespace.compare_and_write(0, &mut free, &mut taken)?);
    /// assert!(!namespace.compare_and_write(0, &mut free, &mut taken)?, "it is taken now");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`write`](Self::write), and those of [`Turn::compare_and_write`](crate::Turn::compare_and_write), when nothing
    /// is sent. It is sent once: after a timeout the data may have been written, and both buffers may be left empty.
    pub fn compare_and_write(&self, slba: u64, expected: &mut DmaBuf, new: &mut DmaBuf) -> Result<bool> {
        self.check_usable()?;
        let (controller, len) = (&self.controller, expected.total_len());
        let what =
            || format!("Compare and Write of {len} bytes at block {slba} of namespace {}", self.nsid());
        if len == 0 || new.total_len() != len {
            return Err(refused(controller, &what, Refusal::Length));
        }
        let segments = expected.segments().count();
        let mut whole = std::mem::take(expected);
        whole.chain(std::mem::take(new));
        let (how, mut limit) = ((Tries::NONE, Order::Any), controller.limit());
        let result = run(controller, &mut whole, &what, &mut limit, how, |turn, held, _| {
            // SAFETY: `held` is the data of both commands. It outlives them: `run` gives it back or frees it only when nothing is
            // in flight, or once the queue has been deleted, and leaks it otherwise.
            let sent = unsafe { turn.compare_and_write_held(&self.extent, slba, held, len, [0, 1]) };
            sent.map(|()| false).map_err(|reason| Refused { reason, buffer: DmaBuf::empty(), tag: 0 })
        });
        let mut parts = whole.into_segments().into_iter();
        let mut join = |count| {
            parts.by_ref().take(count).reduce(|mut all: DmaBuf, next| {
                all.chain(next);
                all
            })
        };
        *expected = join(segments).unwrap_or_default();
        *new = join(usize::MAX).unwrap_or_default();
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(Status::COMPARE_FAILURE) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
