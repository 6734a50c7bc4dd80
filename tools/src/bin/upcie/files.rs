//! Input and output files of a command: compares them by identity instead of by name, and replaces a file
//! only when there is new content.

use crate::{
    input::{self, Limit},
    target::Target,
};
use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
    libc,
};
use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};
use upcie_nvme::Address;
use upcie_tools::stdio;

/// Number of symbolic links that are followed, the same as in the kernel.
const MOST_LINKS: usize = 40;

/// Source or destination of data.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A file by its path.
    Path(&'a Path),
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
}

impl<'a> Place<'a> {
    /// Interprets an input argument: `-` is standard input.
    pub fn input(path: &'a Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::Path(path) }
    }

    /// Interprets an output argument: `-` is standard output, and so is any path that leads there, such as
    /// /dev/stdout or /proc/self/fd/1.
    pub fn output(path: &'a Path) -> Self {
        let is_stdout = path == Path::new("-")
            || Id::of(Self::Path(path)).is_some_and(|id| Id::of(Self::Stdout) == Some(id));
        if is_stdout { Self::Stdout } else { Self::Path(path) }
    }
}

/// Reads an input argument to its end; returns its name in messages, and its bytes.
///
/// # Errors
/// It is longer than the limit, or can't be read.
pub fn read_input(path: &Path, limit: Limit<'_>) -> anyhow::Result<(String, Vec<u8>)> {
    match Place::input(path) {
        Place::Path(path) => Ok((path.display().to_string(), input::read(path, limit)?)),
        _ => Ok(("stdin".into(), input::read_from(io::stdin(), "stdin", limit)?)),
    }
}

/// A file that a command uses.
#[derive(Debug)]
pub struct Use {
    /// Name in messages.
    name: String,
    writes: bool,
    id: Option<Id>,
}

impl Use {
    /// Describes the use of a file that is read.
    pub fn reads(name: impl Into<String>, place: Place<'_>) -> Self {
        Self { name: name.into(), writes: false, id: Id::of(place) }
    }

    /// Describes the use of a file that is written.
    pub fn writes(name: impl Into<String>, place: Place<'_>) -> Self {
        Self { name: name.into(), writes: true, id: Id::of(place) }
    }

    /// Describes the use of an embedded controller's data file; `None` if it has none.
    pub fn media(target: &Target, writes: bool) -> Option<Self> {
        let Address::Emulated(options) = &target.address else { return None };
        let file = options.file.as_ref()?;
        let name = format!("the file of {}", target.address);
        Some(Self { name, writes, id: Id::of(Place::Path(file)) })
    }
}

/// Checks that no written file is used a second time, even through hard links, symbolic links or /dev/stdout.
///
/// # Errors
/// Two of the files are the same, and at least one use writes.
pub fn check_distinct(uses: &[Use]) -> anyhow::Result<()> {
    for (i, one) in uses.iter().enumerate() {
        let same = |other: &&Use| one.id.is_some() && one.id == other.id && (one.writes || other.writes);
        if let Some(other) = uses[i + 1..].iter().find(same) {
            bail!("{} and {} are the same file; nothing was changed", one.name, other.name);
        }
    }
    Ok(())
}

/// Checks that the name of an SVG file has no other suffix.
///
/// # Errors
/// Fails if the name has a suffix other than `.svg`.
pub fn check_is_svg(option: &str, path: &Path) -> anyhow::Result<()> {
    match path.extension() {
        Some(suffix) if !suffix.eq_ignore_ascii_case("svg") => bail!(
            "{option} {}: the image is SVG: name it {} (browsers show it, `rsvg-convert` converts it to PNG)",
            path.display(),
            path.with_extension("svg").display()
        ),
        _ => Ok(()),
    }
}

/// Identity of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    /// A file, pipe or socket: its file system and inode.
    Inode(u64, u64),
    /// A device: true for a block device, and its number. It may have several nodes.
    Device(bool, u64),
    /// A file that does not exist yet: its future path.
    Absent(PathBuf),
}

impl Id {
    /// Finds the identity of a place; `None` if it is unknown, or is /dev/null, which any number of uses may
    /// share.
    fn of(place: Place<'_>) -> Option<Self> {
        match place {
            Place::Stdin => Self::of_file(&metadata(io::stdin()).ok()?),
            Place::Stdout => Self::of_file(&metadata(io::stdout()).ok()?),
            Place::Path(path) => Self::of_path(path),
        }
    }

    fn of_path(path: &Path) -> Option<Self> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            match fs::metadata(&path) {
                Ok(file) => return Self::of_file(&file),
                Err(error) if error.kind() != ErrorKind::NotFound => return None,
                Err(_) => {}
            }
            // Opening a dangling symbolic link creates the file that it points to.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()?;
            match fs::read_link(&path) {
                Ok(to) => path = parent.join(to),
                Err(_) => return Some(Self::Absent(parent.join(path.file_name()?))),
            }
        }
        None
    }

    fn of_file(file: &Metadata) -> Option<Self> {
        let kind = file.file_type();
        let null = kind.is_char_device() && file.rdev() == libc::makedev(1, 3);
        match kind.is_block_device() || kind.is_char_device() {
            _ if null => None,
            true => Some(Self::Device(kind.is_block_device(), file.rdev())),
            false => Some(Self::Inode(file.dev(), file.ino())),
        }
    }
}

