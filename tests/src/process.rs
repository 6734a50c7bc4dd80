//! Processes that a test starts. They end with the test, and each wait for their output has a deadline.

use crate::{deadline, stopwatch::Stopwatch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};
use upcie_core::device::Address;

/// The interval of checks on a process that prints nothing.
const LOOK: Duration = Duration::from_millis(250);

/// The variable that tells the test's own executable which role to play when it is started again.
pub const ROLE: &str = "UPCIE_TEST_ROLE";

/// Returns the number of page faults of the calling thread so far that needed no disk.
pub fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: room for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid value, and the call filled it in.
    unsafe { usage.assume_init() }.ru_minflt
}

/// Returns the role of this process, if [`again`] started it.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Makes a command that runs the test `name` of this executable in a role.
///
/// # Panics
/// Panics if the executable has no path.
pub fn again(name: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a path"));
    command.args(["--exact", name, "--nocapture"]).env(ROLE, role);
    command
}

/// A child process whose output is read line by line. Dropping this kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: Option<thread::JoinHandle<String>>,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Panics
    /// Panics if it can't be started.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: one system call, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // The kernel ends the child even if the test is killed.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            })
        };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut err = child.stderr.take().expect("piped");
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of output. Fails if the process has closed its output, or takes longer than
    /// [`deadline`], without the time in which it waited for a processor.
    fn next_line(&mut self, watch: &mut Stopwatch) -> Result<String, RecvTimeoutError> {
        loop {
            match self.lines.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) if watch.elapsed() < deadline() => {}
                other => return other,
            }
        }
    }

    /// Waits for a line of the standard output that contains `words`.
    ///
    /// # Errors
    /// Returns the standard error so far if the process ends or takes too long.
    pub fn wait_for(&mut self, words: &str) -> Result<String, String> {
        let mut watch = Stopwatch::of(self.id());
        loop {
            match self.next_line(&mut watch) {
                Ok(line) if line.contains(words) => return Ok(line),
                Ok(_) => {}
                Err(why) => {
                    self.kill();
                    return Err(format!("no line with {words:?} ({why}): {}", self.errors()));
                }
            }
        }
    }

    /// Waits until the process ends; returns its exit status and its standard error.
    ///
    /// # Panics
    /// Panics if it does not end within the deadline.
    pub fn finish(mut self) -> (ExitStatus, String) {
        // The output ends before the process does: wait for that, with a deadline.
        let mut watch = Stopwatch::of(self.id());
        loop {
            match self.next_line(&mut watch) {
                // Marked, so that the outer harness does not take the inner result for its own.
                Ok(line) => println!("| {line}"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the process does not end within {:?}", deadline()),
            }
        }
        let status = self.child.wait().expect("a child");
        (status, self.errors())
    }

    /// Returns `true` until the process has ended.
    ///
    /// # Panics
    /// Panics if the system can't tell.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    fn errors(&mut self) -> String {
        self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// Panics if there is no such process.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a process of ours");
    }

    /// Kills the process (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A new directory for one test. Dropping this removes it.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes a new directory.
    ///
    /// # Panics
    /// Panics if it can't be made.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("upcie-tests-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An `nvme-emu` process that listens on a socket of its own.
#[derive(Debug)]
pub struct Server {
    process: Process,
    directory: Directory,
    /// The names of its sockets in the directory.
    sockets: Vec<String>,
}

impl Server {
    /// Returns true if the program `nvme-emu` was built.
    pub fn is_built() -> bool {
        program("nvme-emu").is_file()
    }

    /// Starts a server with options (`size=1G,…`), and waits until it listens.
    ///
    /// # Panics
    /// Panics if the program is not built, or the server does not come up.
    pub fn start(options: &str) -> Self {
        Self::try_start(options).unwrap_or_else(|error| panic!("nvme-emu {options}: {error}"))
    }

    /// Starts a server that may refuse.
    ///
    /// # Errors
    /// Returns the server's output.
    ///
    /// # Panics
    /// Panics if the program is not built.
    pub fn try_start(options: &str) -> Result<Self, String> {
        Self::try_start_on(options, vec!["socket".into()])
    }

    /// Starts a server of `count` controllers of one NVM subsystem, each on a socket of its own.
    ///
    /// # Panics
    /// Panics like [`start`](Self::start).
    pub fn start_several(options: &str, count: usize) -> Self {
        let sockets = (0..count).map(|number| format!("socket{number}")).collect();
        Self::try_start_on(options, sockets).unwrap_or_else(|error| panic!("nvme-emu {options}: {error}"))
    }

    fn try_start_on(options: &str, sockets: Vec<String>) -> Result<Self, String> {
        let program = program("nvme-emu");
        assert!(
            program.is_file(),
            "{} does not exist: `cargo build --package upcie-tools` makes it, and UPCIE_BIN says where it is",
            program.display()
        );
        let directory = Directory::new();
        let mut command = Command::new(program);
        for socket in &sockets {
            command.arg("--socket").arg(directory.path().join(socket));
        }
        command.args(["--options", options]);
        let mut process = Process::start(command);
        process.wait_for("listening")?;
        Ok(Self { process, directory, sockets })
    }

    /// Returns the server's address.
    pub fn address(&self) -> Address {
        self.addresses().remove(0)
    }

    /// Returns the addresses of the server's controllers.
    pub fn addresses(&self) -> Vec<Address> {
        let path = |socket| Address::VfioUser(self.directory.path().join(socket));
        self.sockets.iter().map(path).collect()
    }

    /// Sends a signal and waits for the end; returns the exit status and the standard error.
    ///
    /// # Panics
    /// Panics if it does not end within the deadline.
    pub fn end(self, signal: Signal) -> (ExitStatus, String) {
        self.process.signal(signal);
        self.process.finish()
    }

    /// Returns the process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Returns the path of a tool.
fn program(name: &str) -> PathBuf {
    programs().join(name)
}

/// Starts `upcie perf` at `address`, for longer than any test lasts, and returns once it does I/O.
///
/// # Panics
/// Panics if it ends before.
pub fn running_perf(address: &str) -> Process {
    let mut command = Command::new(programs().join("upcie"));
    command.args(["perf", address, "--time", "600", "--interval", "100ms"]);
    let mut perf = Process::start(command);
    perf.wait_for(" IOPS ").unwrap();
    perf
}

/// Returns the directory of this workspace's programs.
///
/// # Panics
/// Panics if the test executable has no path.
pub fn programs() -> PathBuf {
    match env::var_os("UPCIE_BIN") {
        Some(path) => path.into(),
        // target/debug/deps/suite-0123456789abcdef
        None => {
            let executable = env::current_exe().expect("a path");
            executable.ancestors().nth(2).expect("a directory above deps").into()
        }
    }
}

/// Runs `work` in a thread, and returns its result.
///
/// # Panics
/// Panics if `work` panics, or does not end within `limit`; in that case the thread is left behind.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    let thread = thread::spawn(move || {
        let _ = send.send(work());
    });
    match receive.recv_timeout(limit) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("no end within {limit:?}"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it ended without a value"),
        },
    }
}
