//! Helpers for all suites: running programs, and temporary directories.
#![allow(dead_code, reason = "each suite uses a part of it")]

use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
};

/// Makes bytes that differ with their place.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Runs a program with an empty stdin.
pub fn run(program: &str, arguments: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// Makes a command of the `upcie` program.
pub fn upcie(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upcie"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).env_remove("UPCIE_LOG");
    command
}

/// Runs `upcie`.
pub fn run_upcie(arguments: &str) -> Output {
    upcie(arguments).output().unwrap()
}

/// Runs `upcie` with `input` on stdin.
pub fn feed(arguments: &str, input: &[u8]) -> Output {
    let mut command = upcie(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // Writing fails if the program ends before it has read its input.
    let feeder = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join().unwrap();
    output
}

/// A process that is killed when dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `nvme-emu` on a socket; returns the process, and the line that it prints once it listens.
pub fn serve<'a>(socket: &str, arguments: impl IntoIterator<Item = &'a str>) -> (Ended, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nvme-emu"));
    let mut child =
        command.args(["--socket", socket]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "{line}");
    (Ended(child), line)
}

/// `nvme-emu` on a socket, and its address.
pub struct Served(pub Ended, pub String);

impl Served {
    pub fn new(dir: &Dir, options: &str) -> Self {
        Self::with(dir, options, &[])
    }

    /// Starts it with further arguments.
    pub fn with(dir: &Dir, options: &str, more: &[&str]) -> Self {
        let socket = dir.path("socket");
        let (child, _) = serve(&socket, ["--options", options].into_iter().chain(more.iter().copied()));
        Self(child, format!("vfio-user:{socket}"))
    }
}

/// Starts `upcie perf` with intervals, and waits for the first. Returns the process and the following lines.
#[track_caller]
pub fn measuring(arguments: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = upcie(&format!("perf {arguments}"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" MiB/s   p50")));
    (child, lines)
}

/// Runs `upcie perf`; returns its report.
#[track_caller]
pub fn perf(arguments: &str) -> Value {
    let output = succeeds(run_upcie(&format!("perf {arguments} --json")));
    serde_json::from_slice(&output).unwrap()
}

/// Reads a number from a report by JSON pointer.
#[track_caller]
pub fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
}

/// Checks for success; returns the text on stdout.
#[track_caller]
pub fn succeeds(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Checks for a failure with an empty stdout; returns the message on stderr.
#[track_caller]
pub fn fails(code: i32, output: Output) -> String {
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    complains(code, output)
}

/// Checks for a failure; returns the message on stderr.
#[track_caller]
pub fn complains(code: i32, output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked") && !error.is_empty(), "{error}");
    error
}

/// A directory for one test, which is removed when dropped. It does not exist yet.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-tools-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// Makes a directory that exists.
    pub fn made(name: &str) -> Self {
        let dir = Self::new(name);
        fs::create_dir_all(&dir.0).unwrap();
        dir
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
