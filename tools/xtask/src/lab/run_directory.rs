//! The directory of one run of the guest: the share, the disk images, the output of jobs.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::lab::devices::{DISKS, FAILING_DISK, PLACED_DISK, VIRTUAL_DISKS, ZONED_DISKS};

/// Directory of one run, removed when dropped.
#[derive(Debug)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    pub fn create() -> Result<Self> {
        let parent = std::env::temp_dir();
        remove_stale(&parent);
        // A process has several: guests run at the same time.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        let directory = Self(path);
        // The guest's plain user accesses the share as others, so the modes inside the private directory are
        // open.
        for (name, mode) in [("share", 0o755), ("share/out", 0o777)] {
            fs::create_dir(directory.path(name))?;
            fs::set_permissions(directory.path(name), fs::Permissions::from_mode(mode))?;
        }
        let more = [&FAILING_DISK, &PLACED_DISK].into_iter().chain(ZONED_DISKS).chain(VIRTUAL_DISKS);
        for (name, size) in DISKS.iter().chain(more) {
            File::create(directory.path(&format!("{name}.raw")))?.set_len(*size)?;
        }
        Ok(directory)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the path of a job's output file.
    pub fn out(&self, name: &str) -> PathBuf {
        self.path("share/out").join(name)
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PREFIX: &str = "upcie-guest-";

/// Removes directories of killed runs.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
