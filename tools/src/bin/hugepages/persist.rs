//! Permanent settings: files that the system reads at boot.

use anyhow::{Context, bail};
use clap::Args;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Options of a change that can be made permanent.
#[derive(Debug, Default, Args)]
pub struct Persistence {
    /// Make the change permanent: write a file that the system reads at each boot, and show it
    #[arg(long)]
    persist: bool,
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Write below DIR, the root of another system, and leave the running one alone
    #[arg(long, value_name = "DIR", hide = true, requires = "persist")]
    root: Option<PathBuf>,
}

impl Persistence {
    /// Returns true if the running system is to be changed.
    pub fn is_running_system(&self) -> bool {
        self.root.is_none()
    }

    /// Writes `drop_in` if --persist asks for it; returns the message. `failed` makes the context of an
    /// error.
    pub fn apply(&self, drop_in: &DropIn, failed: impl FnOnce() -> String) -> anyhow::Result<String> {
        match (self.persist, self.dry_run) {
            (true, true) => Ok(drop_in.show("would write")),
            (true, false) => {
                drop_in.write(self.root.as_deref().unwrap_or(Path::new("/"))).with_context(failed)?;
                Ok(drop_in.show("at each boot, by"))
            }
            (false, true) => Ok(String::new()),
            (false, false) => Ok("This lasts until the next boot; --persist makes it permanent.\n".into()),
        }
    }
}

/// A file in a directory that the system reads at boot.
#[derive(Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Absolute path.
    pub path: PathBuf,
    pub text: String,
    /// Command that activates the file.
    pub enable: Option<String>,
}

impl DropIn {
    /// Makes a systemd unit.
    pub fn unit(name: &str, text: String) -> Self {
        let path = Path::new("/etc/systemd/system").join(name);
        // Names that systemd has escaped contain backslashes.
        let enable = format!("systemctl daemon-reload && systemctl enable '{name}'");
        Self { path, text, enable: Some(enable) }
    }

    /// Formats the file for a message that begins with `what`.
    pub fn show(&self, what: &str) -> String {
        let mut text = format!("{what} {}:\n", self.path.display());
        for line in self.text.lines() {
            let _ = writeln!(text, "    {line}");
        }
        if let Some(enable) = &self.enable {
            let _ = writeln!(text, "and as root: {enable}");
        }
        text
    }

    /// Writes the file below `root`.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        if self.enable.is_some() && !has_systemd(root) {
            bail!(
                "this system has no systemd to read {}: run this command from a boot script instead",
                self.path.display()
            );
        }
        let path = below(root, &self.path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        }
        fs::write(&path, &self.text).with_context(|| format!("writing {} (only root may)", path.display()))
    }
}

fn has_systemd(root: &Path) -> bool {
    ["usr/lib/systemd/systemd", "lib/systemd/systemd"].iter().any(|file| root.join(file).exists())
}

/// Moves an absolute path below `root`.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Escapes a path for the name of a systemd unit (systemd.unit(5), "String escaping for inclusion in unit
/// names").
pub fn escape(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let parts = path.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    let joined = parts.collect::<Vec<_>>().join(&b'/');
    if joined.is_empty() {
        return "-".into();
    }
    let mut name = String::new();
    for (index, &byte) in joined.iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b':' | b'_' | b'.' => name.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            byte => {
                let _ = write!(name, "\\x{byte:02x}");
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_escaped_as_systemd_does() {
        for (path, name) in [
            ("/dev/hugepages1G", "dev-hugepages1G"),
            ("/mnt/huge-2M/", "mnt-huge\\x2d2M"),
            ("/.a/.b c", "\\x2ea-.b\\x20c"),
            ("/", "-"),
            ("/a//b", "a-b"),
        ] {
            assert_eq!(escape(Path::new(path)), name, "{path}");
        }
    }
}
