//! Kernel lockdown (kernel_lockdown(7)): the kernel denies even root access to BARs and configuration space in sysfs.

use super::Function;
use crate::{Error, Result};
use std::{fs, path::Path};

pub(crate) const LOCKED_DOWN: &str = "the kernel is locked down, mostly because of Secure Boot: it lets nobody do this; use vfio-pci and an IOMMU";

/// Returns whether the kernel denies even root access to BARs and configuration space (kernel_lockdown(7)).
pub(crate) fn is_locked_down(sysfs: &Path) -> bool {
    let mode = fs::read_to_string(sysfs.join("kernel/security/lockdown")).unwrap_or_default();
    ["[integrity]", "[confidentiality]"].iter().any(|locked| mode.contains(locked))
}

impl Function {
    /// Refuses access through sysfs's files of BARs and configuration space while the kernel is locked down.
    pub(crate) fn check_not_locked_down(&self) -> Result<()> {
        if !is_locked_down(self.sysfs()) {
            return Ok(());
        }
        Err(Error::unusable(self.bdf.to_string(), LOCKED_DOWN))
    }
}

#[cfg(test)]
#[cfg(feature = "bind")]
mod tests {
    use crate::{pci::Binder, testing::FakeSysfs};
    use std::fs;

    const BDF: &str = "0000:01:00.0";

    #[test]
    fn a_locked_down_kernel_accepts_no_uio_driver() {
        let fake = FakeSysfs::new("lockdown");
        fake.add(BDF, "0x010802\n", Some("nvme"), None);
        let file = fake.0.join("kernel/security/lockdown");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let function = fake.function(BDF).unwrap();
        for (mode, locked) in
            [("[none] integrity confidentiality\n", false), ("none [integrity] confidentiality\n", true)]
        {
            fs::write(&file, mode).unwrap();
            let refused = [function.check_not_locked_down(), Binder::check(&function, "uio_pci_generic")];
            for result in refused {
                assert_eq!(
                    result.is_err_and(|error| error.to_string().contains("Secure Boot")),
                    locked,
                    "{mode}"
                );
            }
        }
    }
}
