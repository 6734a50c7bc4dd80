//! Makes and removes virtual functions.

use super::{Binder, is_vfio_driver, read};
use crate::{
    Error, Failure, Result,
    pci::{Bdf, Function, function::Sysfs},
};

/// The switch of vfio-pci, below `/sys`.
const ENABLE: &str = "module/vfio_pci/parameters/enable_sriov";

impl Binder<'_> {
    /// Gives a physical function so many virtual ones (`sriov_numvfs`; PCI Express Base 6.0, "Single Root I/O
    /// Virtualization"), in place of those that it has, and returns them by number. 0 removes them. The virtual functions of a
    /// function that is bound to vfio-pci are bound to it too.
    ///
    /// The function stays as it is otherwise: open, if a program drives it.
    ///
    /// # Errors
    /// [`Failure::Unsupported`]: the function can't have so many. [`Failure::Unusable`]: its driver makes none (vfio-pci's
    /// switch for it is off, say), or one of the present ones is in use. [`Failure::Timeout`]: the kernel has not finished.
    pub fn set_virtual_functions(&mut self, function: &Function, count: u16) -> Result<Vec<Bdf>> {
        let name = || function.bdf.to_string();
        let (most, now) = (function.most_virtual_functions()?, function.virtual_functions()?);
        if count > most {
            let what = match most {
                0 => "it has no SR-IOV: it can't have virtual functions".to_owned(),
                _ => format!("it can have {most} virtual functions, and {count} are wanted"),
            };
            return Err(Error::unsupported(name(), format!("{count} virtual functions"), what));
        }
        // Removing a function waits for its user.
        let sysfs = Sysfs { root: function.sysfs().to_path_buf() };
        for bdf in &now {
            self.check_not_in_use(&sysfs.function(*bdf)?)?;
        }
        let path = function.path.join("sriov_numvfs");
        if !now.is_empty() {
            self.write(function, path.clone(), "0", "removing its virtual functions")?;
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let operation = format!("making {count} virtual functions");
        self.write(function, path.clone(), &count.to_string(), &operation).map_err(|error| {
            match error.failure() {
                Failure::Os { source } if source.raw_os_error() == Some(libc::ENOENT) => {
                    Error::unusable(name(), format!("{operation}: {}", no_driver(function)))
                }
                _ => error,
            }
        })?;
        let made = function.virtual_functions()?;
        if made.len() != usize::from(count) && !self.dry_run {
            let removed = self.write(function, path, "0", "removing its virtual functions");
            let left = removed.err().map_or_else(String::new, |error| format!("; those stay: {error}"));
            let made = made.len();
            let reason =
                format!("the kernel made {made} of {count} virtual functions (dmesg says why){left}");
            return Err(Error::unusable(name(), reason));
        }
        Ok(made)
    }
}

/// Explains why a function's driver makes no virtual functions.
fn no_driver(function: &Function) -> String {
    let switch = function.sysfs().join(ENABLE);
    match function.driver.as_deref() {
        None => {
            "no driver is bound to it, and only a driver makes them: bind it to vfio-pci or nvme".to_owned()
        }
        Some(driver) if is_vfio_driver(driver) && read(&switch).is_ok_and(|text| text.trim() == "N") => {
            format!("vfio-pci makes them only if it is told to: as root: `echo 1 > {}`", switch.display())
        }
        Some(driver) => format!("its driver {driver} makes none: bind it to vfio-pci or nvme"),
    }
}
