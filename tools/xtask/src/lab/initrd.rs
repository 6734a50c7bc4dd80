//! Writes initramfs archives (cpio "newc") without the program cpio, and without root for device nodes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const CONSOLE: u32 = 0o020_600;
const FILE: u32 = 0o100_000;

#[derive(Debug)]
struct Entry {
    mode: u32,
    data: Vec<u8>,
}

/// Files by their path in the guest, without the leading slash.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds a file and its parent directories.
    pub fn add(&mut self, path: &str, executable: bool, data: impl Into<Vec<u8>>) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let directory = Entry { mode: DIRECTORY, data: Vec::new() };
            self.entries.entry(path[..end].to_owned()).or_insert(directory);
        }
        let mode = FILE | if executable { 0o755 } else { 0o644 };
        self.entries.insert(path.to_owned(), Entry { mode, data: data.into() });
    }

    /// Adds a file of this machine.
    pub fn add_file(&mut self, path: &str, executable: bool, from: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(path, executable, data);
        Ok(())
    }

    /// Returns true if the archive has an entry with this path.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// Adds the console; without it init has no output.
    pub fn add_console(&mut self) {
        self.add("dev/console", false, []);
        if let Some(entry) = self.entries.get_mut("dev/console") {
            entry.mode = CONSOLE;
        }
    }

    /// Writes the archive. The kernel accepts several archives in a row.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (inode, (path, entry)) in self.entries.iter().enumerate() {
            header(out, inode + 1, path, entry)?;
        }
        header(out, 0, "TRAILER!!!", &Entry { mode: 0, data: Vec::new() })
    }
}

fn header(out: &mut impl Write, inode: usize, path: &str, entry: &Entry) -> io::Result<()> {
    let (major, minor) = if entry.mode == CONSOLE { (5, 1) } else { (0, 0) };
    let size =
        u32::try_from(entry.data.len()).map_err(|_| io::Error::other(format!("{path} is over 4 GiB")))?;
    // ino, mode, uid, gid, nlink, mtime, size, device, number of the device node, name size, checksum.
    write!(
        out,
        "070701{inode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{:08x}{:08x}",
        entry.mode,
        0,
        0,
        1,
        0,
        0,
        0,
        path.len() + 1,
        0
    )?;
    out.write_all(path.as_bytes())?;
    // The name ends with one zero byte at least. Header with name, and data, are padded to 4 bytes.
    out.write_all(&[0; 4][..4 - (110 + path.len()) % 4])?;
    out.write_all(&entry.data)?;
    out.write_all(&[0; 3][..entry.data.len().wrapping_neg() % 4])
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_have_parents() {
        let mut archive = Archive::default();
        archive.add("/payload/bin/tool", true, "12345");
        archive.add_console();
        let mut bytes = Vec::new();
        archive.write(&mut bytes).expect("a vector takes everything");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("all of it is text");
        let names: Vec<_> = text
            .match_indices("070701")
            .map(|(at, _)| {
                assert_eq!(at % 4, 0);
                text[at + 110..].split('\0').next().expect("a name")
            })
            .collect();
        assert_eq!(names, ["dev", "dev/console", "payload", "payload/bin", "payload/bin/tool", "TRAILER!!!"]);
        assert!(archive.contains("/payload/bin/tool"));
    }
}
