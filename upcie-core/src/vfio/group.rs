//! The IOMMU group: the smallest set of devices that an IOMMU can isolate, and that a user can open.

use super::{
    abi,
    advice::{busy, no_permission, not_shared},
    nodes::{group_node, nodes},
};
use crate::{
    Error, Result,
    device::VfToken,
    pci::{Function, IommuGroup, is_vfio_driver},
    process::holders,
};
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// An IOMMU group, which only this process has open.
#[derive(Debug)]
pub(super) struct Group {
    file: File,
    number: u32,
    /// The device for which it was opened.
    device: String,
}

impl Group {
    /// Opens the group of `function`, whose node is in `dev`.
    pub(super) fn open(function: &Function, dev: &Path) -> Result<Self> {
        let group = check(function)?;
        Self::open_checked(function, group, dev)
    }

    /// Opens `group`, that of `function`, without [`check`], which refuses the no-IOMMU mode.
    pub(super) fn open_checked(function: &Function, group: &IommuGroup, dev: &Path) -> Result<Self> {
        let device = function.bdf.to_string();
        let unusable = |reason| Error::unusable(device.clone(), reason);
        let path = dev.join(group_node(group));
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|e| not_opened(function, group, dev, e))?;
        let flags = abi::group_flags(file.as_fd()).map_err(|e| {
            Error::os(&device, format!("querying the state of IOMMU group {}", group.number), e)
        })?;
        if flags & abi::GROUP_VIABLE == 0 {
            return Err(unusable(not_viable(group)));
        }
        Ok(Self { file, number: group.number, device })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Adds the group to a container.
    pub(super) fn join(&self, container: BorrowedFd<'_>) -> Result<()> {
        abi::group_set_container(self.file.as_fd(), container).map_err(|e| {
            Error::os(&self.device, format!("putting IOMMU group {} into a container", self.number), e)
        })
    }

    /// Opens `function`, which is in the group, with a VF token if there is one.
    pub(super) fn device(&self, function: &Function, token: Option<VfToken>) -> Result<OwnedFd> {
        let device = function.bdf.to_string();
        let name = token.map_or_else(|| device.clone(), |token| format!("{device} vf_token={token}"));
        let name = CString::new(name).map_err(io::Error::from);
        name.and_then(|name| abi::group_device(self.file.as_fd(), &name)).map_err(|e| {
            not_shared(function, token, e.raw_os_error()).unwrap_or_else(|| {
                Error::os(&device, format!("opening it in IOMMU group {}", self.number), e)
            })
        })
    }
}

/// Makes the error of a failed opening of `group`'s node in `dev`, for `function`.
pub(super) fn not_opened(function: &Function, group: &IommuGroup, dev: &Path, e: io::Error) -> Error {
    let (path, device) = (dev.join(group_node(group)), function.bdf.to_string());
    let shown = path.display();
    let unusable = |reason| Error::unusable(device.clone(), reason);
    match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => unusable(format!(
            "there is no {shown} although the function is bound to vfio-pci: in a container, pass {shown} into it (and \
             /dev/vfio/vfio); a kernel without CONFIG_VFIO_GROUP has none"
        )),
        Some(libc::EPERM) if group.is_noiommu => unusable(format!(
            "no permission to open {shown}: VFIO's no-IOMMU mode needs CAP_SYS_RAWIO: run it as root"
        )),
        Some(libc::EACCES | libc::EPERM) => {
            unusable(no_permission(function.bdf, &path, "SUBSYSTEM==\"vfio\""))
        }
        Some(libc::EBUSY) => {
            unusable(busy(&format!("IOMMU group {}", group.number), &holders(&nodes(function, dev))))
        }
        _ => Error::os(&device, format!("opening {shown}"), e),
    }
}

/// Checks the conditions for VFIO: an IOMMU translates for the function, and vfio-pci is bound to it.
pub(super) fn check(function: &Function) -> Result<&IommuGroup> {
    let device = function.bdf.to_string();
    let Some(group) = &function.iommu_group else {
        return Err(Error::unusable(
            device,
            "no IOMMU translates for it: turn it on in the firmware (VT-d, AMD-Vi, SMMU) and, for Intel, with \
                     intel_iommu=on; or use a transport without an IOMMU: uio:, sysfs:, noiommu:",
        ));
    };
    match function.driver.as_deref() {
        Some(driver) if is_vfio_driver(driver) && group.is_noiommu => Err(Error::unsupported(
            device,
            "translation by an IOMMU",
            format!(
                "it is in VFIO's no-IOMMU mode, which must be named: noiommu:{} (nothing then keeps the device off any \
                 memory); or turn the IOMMU on",
                function.bdf
            ),
        )),
        Some(driver) if is_vfio_driver(driver) => Ok(group),
        _ => Err(function.wrong_driver(Some("vfio-pci"))),
    }
}

