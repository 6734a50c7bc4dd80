//! The kernel's pools of huge pages, `/sys/kernel/mm/hugepages` (Documentation/admin-guide/mm/hugetlbpage.rst).

use super::short_size;
use crate::{Error, Result, page::PageSize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A snapshot of the huge pages of one size, of the whole machine or of one NUMA node.
///
/// ```
/// for pool in upcie_core::hugetlb::pools()? {
///     println!("{} bytes a page: {} pages are available", pool.page_bytes, pool.available());
/// }
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The node; `None` for the pool of the whole machine, which is the sum of its nodes' pools.
    pub node: Option<u32>,
    /// Pages in the pool, used or not, including those beyond its size (`surplus`).
    pub total: u64,
    /// Unused pages.
    pub free: u64,
    /// Free pages that are reserved for a mapping but not used yet; the kernel does not count them by node.
    pub reserved: Option<u64>,
    /// Pages beyond the pool's size: the system gets them back when they are freed.
    pub surplus: u64,
    path: PathBuf,
}

/// Lists all pools by page size, the machine's before its nodes'; none if the kernel has no huge pages.
///
/// # Errors
/// sysfs can't be read, or has an unexpected format.
pub fn pools() -> Result<Vec<Pool>> {
    pools_below(Path::new("/sys"))
}

/// Returns the pool of pages of this size, of the machine or of a node.
///
/// # Errors
/// [`Failure::Unusable`](crate::Failure::Unusable) when that pool does not exist: it lists the existing ones. Those of [`pools`].
pub fn pool(page: PageSize, node: Option<u32>) -> Result<Pool> {
    find(pools()?, page, node)
}

/// Reads only this pool; `None` on any error.
pub(crate) fn look(page: PageSize, node: Option<u32>) -> Option<Pool> {
    let bytes = page.bytes() as u64;
    let parent = node.map_or("kernel/mm".into(), |node| format!("devices/system/node/node{node}"));
    let path = format!("/sys/{parent}/hugepages/hugepages-{}kB", bytes >> 10);
    read_pool(path.into(), bytes, node).ok()
}

impl PageSize {
    /// Returns the free huge pages of this size, and all of them; `None` for small pages, and if the kernel has none of
    /// this size.
    pub fn available(self) -> Option<(u64, u64)> {
        let pool = look(self, None)?;
        Some((pool.available(), pool.total))
    }
}

impl Pool {
    /// Returns the page size, if DMA memory can be made of it.
    pub fn page_size(&self) -> Option<PageSize> {
        [PageSize::Huge2M, PageSize::Huge1G].into_iter().find(|page| page.bytes() as u64 == self.page_bytes)
    }

    /// Returns the number of free pages that are not reserved.
    pub fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserved.unwrap_or(0))
    }

    /// Returns the path of `nr_hugepages`, which sets the number of pages.
    pub fn file(&self) -> PathBuf {
        self.path.join("nr_hugepages")
    }

    /// Requests `count` pages in all, reads the pool again, and returns the present number.
    ///
    /// The kernel makes as many as it has memory for and reports success, so fewer are no error here either. If pages
    /// beyond `count` are in use, they are freed later.
    ///
    /// # Errors
    /// [`Failure::Os`](crate::Failure::Os) without root, or if pages of this size can't be made while the system runs.
    pub fn set(&mut self, count: u64) -> Result<u64> {
        let file = self.file();
        fs::write(&file, count.to_string()).map_err(|e| {
            let way_out = match e.kind() {
                io::ErrorKind::PermissionDenied => " (only root may)".to_owned(),
                io::ErrorKind::InvalidInput => {
                    format!(" (if they can only be made at boot: hugepagesz={} hugepages={count} on the kernel's command line)",
                        short_size(self.page_bytes))
                }
                _ => String::new(),
            };
            Error::os(file.display().to_string(), format!("requesting {count} huge pages{way_out}"), e)
        })?;
        *self = read_pool(self.path.clone(), self.page_bytes, self.node)?;
        Ok(self.total)
    }
}

pub(super) fn find(pools: Vec<Pool>, page: PageSize, node: Option<u32>) -> Result<Pool> {
    let bytes = page.bytes() as u64;
    let known: Vec<_> = pools
        .iter()
        .map(|pool| match pool.node {
            None => short_size(pool.page_bytes),
            Some(node) => format!("{} on node {node}", short_size(pool.page_bytes)),
        })
        .collect();
    let reason = match known.is_empty() {
        true => "this kernel has no huge pages (CONFIG_HUGETLBFS)".to_owned(),
        false => format!("the kernel has none of these; it has {}", known.join(", ")),
    };
    let place = node.map(|node| format!(" on node {node}")).unwrap_or_default();
    pools
        .into_iter()
        .find(|pool| pool.page_bytes == bytes && pool.node == node)
        .ok_or_else(|| Error::unusable(format!("huge pages of {page}{place}"), reason))
}

pub(super) fn pools_below(sys: &Path) -> Result<Vec<Pool>> {
    let mut found = in_directory(&sys.join("kernel/mm/hugepages"), None)?;
    for (name, path) in entries(&sys.join("devices/system/node"))? {
        if let Some(node) = name.strip_prefix("node").and_then(|number| number.parse().ok()) {
            found.append(&mut in_directory(&path.join("hugepages"), Some(node))?);
        }
    }
    found.sort_by_key(|pool| (pool.page_bytes, pool.node));
    Ok(found)
}

fn in_directory(directory: &Path, node: Option<u32>) -> Result<Vec<Pool>> {
    entries(directory)?
        .into_iter()
        .filter_map(|(name, path)| {
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(read_pool(path, kib.checked_mul(1 << 10)?, node))
        })
        .collect()
}

/// Lists a directory by name; nothing if it does not exist.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |e| Error::os(directory.display().to_string(), "listing it", e);
    let list = match fs::read_dir(directory) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    list.map(|entry| {
        entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).map_err(failed)
    })
    .collect()
}

fn read_pool(path: PathBuf, page_bytes: u64, node: Option<u32>) -> Result<Pool> {
    let reserved = match node {
        None => Some(count(&path.join("resv_hugepages"))?),
        Some(_) => None,
    };
    Ok(Pool {
        page_bytes,
        node,
        total: count(&path.join("nr_hugepages"))?,
        free: count(&path.join("free_hugepages"))?,
        reserved,
        surplus: count(&path.join("surplus_hugepages"))?,
        path,
    })
}

fn count(path: &Path) -> Result<u64> {
    let text =
        fs::read_to_string(path).map_err(|e| Error::os(path.display().to_string(), "reading it", e))?;
    text.trim().parse().map_err(|_| {
        Error::protocol(
            path.display().to_string(),
            "reading it",
            format!("{:?} is not in the kernel's format", text.trim()),
        )
    })
}
