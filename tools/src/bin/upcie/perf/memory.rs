//! Checks that the machine has the memory for a run. Without the check the kernel would notice during the
//! run, and might kill other programs before this one.

use super::{
    plan::{Plan, RANGES},
    workload::Share,
};
use crate::units;
use anyhow::ensure;
use upcie_core::{hugetlb::pool, memory::PageSize, room};

/// Fails if memory is missing. Ignores the memory limit of a container.
pub fn check(plan: &Plan) -> anyhow::Result<()> {
    let Some(free) = room::machine() else { return Ok(()) };
    // Free huge pages are not part of it.
    let huge =
        pool(PageSize::Huge2M, None).map_or(0, |pool| pool.available().saturating_mul(pool.page_bytes));
    let left = free.bytes.saturating_add(huge);
    let needed = needed(plan);
    ensure!(
        needed <= left,
        "{} of memory are needed for {} at depth {} with their buffers{}, and this machine has {} left: \
         use a smaller --depth, --block-size, --queues{}",
        units::bytes(needed),
        units::number(plan.lanes(), "queue pair"),
        plan.depth,
        if plan.verify { " and the record of --verify" } else { "" },
        units::bytes(left),
        if plan.verify { " or --length" } else { " or --threads" }
    );
    Ok(())
}

fn needed(plan: &Plan) -> u64 {
    let shares = plan.mixture.sizes.shares().iter();
    // A heap allocates powers of two.
    let bytes =
        |share: &Share| if plan.mixture.rw.trims() { RANGES } else { share.bytes.next_power_of_two() };
    let buffers =
        shares.map(bytes).sum::<u64>().saturating_mul(plan.depth.into()).saturating_mul(plan.lanes());
    let records = if plan.verify { plan.places().saturating_mul(4) } else { 0 };
    buffers.saturating_add(records)
}
