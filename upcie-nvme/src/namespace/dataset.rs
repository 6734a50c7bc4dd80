//! Blocking Dataset Management: any number of ranges, in as many commands as the controller's limits ask for.

use super::{
    Namespace,
    blocking::{Order, What, refused, run},
    retries::Tries,
};
use crate::{
    Refusal, Result,
    controller::Inner,
    engine::Extent,
    spec::{DatasetDword11, DatasetRange, NvmOpcode},
};
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

/// The bytes of a range.
const SIZE: usize = size_of::<DatasetRange>();
/// The most ranges that a call makes of longer ones: a controller may state any limit.
const MOST: u64 = 1 << 16;

impl Namespace {
    /// Tells the controller that the contents of the blocks in `ranges` are no longer needed (Dataset
    /// Management, attribute Deallocate), and waits for it. [`identify`](Self::identify) states the contents
    /// of such blocks (`dlfeat`). There may be any number of ranges; each 256 make a command, or as many as the controller takes
    /// (DMRL, DMRSL, DMSL), which longer ranges are split for.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// use upcie_nvme::spec::DatasetRange;
    /// namespace.deallocate(&[DatasetRange::new(0, 8), DatasetRange::new(64, 8)])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`Refusal::NoCommand`] if the controller does not have Dataset
    /// Management; [`Refusal::DatasetLimits`] if its limits would make very many ranges of these; and its status for a range that
    /// exceeds the namespace.
    pub fn deallocate(&self, ranges: &[DatasetRange]) -> Result<()> {
        self.manage_dataset(DatasetDword11::new().with_ad(true), ranges)
    }

    /// Tells the controller how the blocks in `ranges` are used (Dataset Management): that their contents are no longer needed, as
    /// [`deallocate`](Self::deallocate) does, or that they are read or written together; and waits for it. Each range may have
    /// [hints](DatasetRange::attributes) of its own. A controller may ignore all but the deallocation.
    ///
    /// # Errors
    /// Those of [`deallocate`](Self::deallocate).
    pub fn manage_dataset(&self, attributes: DatasetDword11, ranges: &[DatasetRange]) -> Result<()> {
        self.check_usable()?;
        let what = || {
            let (opcode, count) = (NvmOpcode::DATASET_MANAGEMENT, ranges.len());
            format!("{opcode} of {count} ranges of namespace {}", self.nsid())
        };
        let reason = match ranges.len() {
            _ if !self.extent.deallocates => Some(Refusal::NoCommand),
            0 => Some(Refusal::Length),
            _ => None,
        };
        match reason {
            None => manage(&self.controller, &self.extent, attributes, ranges, &what),
            Some(reason) => Err(refused(&self.controller, &what, reason)),
        }
    }
}

/// Sends `ranges` (at least one) with `attributes`.
fn manage(
    controller: &Inner,
    extent: &Extent,
    attributes: DatasetDword11,
    ranges: &[DatasetRange],
    what: What<'_>,
) -> Result<()> {
    let limits = controller.live().limits().dataset;
    let ranges = &shorter(ranges, limits.blocks.min(limits.range.into()) as u32)[..];
    let (mut sent, mut limit) = (0, controller.limit());
    limit.allow_seconds((ranges.len() / limits.ranges.max(1)) as u64);
    // Some controllers read the ranges' whole page, however few there are.
    let mut buffer: DmaBuf = controller.pages_with(ranges.as_bytes(), &mut limit)?;
    let how = (Tries::NONE, Order::Parts("range"));
    run(controller, &mut buffer, what, &mut limit, how, |turn, held, _| {
        let (start, mut blocks) = (sent * SIZE, 0_u64);
        let fits = ranges[sent..].iter().take(limits.ranges).take_while(|range| {
            blocks += u64::from(range.nlb);
            blocks <= limits.blocks
        });
        // One that is too long by itself is refused by the turn.
        let count = fits.count().max(1);
        // SAFETY: the ranges are inside of `held`. It outlives the command: `run` gives it back or frees it only when nothing is
        // in flight, or once the queue has been deleted, and leaks it otherwise.
        unsafe {
            turn.manage_dataset_held(extent, attributes, held, start..start + count * SIZE, sent as u64)
        }?;
        sent += count;
        Ok(sent < ranges.len())
    })
    .map(drop)
}

/// Returns the ranges, each in as many as have `most` blocks; as they are if that would be very many.
fn shorter(ranges: &[DatasetRange], most: u32) -> Vec<DatasetRange> {
    let most = most.max(1);
    let parts = |range: &DatasetRange| range.nlb.div_ceil(most).max(1);
    if ranges.iter().map(|range| u64::from(parts(range))).sum::<u64>() > MOST.max(ranges.len() as u64) {
        return ranges.to_vec();
    }
    let part = |range: &DatasetRange, index: u32| {
        let done = index * most;
        DatasetRange {
            nlb: most.min(range.nlb - done),
            slba: range.slba.saturating_add(done.into()),
            ..*range
        }
    };
    ranges.iter().flat_map(|range| (0..parts(range)).map(move |index| part(range, index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ranges_become_shorter_ones() {
        let ranges = [DatasetRange::new(8, 20), DatasetRange::new(100, 0), DatasetRange::new(200, 8)];
        assert_eq!(shorter(&ranges, u32::MAX), ranges);
        let wanted = [(8, 8), (16, 8), (24, 4), (100, 0), (200, 8)];
        assert_eq!(shorter(&ranges, 8), wanted.map(|(slba, nlb)| DatasetRange::new(slba, nlb)));
        let whole = [DatasetRange::new(u64::MAX - 7, u32::MAX)];
        assert_eq!(shorter(&whole, 1), whole, "too many");
        assert_eq!(shorter(&whole, u32::MAX), whole);
    }
}
