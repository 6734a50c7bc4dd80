//! Virtual functions as the kernel shows them (PCI Express Base 6.0, "Single Root I/O Virtualization").

use super::{
    Bdf, Function,
    function::{link_name, read},
};
use crate::{Error, Result};

impl Function {
    /// Returns the physical function that this one is a virtual function of; `None` if it is no virtual function.
    ///
    /// # Errors
    /// sysfs can't be read, or has an unexpected format.
    pub fn physical_function(&self) -> Result<Option<Bdf>> {
        self.linked("physfn")
    }

    /// Returns the number of virtual functions that it can have; 0 for a function without SR-IOV.
    ///
    /// # Errors
    /// sysfs can't be read, or has an unexpected format.
    pub fn most_virtual_functions(&self) -> Result<u16> {
        let path = self.path.join("sriov_totalvfs");
        if !path.exists() {
            return Ok(0);
        }
        let text = read(&path)?;
        text.trim().parse().map_err(|_| {
            let reason = format!("{:?} is not a number", text.trim());
            Error::protocol(path.display().to_string(), "reading it", reason)
        })
    }

    /// Lists the virtual functions that it has, by number: the first is number 1 to an NVMe controller.
    ///
    /// # Errors
    /// sysfs can't be read, or has an unexpected format.
    pub fn virtual_functions(&self) -> Result<Vec<Bdf>> {
        (0..self.most_virtual_functions()?)
            .map_while(|number| self.linked(&format!("virtfn{number}")).transpose())
            .collect()
    }

    /// Returns the function that a link in this one's directory leads to.
    fn linked(&self, name: &str) -> Result<Option<Bdf>> {
        link_name(&self.path.join(name))?.map(|name| name.parse()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::FakeSysfs;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn virtual_functions_are_listed_by_number() {
        let fake = FakeSysfs::new("virtual");
        let physical = fake.add("0000:01:00.0", "0x010802\n", Some("vfio-pci"), Some(1));
        let plain = fake.function("0000:01:00.0").unwrap();
        assert_eq!(
            (plain.most_virtual_functions().unwrap(), plain.virtual_functions().unwrap()),
            (0, vec![])
        );
        fs::write(physical.join("sriov_totalvfs"), "12\n").unwrap();
        assert_eq!(plain.most_virtual_functions().unwrap(), 12);
        assert_eq!(plain.virtual_functions().unwrap(), []);
        for number in 0..12 {
            let bdf = format!("0000:01:{:02x}.{}", 1 + number / 8, number % 8);
            let path = fake.add(&bdf, "0x010802\n", None, Some(2 + number));
            symlink("../0000:01:00.0", path.join("physfn")).unwrap();
            symlink(format!("../{bdf}"), physical.join(format!("virtfn{number}"))).unwrap();
        }
        let names: Vec<_> = plain.virtual_functions().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!((names.len(), &*names[0], &*names[11]), (12, "0000:01:01.0", "0000:01:02.3"));
        assert_eq!(plain.physical_function().unwrap(), None);
        let one = fake.function("0000:01:02.3").unwrap();
        assert_eq!(one.physical_function().unwrap().unwrap().to_string(), "0000:01:00.0");
        fs::write(physical.join("sriov_totalvfs"), "many").unwrap();
        assert!(plain.virtual_functions().unwrap_err().to_string().contains("many"));
    }
}
