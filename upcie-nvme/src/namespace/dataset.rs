//! Blocking Dataset Management: any number of ranges, in as many commands as the controller's limits ask for.

use super::{
    blocking::{Order, What, run},
    retries::Tries,
};
use crate::{Result, controller::Inner, engine::Extent, spec::DatasetRange};
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

/// The bytes of a range.
const SIZE: usize = size_of::<DatasetRange>();
/// The most ranges that a call makes of longer ones: a controller may state any limit.
const MOST: u64 = 1 << 16;

/// Deallocates `ranges` (at least one).
pub(super) fn deallocate(
    controller: &Inner,
    extent: &Extent,
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
        unsafe { turn.deallocate_held(extent, held, start..start + count * SIZE, sent as u64) }?;
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
