//! Binds functions to drivers.
//!
//! The kernel is told the wanted driver (`driver_override`), unbinds the present one (`driver/unbind`) and probes for a
//! driver (`drivers_probe`). Such a write can succeed without any effect, so the result is read afterwards. All of it
//! needs root.

mod virtual_functions;

use super::{
    Bdf, Binding, Function,
    binding::{DEADLINE, by, is_vfio_driver},
    function::{link_name, read},
};
use crate::{Error, ErrorKind, Failure, Result, process::write_within};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A callback before each write, with its path and value.
type Observer<'a> = Box<dyn FnMut(&Path, &str) + 'a>;
/// The function that writes.
type Kernel<'a> = Box<dyn FnMut(&Path, &str, Duration) -> io::Result<()> + 'a>;

/// Binds functions to drivers.
///
/// ```no_run
/// use upcie_core::pci::{Binder, Function};
///
/// let function = Function::at("0000:01:00.0".parse()?)?;
/// let before = function.binding()?;
/// Binder::new().bind(&function, "vfio-pci")?;
/// // … use it, and put it back:
/// Binder::new().restore(&function, &before)?;
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub struct Binder<'a> {
    observer: Observer<'a>,
    kernel: Kernel<'a>,
    dry_run: bool,
    force: bool,
    deadline: Duration,
}

impl fmt::Debug for Binder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dry_run, force, deadline, .. } = self;
        f.debug_struct("Binder")
            .field("dry_run", dry_run)
            .field("force", force)
            .field("deadline", deadline)
            .finish_non_exhaustive()
    }
}

