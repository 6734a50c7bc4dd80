//! What the suites about a program share: how it ended, and a directory of a test's own.
#![allow(dead_code, reason = "each suite uses a part of it")]

use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// Runs a program with nothing on its stdin.
pub fn run(program: &str, arguments: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// The `upcie` program.
pub fn upcie(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upcie"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).env_remove("UPCIE_LOG");
    command
}

/// Runs it.
pub fn run_upcie(arguments: &str) -> Output {
    upcie(arguments).output().unwrap()
}

/// A program that ends with the test, however that ends.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `nvme-emu` on a socket, and its address.
pub struct Served(pub Ended, pub String);

impl Served {
    pub fn new(dir: &Dir, options: &str) -> Self {
        let socket = dir.path("socket");
        let mut child = Command::new(env!("CARGO_BIN_EXE_nvme-emu"))
            .args(["--socket", &socket, "--options", options])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on"), "{line}");
        Self(Ended(child), format!("vfio-user:{socket}"))
    }
}

/// Starts `upcie perf`, which is to print intervals; back when it has said the first. Gives the lines after that, too.
#[track_caller]
pub fn measuring(arguments: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = upcie(&format!("perf {arguments}"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" MiB/s   p50")));
    (child, lines)
}

/// What `upcie perf` reports.
#[track_caller]
pub fn perf(arguments: &str) -> Value {
    let output = succeeds(run_upcie(&format!("perf {arguments} --json")));
    serde_json::from_slice(&output).unwrap()
}

/// A number in a report, by its JSON pointer.
#[track_caller]
pub fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
}

/// What it wrote to stdout.
#[track_caller]
pub fn succeeds(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The message of a failure: on stderr, a line or two, and nothing on stdout.
#[track_caller]
pub fn fails(code: i32, output: Output) -> String {
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    complains(code, output)
}

/// The same, whatever it had to say before.
#[track_caller]
pub fn complains(code: i32, output: Output) -> String {
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(!error.contains("panicked") && !error.is_empty(), "{error}");
    error
}

/// A directory for one test, removed at its end. It does not exist yet.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-tools-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// One that exists.
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