/// Returns the members of a group whose drivers make it not viable, with these drivers.
pub(super) fn blocking(group: &IommuGroup) -> Vec<(&str, &str)> {
    // These drivers issue no DMA.
    let harmless = |driver: &str| is_vfio_driver(driver) || driver == "pci-stub" || driver == "pcieport";
    let bound =
        group.members.iter().filter_map(|member| Some((member.name.as_str(), member.driver.as_deref()?)));
    bound.filter(|(_, driver)| !harmless(driver)).collect()
}

/// Explains why a group is not viable: the kernel gives no user a part of it while a driver that does DMA has another
/// part.
pub(super) fn not_viable(group: &IommuGroup) -> String {
    let blocking = blocking(group);
    let number = group.number;
    if blocking.is_empty() {
        let members: Vec<_> = group.members.iter().map(|member| member.name.as_str()).collect();
        return format!(
            "IOMMU group {number} is not viable, though no driver seems to be bound to any member ({}): bind all of them to \
             vfio-pci and try again",
            members.join(", ")
        );
    }
    let list: Vec<_> = blocking.iter().map(|(name, driver)| format!("{name} (bound to {driver})")).collect();
    format!(
        "IOMMU group {number} is not viable, because it also contains {}: bind each to vfio-pci too or unbind it, or put the \
         device into a slot that has a group of its own",
        list.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    const BDF: &str = "0000:01:00.0";

    fn refusal(driver: Option<&str>, group: Option<u32>) -> String {
        let name = format!("group-{}-{group:?}", driver.unwrap_or("none"));
        let fake = FakeSysfs::new(&name);
        fake.add(BDF, "0x010802\n", driver, group);
        check(&fake.function(BDF).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn without_an_iommu_the_kernel_parameters_are_named() {
        let text = refusal(Some("vfio-pci"), None);
        assert!(text.contains("intel_iommu=on") && text.contains(BDF), "{text}");
    }

    #[test]
    fn a_wrong_driver_error_says_how_to_bind() {
        for driver in [None, Some("nvme"), Some("uio_pci_generic")] {
            let text = refusal(driver, Some(3));
            assert!(text.contains("`devbind bind vfio-pci 0000:01:00.0`"), "{text}");
            assert!(driver.is_none_or(|driver| text.contains(driver)), "{text}");
        }
        assert!(refusal(Some("nvme"), Some(3)).contains("unmount"));
    }

    #[test]
    fn variants_of_vfio_pci_are_accepted() {
        for driver in ["vfio-pci", "mlx5_vfio_pci", "xe-vfio-pci"] {
            let fake = FakeSysfs::new(driver);
            fake.add(BDF, "0x010802\n", Some(driver), Some(3));
            assert_eq!(check(&fake.function(BDF).unwrap()).unwrap().number, 3);
        }
        assert!(!is_vfio_driver("nvme") && !is_vfio_driver("vfio-platform"));
    }

    #[test]
    fn no_iommu_mode_must_be_named() {
        let fake = FakeSysfs::new("noiommu");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(0));
        std::fs::write(fake.0.join("kernel/iommu_groups/0/name"), "vfio-noiommu\n").unwrap();
        let error = check(&fake.function(BDF).unwrap()).unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::Unsupported { .. }), "{error}");
    }

    #[test]
    fn each_function_that_blocks_the_group_is_named() {
        let fake = FakeSysfs::new("viable");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(5));
        fake.add("0000:01:00.1", "0x020000\n", Some("e1000e"), Some(5));
        fake.add("0000:01:00.2", "0x040300\n", Some("snd_hda_intel"), Some(5));
        fake.add("0000:00:01.0", "0x060400\n", Some("pcieport"), Some(5));
        fake.add("0000:01:00.3", "0x040300\n", None, Some(5));
        let function = fake.function(BDF).unwrap();
        let text = not_viable(function.iommu_group.as_ref().unwrap());
        for part in ["group 5", "0000:01:00.1 (bound to e1000e)", "0000:01:00.2 (bound to snd_hda_intel)"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("pcieport") && !text.contains("01:00.3") && !text.contains(BDF), "{text}");
    }

    #[test]
    fn a_missing_node_error_names_its_path() {
        let fake = FakeSysfs::new("node");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(5));
        let error = Group::open(&fake.function(BDF).unwrap(), &fake.0).unwrap_err().to_string();
        assert!(error.contains("there is no") && error.contains("/5"), "{error}");
    }
}
