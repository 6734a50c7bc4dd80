//! Records of the drivers that functions had before devbind changed them: one file each, until it is
//! restored.

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use upcie_core::pci::{Bdf, Binding, Function};

/// Default directory. It is empty after a boot, like the bindings.
pub const DIRECTORY: &str = "/run/upcie/devbind";

/// Driver of a function at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Ids of the device at the address, to notice another one.
    vendor: u16,
    device: u16,
    driver: Option<String>,
    driver_override: Option<String>,
}

impl Record {
    /// Reads the current state of `function`.
    pub fn now(function: &Function) -> anyhow::Result<Self> {
        let Binding { driver, driver_override } = function.binding()?;
        Ok(Self { vendor: function.vendor, device: function.device, driver, driver_override })
    }

    pub fn binding(&self) -> Binding {
        Binding { driver: self.driver.clone(), driver_override: self.driver_override.clone() }
    }

    /// Returns true if the record was made for the device that is at the address now.
    pub fn is_for(&self, function: &Function) -> bool {
        (self.vendor, self.device) == (function.vendor, function.device)
    }
}

/// Value of VFIO's no-IOMMU parameter before this program changed it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameter {
    value: String,
}

/// Directory of the records.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// Held while this program runs; `None` in a dry run, which changes nothing.
    _lock: Option<Flock<File>>,
}

impl State {
    /// Opens the directory, and locks it against other runs.
    pub fn open(directory: &Path, dry_run: bool) -> anyhow::Result<Self> {
        let lock = if dry_run { None } else { Some(lock(directory)?) };
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    fn path(&self, bdf: Bdf) -> PathBuf {
        self.directory.join(format!("{bdf}.json"))
    }

    /// Returns the path of the no-IOMMU parameter's record.
    fn parameter(&self) -> PathBuf {
        self.directory.join("noiommu.json")
    }

    /// Reads the record of a function.
    pub fn record(&self, bdf: Bdf) -> anyhow::Result<Option<Record>> {
        load(&self.path(bdf))
    }

    /// Stores `record` unless the function has one: the first one counts. Returns true if it was stored.
    pub fn keep(&self, function: &Function, record: &Record) -> anyhow::Result<bool> {
        match self.record(function.bdf)? {
            Some(old) if old.is_for(function) => Ok(false),
            // The old record is of a device that is gone.
            _ => store(&self.path(function.bdf), record).map(|()| true),
        }
    }

    pub fn forget(&self, bdf: Bdf) -> anyhow::Result<()> {
        remove(&self.path(bdf))
    }

    /// Lists the functions that have a record, by address.
    pub fn functions(&self) -> anyhow::Result<Vec<Bdf>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", self.directory.display())),
        };
        let names = entries.collect::<io::Result<Vec<_>>>()?;
        let bdf = |name: &str| name.strip_suffix(".json")?.parse().ok();
        let mut found: Vec<Bdf> = names.iter().filter_map(|entry| bdf(entry.file_name().to_str()?)).collect();
        found.sort();
        Ok(found)
    }

    /// Stores the old value of the no-IOMMU parameter unless one is stored already.
    pub fn keep_parameter(&self, value: &str) -> anyhow::Result<()> {
        match load::<Parameter>(&self.parameter())? {
            Some(_) => Ok(()),
            None => store(&self.parameter(), &Parameter { value: value.into() }),
        }
    }

    /// Returns the old value of the no-IOMMU parameter, if this program has changed it.
    pub fn parameter_before(&self) -> anyhow::Result<Option<String>> {
        Ok(load::<Parameter>(&self.parameter())?.map(|parameter| parameter.value))
    }

    pub fn forget_parameter(&self) -> anyhow::Result<()> {
        remove(&self.parameter())
    }
}

fn lock(directory: &Path) -> anyhow::Result<Flock<File>> {
    let shown = directory.display();
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.map_err(as_root).with_context(|| format!("creating {shown}"))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o644).open(directory.join("lock"));
    let file = file.map_err(as_root).with_context(|| format!("opening {shown}/lock"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another devbind is running (it holds {shown}/lock)")
        }
        Err((_, e)) => Err(e).with_context(|| format!("locking {shown}/lock")),
    }
}

/// Adds advice to a permission error.
pub fn as_root(error: io::Error) -> anyhow::Error {
    let hint = error.kind() == io::ErrorKind::PermissionDenied;
    let error = anyhow::Error::new(error);
    if hint { error.context("this must be done as root") } else { error }
}

fn load<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} is not a valid record: remove it", path.display()))
}

/// Writes a file so that a reader finds all of it or none, even after a crash.
fn store<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let new = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, value)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(as_root).with_context(|| format!("writing {}", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(as_root(e)).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("devbind-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let path = directory("record");
        let state = State::open(&path, false).unwrap();
        let bdf = "0000:01:00.0".parse().unwrap();
        assert_eq!(state.record(bdf).unwrap(), None);
        let record =
            Record { vendor: 0x1b36, device: 16, driver: Some("nvme".into()), driver_override: None };
        store(&state.path(bdf), &record).unwrap();
        assert_eq!(state.record(bdf).unwrap(), Some(record));
        assert_eq!(state.functions().unwrap(), [bdf], "neither the lock nor other files");
        for broken in ["", "{}", "{\"driver\":3}", "[1,2"] {
            fs::write(state.path(bdf), broken).unwrap();
            let error = format!("{:#}", state.record(bdf).unwrap_err());
            assert!(error.contains("0000:01:00.0.json") && error.contains("remove it"), "{error}");
        }
        state.forget(bdf).unwrap();
        state.forget(bdf).unwrap();
        assert!(state.functions().unwrap().is_empty());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_first_value_of_the_parameter_is_kept() {
        let path = directory("parameter");
        let state = State::open(&path, false).unwrap();
        assert_eq!(state.parameter_before().unwrap(), None);
        state.keep_parameter("N").unwrap();
        state.keep_parameter("Y").unwrap();
        assert_eq!(state.parameter_before().unwrap().as_deref(), Some("N"));
        assert!(state.functions().unwrap().is_empty());
        state.forget_parameter().unwrap();
        assert_eq!(state.parameter_before().unwrap(), None);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_second_devbind_at_a_time_is_refused() {
        let path = directory("lock");
        let first = State::open(&path, false).unwrap();
        let error = State::open(&path, false).unwrap_err().to_string();
        assert!(error.contains("another devbind"), "{error}");
        State::open(&path, true).unwrap();
        drop(first);
        State::open(&path, false).unwrap();
        fs::remove_dir_all(path).unwrap();
    }
}
