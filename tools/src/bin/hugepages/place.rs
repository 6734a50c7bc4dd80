//! The directory of a mount: its name is resolved once, and then it is held open.

use anyhow::{Context, bail, ensure};
use nix::fcntl::OFlag;
use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io::ErrorKind,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

/// Returns a path without links and `..`. Its last directories need not exist.
///
/// # Errors
/// A link leads nowhere, or `..` stands behind a directory that does not exist.
pub fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let (mut existing, mut missing): (&Path, Vec<&OsStr>) = (path.as_path(), Vec::new());
    loop {
        match fs::canonicalize(existing) {
            Ok(real) => return Ok(missing.into_iter().rev().fold(real, |real, name| real.join(name))),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| existing.display().to_string()),
        }
        if fs::symlink_metadata(existing).is_ok() {
            bail!(
                "{} is a link to a directory that does not exist: create that one first",
                existing.display()
            );
        }
        let (Some(name), Some(parent)) = (existing.file_name(), existing.parent()) else {
            bail!("{} does not exist: give the path without `..`", existing.display());
        };
        missing.push(name);
        existing = parent;
    }
}

/// Returns an absolute path of another system, whose links can't be resolved here.
///
/// # Errors
/// It has `..`, which a mount unit may not have.
pub fn of_another_system(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let is_plain = !path.components().any(|part| part == Component::ParentDir);
    ensure!(is_plain, "{} has `..`, and a mount unit may not: give the path without it", path.display());
    // Without a slash at the end.
    Ok(path.components().collect())
}

/// A directory that is open: whatever other processes do to its name meanwhile, it stays the same directory.
#[derive(Debug)]
pub struct Place {
    /// Its path, resolved.
    pub path: PathBuf,
    file: File,
}

impl Place {
    /// Opens the directory at a [resolved](resolve) path; `None` if there is none.
    ///
    /// # Errors
    /// The path leads to something else, or somewhere else than when it was resolved.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == ErrorKind::NotADirectory => {
                bail!("{} is not a directory", path.display());
            }
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let place = Self { path: path.to_owned(), file };
        let there = fs::read_link(place.handle()).context("asking /proc for the path of a descriptor")?;
        ensure!(
            there == path,
            "{} became a link to {} in the meantime: somebody else changes its parent directories, so mount \
             elsewhere",
            path.display(),
            there.display()
        );
        Ok(Some(place))
    }

    /// Creates the directory and its parents, and opens it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and of the system.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| {
            let hint = if nix::unistd::Uid::effective().is_root() { "" } else { " (only root may)" };
            format!("creating {}{hint}", path.display())
        })?;
        Self::open(path)?.with_context(|| format!("{} was removed in the meantime", path.display()))
    }

    /// Returns a path that leads to this directory, not to what now has its name.
    pub fn handle(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Returns the directory's metadata.
    ///
    /// # Errors
    /// The system's errors.
    pub fn metadata(&self) -> anyhow::Result<Metadata> {
        self.file.metadata().with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory that is removed at the end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hugepages-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_and_parents_are_resolved_once() {
        let dir = Dir::new("resolve");
        let at = |path: &str| dir.0.join(path);
        fs::create_dir_all(at("real/inner")).unwrap();
        symlink("real/inner", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        for (typed, path) in [
            ("real", "real"),
            ("link", "real/inner"),
            // The parent of the link's target, as the kernel has it.
            ("link/..", "real"),
            ("link/../new", "real/new"),
            ("link/a/b", "real/inner/a/b"),
        ] {
            assert_eq!(resolve(&at(typed)).unwrap(), at(path), "{typed}");
        }
        for (typed, part) in [
            ("dangling", "is a link to a directory that does not exist"),
            ("dangling/new", "is a link to a directory that does not exist"),
            ("missing/../real", "without `..`"),
        ] {
            let error = resolve(&at(typed)).unwrap_err().to_string();
            assert!(error.contains(part), "{typed}: {error}");
        }
        assert!(of_another_system(Path::new("/mnt/../huge")).unwrap_err().to_string().contains("`..`"));
        assert_eq!(of_another_system(Path::new("/mnt/./huge/")).unwrap(), Path::new("/mnt/huge"));
    }

    #[test]
    fn a_name_that_changes_its_meaning_is_refused() {
        let dir = Dir::new("swapped");
        let at = |path: &str| dir.0.join(path);
        fs::create_dir_all(at("parent/huge")).unwrap();
        fs::create_dir_all(at("other/huge")).unwrap();
        let path = resolve(&at("parent/huge")).unwrap();
        let place = Place::open(&path).unwrap().unwrap();
        // Another user replaces the parent by a link.
        fs::rename(at("parent"), at("moved")).unwrap();
        symlink("other", at("parent")).unwrap();
        let error = Place::open(&path).unwrap_err().to_string();
        assert!(error.contains("became a link to") && error.contains("other/huge"), "{error}");
        // The open one is still the directory that was checked.
        assert_eq!(fs::canonicalize(place.handle()).unwrap(), at("moved/huge"));
        assert!(Place::open(&at("none")).unwrap().is_none());
        fs::write(at("file"), "").unwrap();
        let error = Place::open(&at("file")).unwrap_err().to_string();
        assert!(error.contains("not a directory"), "{error}");
    }
}
