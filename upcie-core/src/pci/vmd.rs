//! Functions behind Intel's Volume Management Device (VMD): they have domains of their own, and their requests bear the
//! VMD's id.

use super::{Bdf, Function, function::link_name};
use crate::{Error, Result};
use std::fs;

impl Function {
    /// Returns the VMD in front of the function; `None` for a function of the machine's own domains.
    pub fn vmd(&self) -> Option<Bdf> {
        let path = fs::canonicalize(&self.path).ok()?;
        let parents = path.ancestors().skip(1);
        parents.take_while(|parent| parent.file_name().is_some()).find_map(|parent| {
            let bdf = parent.file_name()?.to_str()?.parse().ok()?;
            let driver = link_name(&parent.join("driver")).ok().flatten()?;
            (driver == "vmd").then_some(bdf)
        })
    }

    /// Refuses a function behind a VMD. It has no IOMMU group of its own, although the IOMMU translates the requests that
    /// the VMD passes on: VFIO does not accept it, and physical addresses may be invalid for it.
    pub(crate) fn check_not_behind_vmd(&self) -> Result<()> {
        let Some(vmd) = self.vmd() else { return Ok(()) };
        Err(Error::unusable(
            self.bdf.to_string(),
            format!(
                "it is behind Intel's Volume Management Device {vmd}, whose IOMMU group it shares: turn VMD off in the \
                 firmware (VMD or RST), so that it becomes a function of its own"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::{pci::Binder, testing::FakeSysfs};
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_function_behind_a_vmd_has_its_own_error() {
        let fake = FakeSysfs::new("vmd");
        let (vmd, bdf) = (fake.0.join("devices/pci0000:00/0000:00:0e.0"), "10000:01:00.0");
        let behind = vmd.join("pci10000:00").join(bdf);
        fs::create_dir_all(behind.parent().unwrap()).unwrap();
        symlink("../../../bus/pci/drivers/vmd", vmd.join("driver")).unwrap();
        let plain = fake.add(bdf, "0x010802\n", Some("nvme"), None);
        assert_eq!(fake.function(bdf).unwrap().vmd(), None);
        fs::rename(&plain, &behind).unwrap();
        symlink(&behind, &plain).unwrap();
        let function = fake.function(bdf).unwrap();
        assert_eq!(function.vmd().unwrap().to_string(), "0000:00:0e.0");
        for text in [
            Binder::check(&function, "vfio-pci").unwrap_err().to_string(),
            crate::uio::possible(&function, true).unwrap_err().to_string(),
            crate::uio::possible(&function, false).unwrap_err().to_string(),
        ] {
            assert!(text.contains("0000:00:0e.0") && text.contains("VMD off"), "{text}");
            assert!(!text.contains("no IOMMU"), "{text}");
        }
    }
}
