//! The kernel's pools of huge pages, `/sys/kernel/mm/hugepages` (Documentation/admin-guide/mm/hugetlbpage.rst).

use super::short_size;
use crate::{Error, Result, page::PageSize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The huge pages of one size, of the whole machine or of one NUMA node: a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// The node; `None` for the pool of the whole machine, which is the sum of its nodes'.
    pub node: Option<u32>,
    /// Pages in the pool, used or not, those beyond its size (`surplus`) included.
    pub total: u64,
    /// Pages that nobody has.
    pub free: u64,
    /// Free pages that were promised to a mapping and not touched yet; the kernel doesn't count them by node.
    pub reserved: Option<u64>,
    /// Pages beyond the pool's size: they go back to the system when they are freed.
    pub surplus: u64,
    path: PathBuf,
}

/// All pools, by page size, the machine's before its nodes'. None where the kernel has no huge pages.
///
/// # Errors
/// sysfs can't be read, or says what this can't parse.
pub fn pools() -> Result<Vec<Pool>> {
    pools_below(Path::new("/sys"))
}

/// The pool of pages of this size, of the machine or of a node.
///
/// # Errors
/// [`Error::Unusable`] when there is no such pool: it says which there are. Those of [`pools`].
pub fn pool(page: PageSize, node: Option<u32>) -> Result<Pool> {
    find(pools()?, page, node)
}

/// The same without an error to explain it: nothing but this pool is read.
pub(crate) fn look(page: PageSize, node: Option<u32>) -> Option<Pool> {
    let bytes = page.bytes() as u64;
    let parent = node.map_or("kernel/mm".into(), |node| format!("devices/system/node/node{node}"));
    let path = format!("/sys/{parent}/hugepages/hugepages-{}kB", bytes >> 10);
    read_pool(path.into(), bytes, node).ok()
}

impl PageSize {
    /// Huge pages of this size that are free now, and in all; `None` for small pages and where the kernel has none of
    /// this size.
    pub fn available(self) -> Option<(u64, u64)> {
        let pool = look(self, None)?;
        Some((pool.available(), pool.total))
    }
}

impl Pool {
    /// The page size, where it is one that DMA memory can be made of.
    pub fn page_size(&self) -> Option<PageSize> {
        [PageSize::Huge2M, PageSize::Huge1G].into_iter().find(|page| page.bytes() as u64 == self.page_bytes)
    }

    /// Free pages that nobody was promised.
    pub fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserved.unwrap_or(0))
    }

    /// The file that says how many pages there are to be: `nr_hugepages`.
    pub fn file(&self) -> PathBuf {
        self.path.join("nr_hugepages")
    }

    /// Asks for `count` pages in all and reads the pool again; returns how many there are now.
    ///
    /// The kernel makes as many as it finds memory for and calls that success: fewer are no error here either. More than
    /// `count` are left where pages are in use: they go as they are freed.
    ///
    /// # Errors
    /// [`Error::Os`]: without root, or where pages of this size can't be made while the system runs.
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
            Error::os(file.display().to_string(), format!("asking for {count} huge pages{way_out}"), e)
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
        .ok_or_else(|| Error::Unusable { device: format!("huge pages of {page}{place}"), reason })
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

/// What is in a directory, by name; nothing where there is none.
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
    text.trim().parse().map_err(|_| Error::Protocol {
        device: path.display().to_string(),
        operation: "reading it".into(),
        reason: format!("{:?} is not what the kernel writes there", text.trim()),
    })
}