/// Reads the metadata of an open descriptor.
fn metadata(fd: impl AsFd) -> io::Result<Metadata> {
    File::from(fd.as_fd().try_clone_to_owned()?).metadata()
}

/// An output file of a command. The old content stays until the first byte is written. A new file that gets
/// no content is removed.
#[derive(Debug)]
pub struct Output {
    name: String,
    file: File,
    is_regular: bool,
    begun: bool,
    _lock: Option<Flock<File>>,
    /// Path of the file, if this program created it.
    made: Option<PathBuf>,
}

impl Output {
    /// Opens a file and takes its lock; leaves its content alone.
    ///
    /// # Errors
    /// Fails if the file can't be written, or another program has locked it, such as an emulator that keeps
    /// its data there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let kind = fs::metadata(path).map(|file| file.file_type());
        // With O_EXCL the kernel refuses a disk that is in use.
        let exclusive = if kind.is_ok_and(|kind| kind.is_block_device()) { libc::O_EXCL } else { 0 };
        let mut options = File::options();
        options.write(true).custom_flags(exclusive);
        let (file, made) = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create(true).truncate(false).open(path);
                (file.with_context(|| format!("creating {name}"))?, fs::canonicalize(path).ok())
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                bail!("{name}: the system uses it (mounted, or part of another device); nothing was changed")
            }
            opened => (opened.with_context(|| format!("opening {name}"))?, None),
        };
        let kind = file.metadata().with_context(|| format!("reading the type of {name}"))?.file_type();
        // Made before the lock is taken, so that an error removes a new file.
        let mut output = Self { name, file, is_regular: kind.is_file(), begun: false, _lock: None, made };
        output._lock = lock(&output.file, true).with_context(|| output.name.clone())?;
        Ok(output)
    }

    /// Removes the old content, for new content that may be empty.
    ///
    /// # Errors
    /// The file can't be made shorter.
    pub fn clear(&mut self) -> io::Result<()> {
        if !self.begun && self.is_regular {
            self.file.set_len(0)?;
        }
        self.begun = true;
        Ok(())
    }

    /// Returns the name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !data.is_empty() {
            self.clear()?;
        }
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(path) = self.made.as_ref().filter(|_| !self.begun) {
            // The file is empty; if it can't be removed, it does no harm.
            let _ = fs::remove_file(path);
        }
    }
}

/// Checks that no other program has locked a file, such as an emulator that keeps its data there.
///
/// # Errors
/// Fails if the file is locked.
pub fn check_unlocked(file: &File, name: &str, writes: bool) -> anyhow::Result<()> {
    lock(file, writes).with_context(|| name.to_owned()).map(drop)
}

/// Checks standard input or output in the same way if it is a file.
///
/// # Errors
/// Fails if the file is locked, or standard output is closed.
pub fn check_stream_unlocked(place: Place<'_>) -> anyhow::Result<()> {
    let (fd, name, writes) = match place {
        Place::Stdin => (0, "stdin", false),
        Place::Stdout => (1, "stdout", true),
        Place::Path(_) => return Ok(()),
    };
    if writes {
        stdio::check_stdout().context("stdout is closed: send it to a file, or to /dev/null")?;
    }
    // The file is opened anew: a lock on the stream itself would belong to its other owners too. A pipe has
    // no lock.
    let path = format!("/proc/self/fd/{fd}");
    if !fs::metadata(&path).is_ok_and(|file| file.is_file()) {
        return Ok(());
    }
    match File::options().read(!writes).write(writes).open(path) {
        Ok(file) => check_unlocked(&file, name, writes),
        // A file that can't be opened by name (deleted, no /proc) can't be the medium of a controller either.
        Err(_) => Ok(()),
    }
}

/// Takes the lock that emulators take, and checks for other kinds of locks (QEMU's). Returns `None` if the
/// file system has no locks, or the file is not a regular one.
fn lock(file: &File, writes: bool) -> anyhow::Result<Option<Flock<File>>> {
    const LOCKED: &str = "another program has locked it: it may be the medium of a controller (`nvme-emu --file`, `emu:file=`), \
                          and was left as it is. Take another file, or stop that program";
    if !file.metadata().is_ok_and(|file| file.is_file()) {
        return Ok(None);
    }
    let kind = if writes { libc::F_WRLCK } else { libc::F_RDLCK };
    let mut range =
        libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    if fcntl(file, FcntlArg::F_OFD_GETLK(&mut range)).is_ok() && range.l_type != libc::F_UNLCK as i16 {
        bail!("{LOCKED}");
    }
    let how = if writes { FlockArg::LockExclusiveNonblock } else { FlockArg::LockSharedNonblock };
    match Flock::lock(file.try_clone()?, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => bail!("{LOCKED}"),
        Err(_) => Ok(None),
    }
}
