//! The files of a function by which the kernel opens, enables and resets it.

use super::check::{DRIVER, failed};
use crate::{
    Error, Result,
    process::{Owner, write_within},
};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    time::Duration,
};

/// Deadline for the kernel to enable, disable or reset a function: the kernel itself waits up to 60 s after a reset.
const SETUP: Duration = Duration::from_secs(70);

/// Opens the function's `/dev/uioN`.
pub(super) fn open_uio(name: &str, function: &Path) -> Result<File> {
    let directory = function.join("uio");
    let failed_to = |e| failed(name, &format!("looking for its device in {}", directory.display()), e);
    let node = fs::read_dir(&directory).map_err(failed_to)?.flatten().next().ok_or_else(|| {
        Error::unusable(name, format!("{} names no device: bind it to {DRIVER} again", directory.display()))
    })?;
    let path = Path::new("/dev").join(node.file_name());
    let open = OpenOptions::new().read(true).write(true).open(&path);
    open.map_err(|e| failed(name, &format!("opening {}", path.display()), e))
}

/// A function without a driver whose power and memory accesses were enabled through sysfs.
pub(super) struct Enabled {
    name: String,
    path: PathBuf,
    owner: Owner,
}

impl Enabled {
    pub(super) fn new(name: &str, function: &Path) -> Result<Self> {
        let path = function.join("enable");
        let failed = |e| failed(name, "enabling it (sysfs `enable`)", e);
        // `enable` is a count, which a killed process leaves at 1.
        if fs::read_to_string(&path).map_err(failed)?.trim() == "0" {
            write_within(&path, "1", SETUP).map_err(failed)?;
        }
        Ok(Self { name: name.into(), path, owner: Owner::current() })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            return;
        }
        match write_within(&self.path, "0", SETUP) {
            // The function was removed, or a driver that owns it now was bound.
            Err(e) if !self.path.exists() || e.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => tracing::warn!(device = self.name, %error, "disabling it (sysfs `enable`)"),
            Ok(()) => {}
        }
    }
}

/// Makes the kernel reset the function.
pub(super) fn reset(name: &str, function: &Path) -> Result<()> {
    let path = function.join("reset");
    if !path.exists() {
        return Err(Error::unsupported(
            name,
            "resetting it",
            "the kernel can't reset this function alone (see reset_method in sysfs)",
        ));
    }
    write_within(&path, "1", SETUP).map_err(|e| failed(name, "resetting it", e))
}
