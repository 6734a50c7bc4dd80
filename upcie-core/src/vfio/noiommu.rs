//! VFIO's unsafe no-IOMMU mode: interrupts, reset and BARs work as usual, but the device uses physical addresses.

use super::{abi, container::Container, group::Group};
use crate::{
    Error, Result,
    device::VfToken,
    pci::{Bdf, Function, FunctionLock, IommuGroup, is_vfio_driver},
};
use std::{fs, os::fd::AsFd, os::fd::OwnedFd, path::Path};

/// The kernel's switch for the mode, below `/sys`.
const PARAMETER: &str = "module/vfio/parameters/enable_unsafe_noiommu_mode";

/// The consequence of the mode, for messages.
const COST: &str = "nothing then keeps the device off any memory of the machine, and the kernel is tainted";

/// A container without an IOMMU, and its group. Neither maps anything.
#[derive(Debug)]
pub(super) struct Noiommu {
    group: Group,
    _container: Container,
    function: Bdf,
}

impl Noiommu {
    /// Opens the group of `function`, whose node is in `dev`, on behalf of `device`.
    pub(super) fn open(device: &str, function: &Function, dev: &Path) -> Result<Self> {
        let container = Container::open(device, dev)?;
        let group = function
            .iommu_group
            .as_ref()
            .ok_or_else(|| Error::unusable(device, "it has lost its group: bind it to vfio-pci again"))?;
        let group = Group::open_checked(function, group, dev)?;
        group.join(container.as_fd())?;
        abi::set_iommu(container.as_fd(), abi::NOIOMMU).map_err(|e| {
            let hint = match e.raw_os_error() {
                Some(libc::EPERM) => " (it needs CAP_SYS_RAWIO: run it as root)",
                Some(libc::ENODEV) => " (the kernel is built without CONFIG_VFIO_NOIOMMU)",
                _ => "",
            };
            Error::os(device, format!("turning VFIO's no-IOMMU mode on{hint}"), e)
        })?;
        Ok(Self { group, _container: container, function: function.bdf })
    }

    pub(super) fn function(&self) -> Bdf {
        self.function
    }

    /// Opens the function.
    pub(super) fn device(&self, function: &Function, token: Option<VfToken>) -> Result<OwnedFd> {
        self.group.device(function, token)
    }
}

/// Locks `function` for this process, if it is in no-IOMMU mode.
pub(super) fn locked(device: &str, function: &Function, sys: &Path) -> Result<FunctionLock> {
    check(device, function, sys)?;
    FunctionLock::take(function.bdf)
}

/// Checks the conditions of the mode: no IOMMU translates for the function, the mode is on, and vfio-pci was bound after
/// that.
pub(super) fn check<'a>(device: &str, function: &'a Function, sys: &Path) -> Result<&'a IommuGroup> {
    function.check_not_behind_vmd()?;
    let bdf = function.bdf;
    let unusable = |reason| Error::unusable(device, reason);
    let bound = function.driver.as_deref().filter(|driver| is_vfio_driver(driver));
    match &function.iommu_group {
        Some(group) if group.is_noiommu && bound.is_some() => return Ok(group),
        Some(group) if !group.is_noiommu => {
            return Err(Error::unsupported(
                device,
                "VFIO's no-IOMMU mode",
                format!("it has an IOMMU, which the mode would not use: use vfio:{bdf}"),
            ));
        }
        _ => {}
    }
    let bind = format!("as root: `devbind bind vfio-pci {bdf} --unsafe-noiommu`; {COST}");
    match fs::read_to_string(sys.join(PARAMETER)) {
        Ok(text) if text.trim() == "Y" => {
            let state = match function.driver.as_deref() {
                Some(driver) => format!("it is bound to another driver, {driver}"),
                None => "no driver is bound to it (bind it again if that failed before the mode was on)".into(),
            };
            Err(unusable(format!("{state}; {bind}")))
        }
        Ok(_) => Err(unusable(format!(
            "VFIO's no-IOMMU mode is off (enable_unsafe_noiommu_mode). To turn it on and bind it, {bind}"
        ))),
        Err(_) if sys.join("module/vfio").exists() => Err(unusable(
            "the kernel is built without CONFIG_VFIO_NOIOMMU: use another kernel, turn an IOMMU on, or use uio_pci_generic"
                .into(),
        )),
        Err(_) => Err(unusable(format!("VFIO is not loaded; {bind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;

    const BDF: &str = "0000:01:00.0";

    fn refusal(fake: &FakeSysfs) -> String {
        check("noiommu:0000:01:00.0", &fake.function(BDF).unwrap(), &fake.0).unwrap_err().to_string()
    }

    fn set(fake: &FakeSysfs, value: &str) {
        let path = fake.0.join(PARAMETER);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    #[test]
    fn a_function_with_an_iommu_is_referred_to_vfio() {
        let fake = FakeSysfs::new("noiommu-real");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(3));
        let text = refusal(&fake);
        assert!(text.contains("it has an IOMMU") && text.contains("vfio:0000:01:00.0"), "{text}");
    }

    #[test]
    fn each_missing_condition_has_its_own_advice() {
        let fake = FakeSysfs::new("noiommu-off");
        fake.add(BDF, "0x010802\n", None, None);
        assert!(refusal(&fake).contains("VFIO is not loaded; as root: `devbind bind vfio-pci"));
        fs::create_dir_all(fake.0.join("module/vfio")).unwrap();
        assert!(refusal(&fake).contains("CONFIG_VFIO_NOIOMMU"));
        set(&fake, "N\n");
        let text = refusal(&fake);
        let parts = [
            "is off",
            "enable_unsafe_noiommu_mode",
            "--unsafe-noiommu",
            "any memory of the machine",
            "tainted",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        set(&fake, "Y\n");
        let text = refusal(&fake);
        assert!(text.contains("no driver is bound") && text.contains("--unsafe-noiommu"), "{text}");
    }

    #[test]
    fn a_function_in_the_mode_is_accepted() {
        let fake = FakeSysfs::new("noiommu-on");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(0));
        fs::write(fake.0.join("kernel/iommu_groups/0/name"), "vfio-noiommu\n").unwrap();
        let function = fake.function(BDF).unwrap();
        let group = check(BDF, &function, &fake.0).unwrap();
        assert_eq!(super::super::nodes::group_node(group), "noiommu-0");
        // Only the mode's own node is opened.
        let error = Group::open_checked(&function, group, &fake.0).unwrap_err().to_string();
        assert!(error.contains("noiommu-0"), "{error}");
    }

    #[test]
    fn another_driver_is_named() {
        let fake = FakeSysfs::new("noiommu-nvme");
        fake.add(BDF, "0x010802\n", Some("nvme"), None);
        set(&fake, "Y\n");
        assert!(refusal(&fake).contains("another driver, nvme"));
    }
}
