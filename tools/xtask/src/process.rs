//! Child processes, which end when a task is interrupted.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Time between two checks of a child and of Ctrl-C.
pub const POLL: Duration = Duration::from_millis(20);

/// Prints a message on stderr.
macro_rules! log {
    ($($argument:tt)*) => { eprintln!("xtask: {}", format_args!($($argument)*)) };
}
pub(crate) use log;

/// Makes Ctrl-C and SIGTERM end waits with an error instead of this process, so that destructors stop QEMU
/// and remove temporary files.
pub fn watch_for_interrupt() -> Result<()> {
    Ok(ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?)
}

/// Returns true if Ctrl-C was pressed.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails if Ctrl-C was pressed.
pub fn check_interrupt() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both calls fail only if the process has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Formats a command as a person would type it.
pub fn describe(command: &Command) -> String {
    // Print a program's name without its path.
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Quotes a word so that a shell takes it literally.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs a command to its end, with its own stdio settings.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    wait(&mut Guard(child))
}

/// Waits for the end of a child, or for Ctrl-C.
pub fn wait(guard: &mut Guard) -> Result<ExitStatus> {
    loop {
        if let Some(status) = guard.0.try_wait()? {
            return Ok(status);
        }
        check_interrupt()?;
        thread::sleep(POLL);
    }
}

/// Runs a command to its end; fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a command; returns its stdout, or fails with its stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", describe(command), output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with stdout and stderr in one file, which is passed on as it grows if `show` is set. The
/// status is `None` if the deadline killed the command.
///
/// A file is used instead of a pipe: a grandchild that stays behind would keep a pipe open.
pub fn captured(
    command: &mut Command,
    log: &Path,
    deadline: Duration,
    show: bool,
) -> Result<(Option<ExitStatus>, String)> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    let (mut guard, mut tail, started) = (Guard(child), Tail::new(log.to_owned()), Instant::now());
    let status = loop {
        let status = guard.0.try_wait()?;
        if show {
            tail.pass_on(&mut io::stdout().lock());
        }
        if status.is_some() || started.elapsed() > deadline {
            break status;
        }
        check_interrupt()?;
        thread::sleep(POLL);
    };
    Ok((status, read(log)))
}

/// Returns how many bytes a plain user can still write to the file system that holds a directory.
pub fn free_space(directory: &Path) -> Result<u64> {
    let answer = output(Command::new("df").args(["--output=avail", "--block-size=1"]).arg(directory))?;
    let bytes = answer.lines().nth(1).map(str::trim).context("`df` printed no second line")?;
    bytes.parse().with_context(|| format!("`df` says that {bytes} bytes are free"))
}

/// Reads a file's text; empty if there is no file.
pub fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Returns the last lines of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Position in a growing file that is passed on piece by piece.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset: u64,
}

impl Tail {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0 }
    }

    pub fn pass_on(&mut self, to: &mut impl Write) {
        let mut copy = || -> io::Result<u64> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut new = Vec::new();
            file.read_to_end(&mut new)?;
            to.write_all(&new)?;
            to.flush()?;
            Ok(new.len() as u64)
        };
        // The file may not exist yet, and a closed stdout must not stop the program that writes the file.
        self.offset += copy().unwrap_or(0);
    }
}
