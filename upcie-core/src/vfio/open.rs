//! Opens a function through one of VFIO's attachments, and chooses between them.

use super::{
    VfioDevice, abi,
    attachment::Attachment,
    cdev::Cdev,
    container::{Container, Member},
    group::{self, Group, check},
    ioas::{Ioas, open_iommu},
    nodes::{DEV, IOMMU, SYS, device_node, group_node},
    noiommu::{self, Noiommu},
    region::{Region, failed},
};
use crate::{
    Error, Result,
    device::{Address, Device, VfToken},
    dma::{DmaSpace, Untranslated},
    pci::{Bdf, Function, command, turn_on},
    process::Owner,
};
use nix::unistd::{AccessFlags, access};
use std::{
    fs::File,
    os::fd::AsFd,
    path::Path,
    sync::{Arc, Mutex},
};

/// The kind of attachment to an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachmentKind {
    /// Through iommufd if its nodes can be opened, else through the group.
    Any,
    /// Through the group, in a type1 container.
    Group,
    /// Through the character device and iommufd.
    Iommufd,
    /// Through the group, without an IOMMU.
    Noiommu,
}

impl AttachmentKind {
    /// Returns the function named by `address`, and its attachment; `None` if the address is not VFIO's.
    fn of(address: &Address) -> Option<(Bdf, Self)> {
        match address.without_token() {
            Address::Pci(bdf) => Some((*bdf, Self::Any)),
            Address::Vfio(bdf) => Some((*bdf, Self::Group)),
            Address::Iommufd(bdf) => Some((*bdf, Self::Iommufd)),
            Address::Noiommu(bdf) => Some((*bdf, Self::Noiommu)),
            _ => None,
        }
    }
}

impl VfioDevice {
    /// Opens a function that is bound to vfio-pci.
    ///
    /// - [`Address::Pci`]: through iommufd if both its character device and `/dev/iommu` can be opened, else through its
    ///   group.
    /// - [`Address::Vfio`]: through its group (`/dev/vfio/<group>`), in a type1 container of its own.
    /// - [`Address::Iommufd`]: through its character device (`/dev/vfio/devices/vfio<N>`), in an I/O address space of an
    ///   iommufd (`/dev/iommu`) of its own.
    /// - [`Address::Noiommu`]: through its group in VFIO's unsafe no-IOMMU mode: the device uses physical addresses, and
    ///   can read and write any memory. It needs CAP_SYS_RAWIO (and CAP_SYS_ADMIN, to look up physical addresses), and
    ///   vfio-pci must have been bound after the mode was turned on.
    /// - [`Address::Token`]: one of these, with a VF token. [`Address::Pci`] is then opened through its group, if that has a
    ///   node, since kernels before 6.17 check no token on character devices.
    ///
    /// # Errors
    /// Each cause has an error of its own, which says what to do: no such function, no IOMMU (or, in no-IOMMU mode, an
    /// IOMMU), another driver bound, a group that is not viable, in use, or not accessible, a kernel without iommufd, a
    /// mode that is off. [`Failure::Unsupported`](crate::Failure::Unsupported) for an address of another transport.
    pub fn open(address: &Address) -> Result<Arc<Self>> {
        // A token is a secret: no name contains it.
        let (name, token) = (address.without_token().to_string(), address.token());
        let Some((bdf, kind)) = AttachmentKind::of(address) else {
            return Err(Error::unsupported(
                name,
                "VFIO",
                "its address names another transport: use upcie_core::open",
            ));
        };
        let function = Function::at(bdf)?;
        match kind {
            AttachmentKind::Any => Self::any(&name, &function, token),
            AttachmentKind::Group => Self::grouped(&name, &function, token),
            AttachmentKind::Iommufd => {
                let (cdev, iommu) = iommufd_files(&name, &function)?;
                Self::in_iommufd(&name, &function, (cdev, token), iommu)
            }
            AttachmentKind::Noiommu => Self::without_iommu(&name, &function, token, None),
        }
    }

