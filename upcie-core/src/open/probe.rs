//! Which transports reach a function right now.

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

/// A transport that reaches a function, and what keeps it from being used.
#[derive(Debug)]
#[non_exhaustive]
pub struct Transport {
    /// The address that names it.
    pub address: Address,
    /// What is missing, as opening it would say; `None` when nothing is, but that it may be in use.
    pub missing: Option<Error>,
}

/// Lists the transports that reach `function`, the better ones first, as things stand: opens nothing, changes nothing, and
/// does not ask who uses it.
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

/// What all transports without an IOMMU need: the right to configuration space, and huge pages that can have a name.
fn untranslated(function: &Function) -> Result<()> {
    let device = function.bdf.to_string();
    access(&function.path.join("config"), AccessFlags::R_OK | AccessFlags::W_OK).map_err(|e| {
        Error::os(&device, "writing its configuration space: without an IOMMU only root may", e)
    })?;
    let page = [PageSize::Huge2M, PageSize::Huge1G]
        .into_iter()
        .find(|page| page.available().is_some_and(|(free, _)| free > 0));
    let page = page.ok_or_else(|| Error::Unusable {
        device,
        reason: "without an IOMMU its memory must be huge pages, and none is free: `hugepages setup --count 64 --size 2M`"
            .into(),
    })?;
    hugetlb::mount_for(page).map(drop)
}
