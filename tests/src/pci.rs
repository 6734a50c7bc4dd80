//! PCI functions in sysfs, for suites that change which driver has one.

use crate::deadline;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use upcie_core::pci::{Bdf, Binder, Binding, Function};
use upcie_nvme::Controller;

/// A function that a suite binds to other drivers. Dropping this gives it back to its first driver.
#[derive(Debug)]
pub struct Borrowed {
    function: Function,
    binding: Binding,
}

impl Borrowed {
    /// Remembers a function's driver.
    ///
    /// # Panics
    /// Panics if there is no such function.
    pub fn take(bdf: Bdf) -> Self {
        let function = Function::at(bdf).unwrap();
        let binding = function.binding().unwrap();
        Self { function, binding }
    }

    /// Binds the function to another driver.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn bind(&self, driver: &str) {
        Binder::new().bind(&self.function, driver).unwrap();
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        match Binder::new().restore(&self.function, &self.binding) {
            Err(error) if thread::panicking() => eprintln!("{error:?}"),
            result => result.unwrap(),
        }
    }
}

/// Opens a controller that the kernel's VFIO drives, for a suite whose tests take turns on it.
///
/// # Panics
/// Panics outside of the guest, or if there is no such controller.
pub fn take_turn(bdf: &str, check: impl FnOnce(Controller)) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(crate::in_guest(), "guest_ suites run in the guest only");
    let function = Function::at(bdf.parse().unwrap()).unwrap();
    if function.driver.as_deref() != Some("vfio-pci") {
        Binder::new().bind(&function, "vfio-pci").unwrap();
    }
    check(Controller::open(format!("vfio:{bdf}")).unwrap());
}

/// Waits for the block device that the kernel's driver makes of a namespace, and returns its path.
///
/// # Panics
/// Panics if it does not appear within the deadline.
pub fn kernel_disk(bdf: Bdf, nsid: u32) -> PathBuf {
    let end = Instant::now() + deadline();
    // The kernel scans by itself and gives no event but the node.
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

/// Returns the name of the disk: nvme1n2 for nvme1c0n2, one path of a namespace with several paths.
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
