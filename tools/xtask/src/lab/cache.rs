//! The cache: whatever takes long to make is made once, under a lock, and kept outside the source tree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::say;

/// The cache's directory, locked: one preparation at a time.
#[derive(Debug)]
pub struct Cache {
    pub path: PathBuf,
    /// The lock goes with the file, or with this process.
    _lock: File,
}

impl Cache {
    /// Creates the directory if there is none, and waits for the lock.
    pub fn lock() -> Result<Self> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        let path = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("upcie-lab");
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join("lock"))?;
        if lock.try_lock().is_err() {
            say!("waiting for another preparation");
            lock.lock()?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// A place to prepare something in, to be renamed when it is whole. A killed preparation's remains are removed.
    pub fn scratch(&self, name: &str) -> Result<Scratch> {
        Scratch::create(self.path.join(name))
    }
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates it, empty.
    pub fn create(path: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
