//! Checks whether a function can be driven without an IOMMU.

use crate::{
    Error, Result,
    pci::{Function, LOCKED_DOWN, is_locked_down, is_vfio_driver},
};
use std::{io, path::Path};

/// The driver that touches nothing of a function but its interrupt.
pub(super) const DRIVER: &str = "uio_pci_generic";

/// Refuses a function that an IOMMU translates for: it could not reach memory by physical addresses.
pub(super) fn untranslated(function: &Function) -> Result<()> {
    function.check_not_behind_vmd()?;
    function.check_not_locked_down()?;
    let Some(group) = function.iommu_group.as_ref().filter(|group| !group.is_noiommu) else { return Ok(()) };
    let bdf = function.bdf;
    let number = group.number;
    match group.domain.as_deref() {
        Some("identity") => Ok(()),
        domain => {
            let domain = domain.unwrap_or("unknown");
            let way_out = match function.driver.as_deref() {
                Some(driver) if is_vfio_driver(driver) => format!("use vfio:{bdf}"),
                _ => format!("use it, as root: `devbind bind vfio-pci {bdf}`"),
            };
            Err(Error::unusable(
                bdf.to_string(),
                format!(
                    "an IOMMU translates for it (group {number}: domain type {domain}), so physical addresses lead \
                     nowhere: {way_out}, or boot with iommu=pt"
                ),
            ))
        }
    }
}

/// Refuses a function that is not bound to `wanted` (`None`: that is bound to any driver).
pub(super) fn bound(function: &Function, wanted: Option<&str>) -> Result<()> {
    if function.driver.as_deref() == wanted {
        return Ok(());
    }
    Err(function.wrong_driver(wanted))
}

/// Makes the error of a failed `operation`, with the reason if it was not allowed.
pub(super) fn failed(device: &str, operation: &str, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => Error::gone(device, operation),
        Some(libc::EPERM | libc::EACCES) => {
            let hint = hint(is_locked_down(Path::new("/sys")), nix::unistd::geteuid().is_root());
            Error::os(device, format!("{operation} ({hint})"), source)
        }
        _ if source.kind() == io::ErrorKind::TimedOut => Error::os(
            device,
            format!("{operation}: the kernel has not finished, and continues (see dmesg)"),
            source,
        ),
        _ => Error::os(device, operation, source),
    }
}

fn hint(locked_down: bool, root: bool) -> &'static str {
    if locked_down {
        LOCKED_DOWN
    } else if root {
        "a capability is missing, as in a container: CAP_SYS_ADMIN and CAP_SYS_RAWIO are needed"
    } else {
        "without an IOMMU only root may; with one, `devbind bind vfio-pci --owner USER` gives it to a user"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::fs;

    const BDF: &str = "0000:01:00.0";

    #[test]
    fn only_an_identity_domain_is_accepted() {
        for (domain, refused) in [
            (Some("DMA"), true),
            (Some("DMA-FQ"), true),
            (Some("blocked"), true),
            (None, true),
            (Some("identity"), false),
        ] {
            let fake = FakeSysfs::new(&format!("domain-{domain:?}"));
            fake.add(BDF, "0x010802\n", None, Some(4));
            if let Some(domain) = domain {
                fs::write(fake.0.join("kernel/iommu_groups/4/type"), format!("{domain}\n")).unwrap();
            }
            let result = untranslated(&fake.function(BDF).unwrap());
            assert_eq!(result.is_err(), refused, "{domain:?}");
            if let Err(error) = result {
                let text = error.to_string();
                for part in ["iommu=pt", "devbind bind vfio-pci 0000:01:00.0", domain.unwrap_or("unknown")] {
                    assert!(text.contains(part), "{part}: {text}");
                }
            }
        }
        let fake = FakeSysfs::new("domain-vfio");
        fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(4));
        let mut function = fake.function(BDF).unwrap();
        let text = untranslated(&function).unwrap_err().to_string();
        assert!(text.contains("use vfio:0000:01:00.0") && !text.contains("devbind"), "{text}");
        // VFIO's no-IOMMU mode makes a group for a function that had none.
        function.iommu_group.as_mut().unwrap().is_noiommu = true;
        untranslated(&function).unwrap();
        let fake = FakeSysfs::new("no-group");
        fake.add(BDF, "0x010802\n", None, None);
        untranslated(&fake.function(BDF).unwrap()).unwrap();
    }

    #[test]
    fn a_wrong_driver_error_says_how_to_bind() {
        let fake = FakeSysfs::new("bound");
        fake.add(BDF, "0x010802\n", Some("nvme"), None);
        let function = fake.function(BDF).unwrap();
        let text = bound(&function, Some(DRIVER)).unwrap_err().to_string();
        assert!(text.contains("unmount") && text.contains("devbind bind uio_pci_generic"), "{text}");
        let text = bound(&function, None).unwrap_err().to_string();
        assert!(text.contains("devbind unbind 0000:01:00.0"), "{text}");
        bound(&function, Some("nvme")).unwrap();
    }

    #[test]
    fn lockdown_and_missing_rights_have_different_hints() {
        assert!(hint(true, true).contains("Secure Boot"));
        assert!(hint(false, true).contains("CAP_SYS_ADMIN"));
        assert!(hint(false, false).contains("root"));
    }
}
