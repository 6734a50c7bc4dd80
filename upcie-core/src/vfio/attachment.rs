//! The attachment of a device to its DMA address space.

use super::{container::Member, info::IommuInfo, ioas::Ioas, iommufd_abi, noiommu::Noiommu};
use crate::mmio::Mapping;
use std::{fmt, io, os::fd::BorrowedFd, sync::Arc};

/// A device's attachment to an address space.
#[derive(Debug)]
pub(super) enum Attachment {
    /// A group in a type1 container.
    Type1(Member),
    /// A character device in an address space of iommufd.
    Iommufd(Arc<Ioas>),
    /// A group in a container without an IOMMU.
    Noiommu(Noiommu),
}

impl Attachment {
    /// Returns the properties of the IOMMU; `None` without one.
    pub(super) fn info(&self) -> Option<&IommuInfo> {
        match self {
            Self::Type1(member) => Some(member.space().info()),
            Self::Iommufd(ioas) => Some(ioas.info()),
            Self::Noiommu(_) => None,
        }
    }

    /// Fills the page tables of a mapped BAR, if that is possible without an access.
    pub(super) fn prefault(&self, bar: &Mapping) {
        if let Self::Type1(member) = self {
            member.space().prefault(bar);
        }
    }

    /// Detaches `device` from its address space, if closing its file is not enough.
    pub(super) fn detach(&self, device: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            // A mapped BAR may keep the file open.
            Self::Iommufd(_) => iommufd_abi::detach(device),
            Self::Type1(_) | Self::Noiommu(_) => Ok(()),
        }
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type1(_) => "in a type1 container",
            Self::Iommufd(_) => "in iommufd",
            Self::Noiommu(_) => "without an IOMMU",
        })
    }
}
