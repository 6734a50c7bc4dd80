//! Making a setting last: files that the system reads when it boots.

use anyhow::{Context, bail};
use clap::Args;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Whether a change is to last, or to be made at all.
#[derive(Debug, Default, Args)]
pub struct Lasting {
    /// Make it last: write the file that does it at each boot, and show it
    #[arg(long)]
    persist: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Write below DIR, another system's root, and leave the running one alone
    #[arg(long, value_name = "DIR", hide = true, requires = "persist")]
    root: Option<PathBuf>,
}

impl Lasting {
    /// Whether the running system is meant.
    pub fn is_here(&self) -> bool {
        self.root.is_none()
    }

    /// Writes `drop_in` if that is wanted; what to say about it. `failed` is said when it can't be written.
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

/// A file of our own in a directory that the system reads at boot.
#[derive(Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Its absolute path.
    pub path: PathBuf,
    pub text: String,
    /// The command that makes it count.
    pub enable: Option<String>,
}

impl DropIn {
    /// A systemd unit.
    pub fn unit(name: &str, text: String) -> Self {
        let path = Path::new("/etc/systemd/system").join(name);
        // Escapes of systemd's have backslashes.
        let enable = format!("systemctl daemon-reload && systemctl enable '{name}'");
        Self { path, text, enable: Some(enable) }
    }

    /// The file as text, for `what` is said of it.
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

    /// Writes it below `root`.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        if self.enable.is_some() && !has_systemd(root) {
            bail!(
                "this system has no systemd to read {}: run the same command from whatever runs at boot",
                self.path.display()
            );
        }
        let path = below(root, &self.path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        fs::write(&path, &self.text).with_context(|| format!("writing {} (only root may)", path.display()))
    }
}

fn has_systemd(root: &Path) -> bool {
    ["usr/lib/systemd/systemd", "lib/systemd/systemd"].iter().any(|file| root.join(file).exists())
}

/// An absolute path in the system below `root`.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A path in the name of a systemd unit (systemd.unit(5), "String escaping for inclusion in unit names").
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
