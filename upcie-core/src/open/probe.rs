//! Lists the transports that can reach a function.

#[cfg(feature = "uio")]
use crate::uio;
use crate::{
    Error, Result,
    device::Address,
    hugetlb,
    page::PageSize,
    pci::Function,
    vfio::{self, AttachmentKind},
};
use nix::unistd::{AccessFlags, access};

/// A transport to a function, and the obstacle to its use.
#[derive(Debug)]
#[non_exhaustive]
pub struct Transport {
    /// The address that selects the transport.
    pub address: Address,
    /// The error that opening it would return; `None` if nothing is missing. The function may still be in use.
    pub missing: Option<Error>,
}

/// Lists the transports to `function` in their present state, the better ones first. Opens and changes nothing, and does
/// not check whether the function is in use.
pub fn probe(function: &Function) -> Vec<Transport> {
    let bdf = function.bdf;
    let all = [
        (Address::Iommufd(bdf), vfio::possible(function, AttachmentKind::Iommufd)),
        (Address::Vfio(bdf), vfio::possible(function, AttachmentKind::Group)),
        (
            Address::Noiommu(bdf),
            vfio::possible(function, AttachmentKind::Noiommu).and_then(|()| untranslated(function)),
        ),
        #[cfg(feature = "uio")]
        (Address::Uio(bdf), uio::possible(function, true).and_then(|()| untranslated(function))),
        #[cfg(feature = "uio")]
        (Address::Sysfs(bdf), uio::possible(function, false).and_then(|()| untranslated(function))),
    ];
    all.into_iter().map(|(address, possible)| Transport { address, missing: possible.err() }).collect()
}

/// Checks the needs of all transports without an IOMMU: access to configuration space, and huge pages on a writable
/// mount.
fn untranslated(function: &Function) -> Result<()> {
    let device = function.bdf.to_string();
    access(&function.path.join("config"), AccessFlags::R_OK | AccessFlags::W_OK).map_err(|e| {
        Error::os(&device, "writing its configuration space: without an IOMMU only root may", e)
    })?;
    let page = [PageSize::Huge2M, PageSize::Huge1G]
        .into_iter()
        .find(|page| page.available().is_some_and(|(free, _)| free > 0));
    let page = page.ok_or_else(|| Error::unusable(device, "without an IOMMU its memory must be huge pages, and none is free: `hugepages setup --count 64 --size 2M`"))?;
    hugetlb::mount_for(page).map(drop)
}