    /// Opens the function at `bdf` in the address space of `other`, through the same attachment. The two share
    /// [`Device::dma`]: memory mapped for one can be given to the other, and a BAR of one can be mapped for both. Either
    /// can be closed first. A function that needs a VF token is opened by
    /// [`Device::open_beside`](crate::device::Device::open_beside), which takes an address.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Failure::Unusable`](crate::Failure::Unusable) when this function reserves addresses that the space already
    /// uses. The present mappings are not changed.
    pub fn open_beside(bdf: Bdf, other: &Self) -> Result<Arc<Self>> {
        let kind = match &other.attachment {
            Attachment::Type1(_) => AttachmentKind::Group,
            Attachment::Iommufd(_) => AttachmentKind::Iommufd,
            Attachment::Noiommu(_) => AttachmentKind::Noiommu,
        };
        Self::open_beside_as(&bdf.to_string(), (bdf, None), kind, other)
    }

    /// Opens the function at `address` beside `other`, as [`open_beside`](Self::open_beside) does, through the attachment
    /// that the address names.
    pub(super) fn open_address_beside(address: &Address, other: &Self) -> Result<Arc<Self>> {
        let Some((bdf, kind)) = AttachmentKind::of(address) else {
            return Err(Error::unsupported(
                other.name(),
                format!("sharing its address space with {}", address.without_token()),
                "open both through the same VFIO transport",
            ));
        };
        let name = address.without_token().to_string();
        Self::open_beside_as(&name, (bdf, address.token()), kind, other)
    }

    fn open_beside_as(
        name: &str,
        (bdf, token): (Bdf, Option<VfToken>),
        kind: AttachmentKind,
        other: &Self,
    ) -> Result<Arc<Self>> {
        let function = Function::at(bdf)?;
        let space = other.dma().clone();
        match &other.attachment {
            Attachment::Type1(member) if matches!(kind, AttachmentKind::Any | AttachmentKind::Group) => {
                let member = member.space().join(&function, Path::new(DEV))?;
                Self::member(name, &function, (member, token), space)
            }
            Attachment::Iommufd(ioas) if matches!(kind, AttachmentKind::Any | AttachmentKind::Iommufd) => {
                let cdev = Cdev::open(name, &function, Path::new(DEV))?;
                ioas.attach(name, &cdev, token)?;
                Self::start(name, &function, cdev.into_file(), Attachment::Iommufd(ioas.clone()), space)
            }
            Attachment::Noiommu(_) if kind == AttachmentKind::Noiommu => {
                Self::without_iommu(name, &function, token, Some(space))
            }
            attachment => Err(Error::unsupported(
                name,
                format!("the address space of {}", other.name()),
                format!("that one is {attachment}: open both through the same transport"),
            )),
        }
    }

    fn any(name: &str, function: &Function, token: Option<VfToken>) -> Result<Arc<Self>> {
        let group = check(function)?;
        let has_group = Path::new(DEV).join(group_node(group)).exists();
        if token.is_some() && has_group {
            return Self::grouped(name, function, token);
        }
        match iommufd_files(name, function) {
            Ok((cdev, iommu)) => Self::in_iommufd(name, function, (cdev, token), iommu),
            // The group has no node, so iommufd's error is the useful one.
            Err(error) if device_node(function).is_some() && !has_group => Err(error),
            Err(error) => {
                tracing::debug!(device = name, %error, "iommufd failed: using the group");
                Self::grouped(name, function, token)
            }
        }
    }

    fn grouped(name: &str, function: &Function, token: Option<VfToken>) -> Result<Arc<Self>> {
        let dev = Path::new(DEV);
        let group = Group::open(function, dev)?;
        let member = Container::open(name, dev)?.attach(group, function.bdf)?;
        let iommu = member.space().clone();
        let info = iommu.info();
        let (ranges, page) = (info.ranges.clone(), info.smallest_page());
        let space = DmaSpace::new(name, ranges, page, Box::new(iommu));
        Self::member(name, function, (member, token), space)
    }

    fn member(
        name: &str,
        function: &Function,
        (member, token): (Member, Option<VfToken>),
        space: Arc<DmaSpace>,
    ) -> Result<Arc<Self>> {
        let file = File::from(member.device(function, token)?);
        Self::start(name, function, file, Attachment::Type1(member), space)
    }

