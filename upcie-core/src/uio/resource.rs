//! Base address registers in sysfs: `resourceN`, and `resourceN_wc` for write-combining.

use super::check::failed;
use crate::{
    Error, Result,
    memory::host_page_size,
    mmio::{Area, Bar, Caching, Mapping, RegionIo},
    pci::{BarInfo, BarKind},
};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Returns the file of register `index` for `caching`; `None` if sysfs has none for it.
fn file(function: &Path, index: u8, caching: Caching) -> Option<PathBuf> {
    match caching {
        Caching::Uncached => Some(function.join(format!("resource{index}"))),
        Caching::WriteCombining => Some(function.join(format!("resource{index}_wc"))),
        Caching::WriteBack => None,
    }
}

/// Lists the cachings with which the register can be mapped.
pub(super) fn cachings(function: &Path, info: &BarInfo) -> Vec<Caching> {
    let mut all = vec![Caching::Uncached];
    // The kernel makes this file only for prefetchable registers, and only if the processor can combine writes.
    if file(function, info.index, Caching::WriteCombining).is_some_and(|path| path.exists()) {
        all.push(Caching::WriteCombining);
    }
    all
}

/// Maps all of the register.
pub(super) fn map(device: &str, function: &Path, info: &BarInfo, caching: Caching) -> Result<Bar> {
    let name = format!("{device} BAR {}", info.index);
    let possible = cachings(function, info);
    let path =
        file(function, info.index, caching).filter(|_| possible.contains(&caching)).ok_or_else(|| {
            let possible: Vec<_> = possible.iter().map(Caching::to_string).collect();
            Error::unsupported(
                name.clone(),
                format!("mapping it {caching}"),
                format!("it can be {} (write-combining needs a prefetchable one)", possible.join(" or ")),
            )
        })?;
    let open = OpenOptions::new().read(true).write(true).open(&path);
    let file = open.map_err(|e| failed(&name, &format!("opening {}", path.display()), e))?;
    if matches!(info.kind, BarKind::Io) {
        let io = Ports { name: name.clone(), file };
        return Ok(Bar::new(name, info.size, Vec::new(), Arc::new(io)));
    }
    let page = host_page_size() as u64;
    if info.base % page != 0 {
        return Err(Error::unsupported(
            name,
            "mapping it",
            format!(
                "it does not begin at a page (but at {:#x}): boot with pci=resource_alignment={page}@{device}",
                info.base
            ),
        ));
    }
    let len = usize::try_from(info.size).unwrap_or(usize::MAX);
    let mapping = Mapping::new(std::os::fd::AsFd::as_fd(&file), 0, len, &name).map_err(|error| {
        error.into_os().map_or_else(|other| other, |(operation, source)| failed(&name, &operation, source))
    })?;
    let area = Area { offset: 0, mapping: Arc::new(mapping) };
    let io = Ports { name: name.clone(), file };
    let bar = Bar::new(name, info.size, vec![area], Arc::new(io)).with_caching(caching);
    // SAFETY: the kernel reports this address of the register.
    Ok(unsafe { bar.with_bus_address(Some(info.base)) })
}

/// I/O ports: the kernel performs the access.
struct Ports {
    name: String,
    file: File,
}

// SAFETY: the file belongs to this register alone, and the kernel performs the access.
unsafe impl RegionIo for Ports {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(data, offset).map_err(|e| failed(&self.name, "reading it", e))
    }

    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(|e| failed(&self.name, "writing it", e))
    }
}
