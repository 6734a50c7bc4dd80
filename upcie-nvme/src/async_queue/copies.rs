//! Copies as futures.

use super::{
    command::Command,
    handle::{AsyncHandle, RemoteSubmission},
    queue::AsyncQueue,
    submission::Submission,
};
use crate::{
    engine::{CopySources, Extent},
    protection::Protect,
    spec::CopyRange,
};
use upcie_core::dma::DmaBuf;

impl AsyncQueue {
    /// Copies the blocks in the first `count` [`CopyRange`]s of `ranges` to the blocks from `slba` on, within the controller
    /// ([`Turn::copy`](crate::Turn::copy)).
    ///
    /// ```
    /// # use upcie_nvme::Controller;
    /// use upcie_nvme::spec::CopyRange;
    ///
    /// let controller = Controller::open("emu:size=1M")?;
    /// let namespace = controller.namespace(1)?;
    /// let queue = controller.queue_pair().create_async()?;
    /// # smol::block_on(async {
    /// let mut ranges = controller.alloc(size_of::<CopyRange>())?;
    /// ranges.write_at(0, &CopyRange::new(0, 16).to_bytes());
    /// queue.copy(&namespace, ranges, 1, 512).await.0?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy(
        &self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
    ) -> Submission {
        self.command(copy(namespace, count, slba, None), ranges)
    }

    /// Copies blocks like [`copy`](Self::copy), to the reclaim unit of a placement identifier
    /// ([`Turn::copy_placed`](crate::Turn::copy_placed)).
    pub fn copy_placed(
        &self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
        placement: u16,
    ) -> Submission {
        self.command(copy(namespace, count, slba, Some(placement)), ranges)
    }

    /// Copies blocks with checks of their protection information ([`Turn::copy_protected`](crate::Turn::copy_protected)): the
    /// bytes of `ranges` are replaced by the `sources`, at least 40 for each.
    pub fn copy_protected(
        &self,
        namespace: &impl AsRef<Extent>,
        sources: &[(CopyRange, Protect)],
        mut ranges: DmaBuf,
        slba: u64,
        target: Protect,
    ) -> Submission {
        self.command(copy_protected(namespace, sources, &mut ranges, slba, target), ranges)
    }
}

impl AsyncHandle {
    /// Copies blocks like [`AsyncQueue::copy`].
    pub fn copy(
        &self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
    ) -> RemoteSubmission {
        self.command(copy(namespace, count, slba, None), ranges)
    }

    /// Copies blocks to a reclaim unit like [`AsyncQueue::copy_placed`].
    pub fn copy_placed(
        &self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
        placement: u16,
    ) -> RemoteSubmission {
        self.command(copy(namespace, count, slba, Some(placement)), ranges)
    }

    /// Copies blocks with checks like [`AsyncQueue::copy_protected`].
    pub fn copy_protected(
        &self,
        namespace: &impl AsRef<Extent>,
        sources: &[(CopyRange, Protect)],
        mut ranges: DmaBuf,
        slba: u64,
        target: Protect,
    ) -> RemoteSubmission {
        self.command(copy_protected(namespace, sources, &mut ranges, slba, target), ranges)
    }
}

fn copy(namespace: &impl AsRef<Extent>, count: usize, slba: u64, placement: Option<u16>) -> Command {
    Command::Copy { extent: *namespace.as_ref(), count, slba, placement }
}

/// Writes the sources to `ranges` now; if they can't be, the command is refused in its turn.
fn copy_protected(
    namespace: &impl AsRef<Extent>,
    sources: &[(CopyRange, Protect)],
    ranges: &mut DmaBuf,
    slba: u64,
    target: Protect,
) -> Command {
    let extent = *namespace.as_ref();
    let sources = CopySources::write(&extent, sources, ranges, &target);
    Command::CopyProtected { extent, sources, slba, target }
}
