//! A cache outside the source tree for files that take long to make. They are made once, under a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::log;

/// The locked directory of the cache; the lock allows one preparation at a time.
#[derive(Debug)]
pub struct Cache {
    pub path: PathBuf,
    /// The lock ends with the file or with this process.
    _lock: File,
}

impl Cache {
    /// Creates the directory if necessary, and waits for the lock.
    pub fn lock() -> Result<Self> {
        let absolute =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        let path = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("upcie-lab");
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join("lock"))?;
        if lock.try_lock().is_err() {
            log!("waiting for another preparation");
            lock.lock()?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Makes a directory for an unfinished preparation, which is renamed when complete. Removes the remains
    /// of a killed one.
    pub fn scratch(&self, name: &str) -> Result<Scratch> {
        Scratch::create(self.path.join(name))
    }
}

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates the directory, empty.
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
