//! The kernel's huge pages (hugetlb): their pools, their mounts, and named files of them.
//!
//! Memory that a device accesses without an IOMMU must outlive its process, because a device does not stop when its
//! process is killed. It is therefore a *named* file, directly in the directory of a hugetlbfs mount:
//! `upcie-<bdf>-<pid>-<n>`, for instance `upcie-0000:01:00.0-4711-0`, mode 0600. The file stays until a program removes
//! it that knows that the device's bus mastering is off: the program itself, the next one that opens the device, or
//! `hugepages release`. Memory that several devices may access has a name for each, and stays until the last name is
//! removed.

mod cgroup;
mod file;
mod mount;
mod pool;
#[cfg(test)]
mod tests;

pub(crate) use cgroup::limit;
pub use file::{Leftover, NamedFile, create_file, leftovers};
pub use mount::{Mount, mount_for, mounts};
pub(crate) use pool::look;
pub use pool::{Pool, pool, pools};

/// Returns the way out where too few pages of `bytes` are free.
pub(crate) fn way_out(bytes: u64) -> String {
    format!(
        "as root: hugepages setup --size {} --count N, and `hugepages info` shows who uses the others",
        short_size(bytes)
    )
}

/// Formats a page size as `hugepages` and the mount option `pagesize=` take it: `2M`, `1G`, `64K`.
fn short_size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{}G", b >> 30),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}M", b >> 20),
        b => format!("{}K", b >> 10),
    }
}
