//! PCI functions in sysfs, for suites that change which driver has one.

use crate::deadline;
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use upcie_core::pci::{Bdf, Function};

/// Gives a function back to the driver that it had, when dropped.
#[derive(Debug)]
pub struct Binding {
    bdf: Bdf,
    driver: Option<String>,
    over: String,
}

impl Binding {
    /// Of a function as it is bound now.
    ///
    /// # Panics
    /// When there is no such function.
    pub fn of(bdf: Bdf) -> Self {
        let function = Function::at(bdf).unwrap_or_else(|error| panic!("{error}"));
        let over = fs::read_to_string(function.path.join("driver_override")).expect("driver_override");
        Self { bdf, driver: function.driver, over: over.trim().to_owned() }
    }

    /// Binds it to another driver, or to none.
    ///
    /// # Panics
    /// When that fails.
    pub fn to(&self, driver: Option<&str>) {
        bind(self.bdf, driver, driver.unwrap_or("none"))
            .unwrap_or_else(|error| panic!("{}: {error}", self.bdf));
    }

    /// Gives it back now.
    ///
    /// # Panics
    /// When that fails.
    pub fn restore(self) {
        drop(self);
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let result = bind(self.bdf, self.driver.as_deref(), &self.over);
        match result {
            Err(error) if thread::panicking() => eprintln!("{}: {error}", self.bdf),
            result => result.unwrap_or_else(|error| panic!("{}: {error}", self.bdf)),
        }
    }
}

/// Binds a function to `driver`, or to none, and leaves `over` as its driver_override.
fn bind(bdf: Bdf, driver: Option<&str>, over: &str) -> Result<(), String> {
    let path = Path::new("/sys/bus/pci/devices").join(bdf.to_string());
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("writing {text:?} to {}: {error}", path.display()))
    };
    let now = || Function::at(bdf).map(|function| function.driver).map_err(|error| error.to_string());
    if now()?.as_deref() != driver {
        if now()?.is_some() {
            write(&path.join("driver/unbind"), &bdf.to_string())?;
        }
        // A name that no driver has keeps all of them away.
        write(&path.join("driver_override"), driver.unwrap_or("none"))?;
        if driver.is_some() {
            write(Path::new("/sys/bus/pci/drivers_probe"), &bdf.to_string())?;
        }
        if now()?.as_deref() != driver {
            return Err(format!("{:?} has it instead of {driver:?}", now()?));
        }
    }
    // An empty line takes the override away.
    write(&path.join("driver_override"), &format!("{}\n", if over == "(null)" { "" } else { over }))
}

/// The block device that the kernel's driver made of a namespace, once it has.
///
/// # Panics
/// When it does not appear within the deadline.
pub fn kernel_disk(bdf: Bdf, nsid: u32) -> PathBuf {
    let end = Instant::now() + deadline();
    // The kernel scans by itself, and has nothing to wait for but the node.
    while Instant::now() < end {
        if let Some(node) = find_disk(bdf, nsid).filter(|node| node.exists()) {
            return node;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("no block device for namespace {nsid} of {bdf} within {:?}", deadline());
}

fn find_disk(bdf: Bdf, nsid: u32) -> Option<PathBuf> {
    let read = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for controller in read(&Path::new("/sys/bus/pci/devices").join(bdf.to_string()).join("nvme")) {
        for disk in read(&controller) {
            let id = fs::read_to_string(disk.join("nsid")).unwrap_or_default();
            if id.trim() == nsid.to_string() {
                return Some(Path::new("/dev").join(node_name(disk.file_name()?.to_str()?)));
            }
        }
    }
    None
}

/// Of a namespace that may have several paths, nvme1c0n2 is one path and nvme1n2 the disk.
fn node_name(path: &str) -> String {
    match (path.rfind('c'), path.rfind('n')) {
        (Some(from), Some(to)) if from < to => [&path[..from], &path[to..]].concat(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::node_name;

    #[test]
    fn a_path_of_a_namespace_belongs_to_its_disk() {
        assert_eq!(node_name("nvme1c0n2"), "nvme1n2");
        assert_eq!(node_name("nvme0n1"), "nvme0n1");
        assert_eq!(node_name("nvme10c11n12"), "nvme10n12");
    }
}
