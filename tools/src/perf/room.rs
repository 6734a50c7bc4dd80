//! Whether the machine has the memory that a run needs. Without this, the kernel would find out when it is too late, and
//! end programs for it: not this one first.

use super::{
    plan::{Plan, RANGES},
    sizes::Share,
};
use crate::units;
use anyhow::ensure;
use std::fs;

/// An error if it has not. It is not looked at what a container has.
pub fn check(plan: &Plan) -> anyhow::Result<()> {
    let Some(left) = fs::read_to_string("/proc/meminfo").ok().and_then(|text| left(&text)) else {
        return Ok(());
    };
    let needed = needed(plan);
    ensure!(
        needed <= left,
        "{} of memory are needed for {} queue pair(s) at depth {} with their buffers{}, and this machine has {} left: \
         use a smaller --depth, --block-size, --queues{}",
        units::bytes(needed),
        plan.lanes(),
        plan.depth,
        if plan.verify { " and the record of --verify" } else { "" },
        units::bytes(left),
        if plan.verify { " or --size" } else { " or --threads" }
    );
    Ok(())
}

fn needed(plan: &Plan) -> u64 {
    let shares = plan.mixture.sizes.shares().iter();
    // A heap gives powers of two.
    let bytes =
        |share: &Share| if plan.mixture.rw.trims() { RANGES } else { share.bytes.next_power_of_two() };
    let buffers =
        shares.map(bytes).sum::<u64>().saturating_mul(plan.depth.into()).saturating_mul(plan.lanes());
    let records = if plan.verify { plan.places().saturating_mul(4) } else { 0 };
    buffers.saturating_add(records)
}

/// What /proc/meminfo says is there to be had, in bytes; free huge pages are not part of what is available.
fn left(meminfo: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok()
    };
    let huge = value("HugePages_Free").unwrap_or(0) * value("Hugepagesize").unwrap_or(0);
    Some((value("MemAvailable")? + huge) << 10)
}

#[cfg(test)]
mod tests {
    use super::left;

    #[test]
    fn free_huge_pages_are_memory_too() {
        let text = "MemTotal:       24576 kB\nMemAvailable:    1000 kB\nHugePages_Total:       9\nHugePages_Free:        3\n\
                    Hugepagesize:       2048 kB\n";
        assert_eq!(left(text), Some((1000 + 3 * 2048) << 10));
        assert_eq!(left("MemAvailable:    1000 kB\n"), Some(1_024_000));
        assert_eq!(left("MemTotal:    1000 kB\n"), None);
    }
}