impl Default for Binder<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Binder<'a> {
    /// Makes a binder that makes all writes, has no observer, and refuses functions that a program drives.
    pub fn new() -> Self {
        Self {
            observer: Box::new(|_, _| {}),
            kernel: Box::new(write_within),
            dry_run: false,
            force: false,
            deadline: DEADLINE,
        }
    }

    /// Calls `observer` before each write, with its path in sysfs and its value.
    pub fn observer(mut self, observer: impl FnMut(&Path, &str) + 'a) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Only tells the observer what would be written.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Unbinds functions that programs drive, too. The kernel asks a VFIO user to close the function, and nothing happens
    /// until it does. A function that this process itself has open through VFIO is still refused.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Sets the deadline of one step; the default is 30 seconds. The kernel continues an unbinding that takes longer.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Checks before any change whether `driver` can have `function` at all.
    ///
    /// # Errors
    /// [`Failure::Unusable`] when `driver` is VFIO's, no IOMMU translates for the function and VFIO's no-IOMMU mode is off;
    /// when the function is behind Intel VMD; and when `driver` is uio_pci_generic and the kernel is locked down.
    /// [`Failure::Unsupported`] when `driver` is not the name of a driver.
    pub fn check(function: &Function, driver: &str) -> Result<()> {
        let device = function.bdf.to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !driver.starts_with(|c: char| c.is_ascii_alphanumeric()) || !driver.chars().all(plain) {
            return Err(Error::unsupported(
                device,
                format!("the driver {driver:?}"),
                "a name like vfio-pci is needed",
            ));
        }
        if let Some(similar_driver) = similar_driver(function, driver) {
            return Err(Error::unsupported(
                device,
                format!("the driver {driver}"),
                format!("no driver has this name: did you mean {similar_driver}?"),
            ));
        }
        if is_vfio_driver(driver) || driver == UIO {
            function.check_not_behind_vmd()?;
        }
        if driver == UIO {
            function.check_not_locked_down()?;
        }
        if is_vfio_driver(driver) && function.iommu_group.is_none() && !noiommu(function) {
            return Err(Error::unusable(
                device,
                format!(
                    "no IOMMU translates for it, and {driver} needs one: turn it on in the firmware (VT-d, AMD-Vi or \
                     SMMU) and in the kernel's parameters (intel_iommu=on for Intel), then boot anew; or use \
                     uio_pci_generic, or VFIO's unsafe no-IOMMU mode (devbind bind --unsafe-noiommu): without an IOMMU \
                     nothing keeps the device from other memory"
                ),
            ));
        }
        Ok(())
    }

    /// Binds `function` to `driver`, whose module must be loaded, and unbinds its present driver. If `driver` has it
    /// already, nothing changes.
    ///
    /// # Errors
    /// Those of [`Binder::check`]; [`Failure::Unusable`] when the driver is not loaded, a program drives the function, or
    /// it is being unbound; [`Failure::Os`] when a write fails, or the driver does not accept the function. The former
    /// driver and override are restored then, or the error says what could not be restored.
    pub fn bind(&mut self, function: &Function, driver: &str) -> Result<()> {
        function.check_not_being_unbound()?;
        let former = function.binding()?;
        if former.driver.as_deref() == Some(driver) {
            return Ok(());
        }
        if !self.dry_run {
            Self::check(&function.refresh()?, driver)?;
            self.check_driver_exists(function, driver)?;
        }
        self.check_not_in_use(function)?;
        let result = self.swap(function, former.driver.as_deref(), Some(driver));
        result.map_err(|error| self.restore_after(function, &former, error))
    }

    /// Unbinds `function` from its driver, if it has one. Its override stays, so the kernel may bind it again when it
    /// next probes for a driver.
    ///
    /// # Errors
    /// [`Failure::Unusable`] when a program drives it or it is already being unbound, [`Failure::Timeout`] when the driver
    /// does not release it, and the system's errors.
    pub fn unbind(&mut self, function: &Function) -> Result<()> {
        function.check_not_being_unbound()?;
        let former = function.binding()?;
        if former.driver.is_none() {
            return Ok(());
        }
        self.check_not_in_use(function)?;
        self.release(function)
    }

    /// Restores a binding returned by [`Function::binding`].
    ///
    /// # Errors
    /// Those of [`Binder::bind`].
    pub fn restore(&mut self, function: &Function, to: &Binding) -> Result<()> {
        let now = function.binding()?;
        match &to.driver {
            Some(driver) => self.bind(function, driver)?,
            None => self.unbind(function)?,
        }
        let now = if self.dry_run { now } else { function.binding()? };
        if now.driver_override != to.driver_override || (self.dry_run && now.driver != to.driver) {
            self.set_driver_override(function, to.driver_override.as_deref())?;
        }
        Ok(())
    }

    /// Names the only driver to which the kernel may offer `function` from now on; with `None`, the drivers' ids decide
    /// again. The present binding stays.
    ///
    /// # Errors
    /// The system's errors.
    pub fn set_driver_override(&mut self, function: &Function, driver: Option<&str>) -> Result<()> {
        // An empty line clears it; a write of no bytes would not reach the kernel.
        self.write(
            function,
            function.path.join("driver_override"),
            driver.unwrap_or("\n"),
            "setting its driver_override",
        )
    }

    fn swap(&mut self, function: &Function, from: Option<&str>, to: Option<&str>) -> Result<()> {
        if let Some(driver) = to {
            self.set_driver_override(function, Some(driver))?;
        }
        if from.is_some() {
            self.release(function)?;
        }
        match to {
            Some(driver) => self.probe(function, driver),
            None => Ok(()),
        }
    }

    fn release(&mut self, function: &Function) -> Result<()> {
        let bdf = function.bdf.to_string();
        // Listed before the unbinding, because it removes the nodes.
        let users = if self.dry_run { Vec::new() } else { function.users() };
        let operation = match by(&users).as_str() {
            "" => "unbinding it from its driver".to_owned(),
            by => format!("unbinding it from its driver, although it is in use{by}"),
        };
        self.write(function, function.path.join("driver/unbind"), &bdf, &operation)?;
        let still = if self.dry_run { None } else { link_name(&function.path.join("driver"))? };
        match still {
            None => Ok(()),
            Some(driver) => Err(Error::unusable(
                bdf,
                format!("the kernel did not unbind it from {driver}: the kernel's log may say why (dmesg)"),
            )),
        }
    }

    fn probe(&mut self, function: &Function, driver: &str) -> Result<()> {
        let bdf = function.bdf.to_string();
        let operation = format!("binding it to {driver}");
        self.write(function, function.bus().join("drivers_probe"), &bdf, &operation)?;
        let is_bound = || Ok(link_name(&function.path.join("driver"))?.as_deref() == Some(driver));
        if self.dry_run || is_bound()? {
            return Ok(());
        }
        // A failed probe is not an error of that write. A write to the driver's `bind` repeats the probe and returns its
        // error.
        let bind = function.bus().join("drivers").join(driver).join("bind");
        let answer = self.write(function, bind, &bdf, &operation);
        if is_bound()? {
            return Ok(());
        }
        let source = match answer {
            Err(error) => error.into_os()?.1,
            Ok(()) => io::Error::from_raw_os_error(libc::ENODEV),
        };
        Err(Error::os(bdf, format!("{operation}: {}", refused(function, driver)), source))
    }

    /// Undoes a binding that failed with `error`, and adds the present binding to the error.
    fn restore_after(&mut self, function: &Function, former: &Binding, error: Error) -> Error {
        if error.kind() == ErrorKind::Timeout {
            // The kernel accepts this once it has finished, and continues by itself.
            self.deadline = self.deadline.min(Duration::from_secs(1));
            let _ = self.set_driver_override(function, former.driver_override.as_deref());
            return error.explained("; after that it will have no driver, and its former driver_override");
        }
        let undone = self.undo(function, former);
        let state = match &undone {
            Ok(now) if now == former => match &now.driver {
                Some(driver) => format!("it is bound to {driver}, as before"),
                None => "no driver is bound to it, as before".into(),
            },
            _ => {
                let now = match link_name(&function.path.join("driver")) {
                    Ok(Some(driver)) => format!("it is bound to {driver}"),
                    Ok(None) => "no driver is bound to it".into(),
                    Err(error) => format!("its driver is unknown ({error})"),
                };
                let why = undone.err().map_or(String::new(), |error| format!(" ({error})"));
                let before = former.driver.as_deref().unwrap_or("no driver");
                format!("{now} now, and {before} could not be restored{why}")
            }
        };
        match error.failure() {
            Failure::Os { .. } | Failure::Unusable { .. } => error.explained(&format!("; {state}")),
            _ => error,
        }
    }

    fn undo(&mut self, function: &Function, former: &Binding) -> Result<Binding> {
        let now = function.binding()?;
        if now.driver != former.driver {
            self.swap(function, now.driver.as_deref(), former.driver.as_deref())?;
        }
        if function.driver_override()? != former.driver_override {
            self.set_driver_override(function, former.driver_override.as_deref())?;
        }
        function.binding()
    }

    fn write(&mut self, function: &Function, path: PathBuf, value: &str, operation: &str) -> Result<()> {
        (self.observer)(&path, value);
        if self.dry_run {
            return Ok(());
        }
        (self.kernel)(&path, value, self.deadline).map_err(|e| {
            let device = function.bdf.to_string();
            let path = path.display();
            match e.kind() {
                io::ErrorKind::TimedOut => Error::timeout(device, format!(
                        "{operation}: the kernel has not finished the write to {path}, and continues: for VFIO until \
                         its user closes the device"
                    ), self.deadline),
                io::ErrorKind::PermissionDenied => {
                    Error::os(device, format!("{operation}: writing {path}: do it as root"), e)
                }
                _ => Error::os(device, format!("{operation}: writing {path}"), e),
            }
        })
    }

    fn check_driver_exists(&self, function: &Function, driver: &str) -> Result<()> {
        let path = function.bus().join("drivers").join(driver);
        if path.exists() {
            return Ok(());
        }
        Err(Error::unusable(
            function.bdf.to_string(),
            format!(
                "there is no PCI driver {driver} in the kernel ({}): as root: modprobe {driver}",
                path.display()
            ),
        ))
    }

    /// Refuses a function in use: unbinding a VFIO device waits for its user, and unbinding a UIO device removes it under
    /// its user.
    fn check_not_in_use(&self, function: &Function) -> Result<()> {
        let users = function.users();
        let waits = link_name(&function.path.join("driver"))?.is_some_and(|driver| is_vfio_driver(&driver));
        let reason = if waits && users.contains(&std::process::id()) {
            // The child that writes to sysfs would inherit this process's mappings, and VFIO would wait for that child.
            "this process has it open: drop all handles of it first".to_owned()
        } else if users.is_empty() || self.force {
            return Ok(());
        } else {
            format!("it is in use{}: end it first", by(&users))
        };
        Err(Error::unusable(function.bdf.to_string(), reason))
    }
}