    fn in_iommufd(
        name: &str,
        function: &Function,
        (cdev, token): (Cdev, Option<VfToken>),
        iommu: File,
    ) -> Result<Arc<Self>> {
        let ioas = Ioas::with(name, iommu, &cdev, token)?;
        let (ranges, page) = (ioas.info().ranges.clone(), ioas.info().smallest_page());
        let space = DmaSpace::new(name, ranges, page, Box::new(ioas.clone()));
        Self::start(name, function, cdev.into_file(), Attachment::Iommufd(ioas), space)
    }

    /// Opens the function in `space`, a space of physical addresses, or in its own.
    fn without_iommu(
        name: &str,
        function: &Function,
        token: Option<VfToken>,
        space: Option<Arc<DmaSpace>>,
    ) -> Result<Arc<Self>> {
        // Locked before anything is changed under another user; the sysfs transport uses the same lock.
        let lock = noiommu::locked(name, function, Path::new(SYS))?;
        let noiommu = Noiommu::open(name, function, Path::new(DEV))?;
        let file = File::from(noiommu.device(function, token)?);
        let info = abi::device_info(file.as_fd()).map_err(|e| failed(name, "querying its properties", e))?;
        // On the first opening of its file, VFIO turns bus mastering off and tries a reset; DEVICE_RESET says whether it
        // can.
        let was_reset = info.flags & abi::DEVICE_RESET != 0;
        // SAFETY: the lock is the function's, and VFIO has reported whether it could reset it with bus mastering off.
        let untranslated = unsafe { Untranslated::new(function, lock, was_reset) }?;
        let space = match space {
            Some(space) => {
                space.join(untranslated)?;
                space
            }
            None => DmaSpace::physical(name, untranslated),
        };
        let attachment = Attachment::Noiommu(noiommu);
        Self::start(name, function, file, attachment, space.clone())
            .inspect_err(|_| space.leave(function.bdf))
    }

    /// Takes over `file`, which is that of `function`, attached to the address space of `space`.
    fn start(
        name: &str,
        function: &Function,
        file: File,
        attachment: Attachment,
        space: Arc<DmaSpace>,
    ) -> Result<Arc<Self>> {
        let (file, bars) = (Arc::new(file), function.bars()?);
        let failed = |e| failed(name, "querying its properties", e);
        let info = abi::device_info(file.as_fd()).map_err(failed)?;
        if info.flags & abi::DEVICE_PCI == 0 || info.num_regions <= abi::REGION_INDEX_CONFIG {
            return Err(Error::unusable(
                name,
                "VFIO does not show it as a PCI function: bind it to vfio-pci",
            ));
        }
        let (config, _) = abi::region_info(file.as_fd(), abi::REGION_INDEX_CONFIG).map_err(failed)?;
        let mut device = Self {
            name: name.into(),
            owner: Owner::current(),
            info,
            // Not known yet: with this value nothing is restored.
            command: command::BUS_MASTER,
            config: Region::new(name, "configuration space", &file, &config),
            state: Mutex::default(),
            file,
            attachment,
            space,
            group: function.iommu_group.as_ref().map_or(0, |group| group.number),
            bars,
        };
        tracing::debug!(device = name, attachment = %device.attachment, group = device.group, "opened through VFIO");
        device.space.prefer_node(function.numa_node);
        // SAFETY: the function was just opened, and nobody else has it; earlier commands have ended.
        device.command = unsafe { turn_on(&device) }?;
        Ok(Arc::new(device))
    }
}

/// Checks whether this user could open `function` through this attachment, if it is not in use.
pub(crate) fn possible(function: &Function, kind: AttachmentKind) -> Result<()> {
    let (name, dev) = (function.bdf.to_string(), Path::new(DEV));
    match kind {
        AttachmentKind::Iommufd => iommufd_files(&name, function).map(drop),
        AttachmentKind::Noiommu => noiommu::check(&name, function, Path::new(SYS)).map(drop),
        AttachmentKind::Any | AttachmentKind::Group => {
            let group = check(function)?;
            Container::open(&name, dev)?;
            access(&dev.join(group_node(group)), AccessFlags::R_OK | AccessFlags::W_OK)
                .map_err(|e| group::not_opened(function, group, dev, e.into()))
        }
    }
}

/// Opens the two files of iommufd, which has no effect yet.
fn iommufd_files(name: &str, function: &Function) -> Result<(Cdev, File)> {
    Ok((Cdev::open(name, function, Path::new(DEV))?, open_iommu(name, function.bdf, Path::new(IOMMU))?))
}
