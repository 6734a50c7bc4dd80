//! Files that a user names, read as a whole: they may be endless or huge.

use crate::units;
use anyhow::{Context, ensure};
use std::{
    fs::{File, Metadata},
    io::Read,
    path::Path,
};

/// The most bytes of an input that a command can use.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    /// Number of bytes.
    pub bytes: u64,
    /// The thing that has no more bytes, and the way out: the end of "FILE is longer than 32 MiB, …".
    pub reason: &'a str,
}

/// Data of one command: the driver's own limit of a transfer. Most controllers take less.
pub const COMMAND: Limit<'static> =
    Limit { bytes: 32 << 20, reason: "the most that one command transfers: send it in parts" };

/// Reads a file, a pipe or a device to its end.
///
/// # Errors
/// It is longer than the limit, or can't be read.
pub fn read(path: &Path, limit: Limit<'_>) -> anyhow::Result<Vec<u8>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("reading {name}"))?;
    let known = file.metadata().ok().filter(Metadata::is_file).map_or(0, |file| file.len());
    check(&name, known, limit)?;
    read_from(file, &name, limit)
}

/// Reads a source to its end; `name` is its name in messages.
///
/// # Errors
/// Those of [`read`].
pub fn read_from(source: impl Read, name: &str, limit: Limit<'_>) -> anyhow::Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut source = source.take(limit.bytes.saturating_add(1));
    source.read_to_end(&mut data).with_context(|| format!("reading {name}"))?;
    check(name, data.len() as u64, limit)?;
    Ok(data)
}

fn check(name: &str, len: u64, limit: Limit<'_>) -> anyhow::Result<()> {
    ensure!(len <= limit.bytes, "{name} is longer than {}, {}", units::bytes(limit.bytes), limit.reason);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io};

    const LIMIT: Limit<'static> = Limit { bytes: 4096, reason: "the most of a test" };

    #[test]
    fn an_endless_file_ends_at_the_limit() {
        let error = read(Path::new("/dev/zero"), LIMIT).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero is longer than 4 KiB, the most of a test");
        let error = read_from(io::repeat(7), "stdin", LIMIT).unwrap_err().to_string();
        assert_eq!(error, "stdin is longer than 4 KiB, the most of a test");
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let path = std::env::temp_dir().join(format!("upcie-input-{}", std::process::id()));
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read(&path, COMMAND).unwrap_err().to_string();
        assert!(error.contains("is longer than 32 MiB, the most that one command transfers"), "{error}");
        for len in [0, 1, 4095, 4096] {
            fs::write(&path, vec![7; len]).unwrap();
            assert_eq!(read(&path, LIMIT).unwrap(), vec![7; len]);
        }
        fs::write(&path, [7; 4097]).unwrap();
        read(&path, LIMIT).unwrap_err();
        fs::remove_file(&path).unwrap();
        let error = format!("{:#}", read(&path, LIMIT).unwrap_err());
        assert!(error.contains("upcie-input"), "{error}");
    }
}
