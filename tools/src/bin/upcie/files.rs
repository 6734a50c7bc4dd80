//! The files that a command reads and writes: told apart by what they are, not by their names, and replaced only when
//! there is something to put in their place.

use crate::target::Target;
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
use upcie_nvme::{Address, emu};

/// Symbolic links that are followed, as by the kernel.
const MOST_LINKS: usize = 40;

/// Where data comes from or goes to.
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
    /// What an argument means of which `-` is standard input.
    pub fn input(path: &'a Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::Path(path) }
    }

    /// What an argument means of which `-` is standard output, as is whatever else leads there: /dev/stdout,
    /// /proc/self/fd/1.
    pub fn output(path: &'a Path) -> Self {
        let is_stdout = path == Path::new("-")
            || Id::of(Self::Path(path)).is_some_and(|id| Id::of(Self::Stdout) == Some(id));
        if is_stdout { Self::Stdout } else { Self::Path(path) }
    }
}

/// A file that a command uses.
#[derive(Debug)]
pub struct Use {
    /// As messages name it.
    name: String,
    writes: bool,
    id: Option<Id>,
}

impl Use {
    /// It is read.
    pub fn reads(name: impl Into<String>, place: Place<'_>) -> Self {
        Self { name: name.into(), writes: false, id: Id::of(place) }
    }

    /// It is written.
    pub fn writes(name: impl Into<String>, place: Place<'_>) -> Self {
        Self { name: name.into(), writes: true, id: Id::of(place) }
    }

    /// The file that an embedded controller keeps its data in, if it has one.
    pub fn media(target: &Target, writes: bool) -> Option<Self> {
        let Address::Emulated(options) = &target.address else { return None };
        let options: emu::Options = options.parse().ok()?;
        let file = options.file?;
        let name = format!("the file of {}", target.address);
        Some(Self { name, writes, id: Id::of(Place::Path(&file)) })
    }
}

/// An error if two of them are one file, and one of these is written: by hard and symbolic links too, and by /dev/stdout.
pub fn check_distinct(uses: &[Use]) -> anyhow::Result<()> {
    for (i, one) in uses.iter().enumerate() {
        let same = |other: &&Use| one.id.is_some() && one.id == other.id && (one.writes || other.writes);
        if let Some(other) = uses[i + 1..].iter().find(same) {
            bail!("{} and {} are the same file; nothing was changed", one.name, other.name);
        }
    }
    Ok(())
}

/// Checks that a file's name does not call an SVG image something else.
///
/// # Errors
/// The name ends in another suffix.
pub fn check_is_svg(option: &str, path: &Path) -> anyhow::Result<()> {
    match path.extension() {
        Some(suffix) if !suffix.eq_ignore_ascii_case("svg") => bail!(
            "{option} {}: the image is SVG: name it {} (browsers show it, `rsvg-convert` makes a PNG of it)",
            path.display(),
            path.with_extension("svg").display()
        ),
        _ => Ok(()),
    }
}

/// What makes a file itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Id {
    /// A file, pipe or socket, by its file system and number there.
    Inode(u64, u64),
    /// A device, by its number: its nodes may be several.
    Device(bool, u64),
    /// A file that does not exist yet, by the path that it will have.
    Absent(PathBuf),
}

impl Id {
    /// `None` where it can't be told, or does not matter: whatever is written to /dev/null does not meet anything.
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
            // A symbolic link to nothing is made into a file where it points to.
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

/// Of an open descriptor.
fn metadata(fd: impl AsFd) -> io::Result<Metadata> {
    File::from(fd.as_fd().try_clone_to_owned()?).metadata()
}

/// A file that takes what a command has to say. What was in it stays until the first byte comes; a file that was made and
/// gets nothing is removed.
#[derive(Debug)]
pub struct Output {
    name: String,
    file: File,
    is_regular: bool,
    begun: bool,
    _lock: Option<Flock<File>>,
    /// Where it was made.
    made: Option<PathBuf>,
}

impl Output {
    /// Opens it and takes its lock; changes nothing in it.
    ///
    /// # Errors
    /// It can't be written, or somebody has locked it: an emulator, say, whose medium it is.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let kind = fs::metadata(path).map(|file| file.file_type());
        // The kernel refuses a disk in use then, as to mkfs.
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
        let kind = file.metadata().with_context(|| format!("looking at {name}"))?.file_type();
        // Not dropped before it: what was made is removed then.
        let mut output = Self { name, file, is_regular: kind.is_file(), begun: false, _lock: None, made };
        output._lock = lock(&output.file, true).with_context(|| output.name.clone())?;
        Ok(output)
    }

    /// As messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.begun && !data.is_empty() {
            if self.is_regular {
                self.file.set_len(0)?;
            }
            self.begun = true;
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
            // It was not there before, and it being there says nothing wrong.
            let _ = fs::remove_file(path);
        }
    }
}

/// Checks that nobody has locked a file: an emulator, say, whose medium it is.
///
/// # Errors
/// Somebody has.
pub fn check_unlocked(file: &File, name: &str, writes: bool) -> anyhow::Result<()> {
    lock(file, writes).with_context(|| name.to_owned()).map(drop)
}

/// The same of standard input or output, where it is a file.
///
/// # Errors
/// Somebody has locked it.
pub fn check_stream_unlocked(place: Place<'_>) -> anyhow::Result<()> {
    let (fd, name, writes) = match place {
        Place::Stdin => (0, "stdin", false),
        Place::Stdout => (1, "stdout", true),
        Place::Path(_) => return Ok(()),
    };
    // Opened anew: a lock on the stream itself would be its owner's, too. A pipe is not opened, for it has no lock.
    let path = format!("/proc/self/fd/{fd}");
    if !fs::metadata(&path).is_ok_and(|file| file.is_file()) {
        return Ok(());
    }
    match File::options().read(!writes).write(writes).open(path) {
        Ok(file) => check_unlocked(&file, name, writes),
        // What can't be opened by its name (deleted, no /proc) is no medium that a controller was given by name.
        Err(_) => Ok(()),
    }
}

/// Takes the lock that emulators take, and looks for other kinds (QEMU's). `None` where the file system has no locks, and
/// for what is no regular file.
fn lock(file: &File, writes: bool) -> anyhow::Result<Option<Flock<File>>> {
    const LOCKED: &str = "another program has locked it: it may be a controller's medium (`nvme-emu --file`, `emu:file=`), \
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