/// The driver that handles only a function's interrupt and leaves the rest to user space.
const UIO: &str = "uio_pci_generic";

/// Returns the driver that the caller probably means: `driver` itself does not exist, and the name differs only by `-`
/// and `_`.
fn similar_driver(function: &Function, driver: &str) -> Option<String> {
    let there = |name: &str| function.bus().join("drivers").join(name).exists();
    let known = |name: &str| there(name) || name == "vfio-pci" || name == UIO;
    let others = [driver.replace('_', "-"), driver.replace('-', "_")];
    if there(driver) { None } else { others.into_iter().find(|name| name != driver && known(name)) }
}

/// Returns whether VFIO accepts functions without an IOMMU.
fn noiommu(function: &Function) -> bool {
    let parameter = function.sysfs().join("module/vfio/parameters/enable_unsafe_noiommu_mode");
    read(&parameter).is_ok_and(|text| matches!(text.trim(), "Y" | "1"))
}

/// Explains why an existing driver did not accept a function.
fn refused(function: &Function, driver: &str) -> String {
    let bdf: Bdf = function.bdf;
    let irq = read(&function.path.join("irq")).is_ok_and(|text| text.trim() == "0");
    let hint = match driver {
        "uio_pci_generic" if irq => "it has no INTx interrupt, which uio_pci_generic needs",
        "nvme" => "the controller does not answer, or is not an NVMe controller",
        _ if is_vfio_driver(driver) => "VFIO does not accept it",
        _ => "the driver does not accept it",
    };
    format!("{hint} (the kernel's log may say more: dmesg | grep {bdf})")
}

#[cfg(test)]
mod tests;
