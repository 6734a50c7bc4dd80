//! Support code that runs fio with the engine as a process of a test.
#![allow(dead_code, reason = "each suite uses a part of it")]

use serde_json::Value;
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use upcie_nvme::{Address, Controller};
use upcie_tests::{
    Device, deadline, left_out, on_each_device,
    process::{Directory, Process, within},
};

/// The variable with the engine's path: `cargo xtask test` builds the engine for the installed fio and sets
/// it.
const ENGINE: &str = "UPCIE_FIO_ENGINE";

/// Returns the engine's path, or `None` if it was not built.
pub fn engine() -> Option<String> {
    env::var(ENGINE).ok()
}

/// The timeout of a command, in seconds. On a busy machine an emulated controller hardly runs: one command
/// took 21 s while QEMU had 0.2 % of a core.
pub const PATIENCE: u32 = 100;

/// A run of fio.
#[derive(Debug)]
pub struct Run {
    directory: Directory,
    arguments: Vec<String>,
    device: String,
    program: PathBuf,
}

/// Runs `test` on each device, if the engine was built.
pub fn with_fio(test: impl Fn(&mut Device)) {
    if engine().is_none() {
        return left_out(
            "fio's engine: `cargo xtask test fio` builds it, and UPCIE_FIO_ENGINE says where it is",
        );
    }
    on_each_device(test);
}

/// Reads a property of a controller before fio opens it.
pub fn property<T>(device: &Device, read: impl FnOnce(&Controller) -> T) -> T {
    read(&device.open())
}

/// Makes a run of fio without any job.
pub fn fio(address: &Address) -> Run {
    // fio separates file names by colons.
    let device = address.to_string().replace(':', "\\:");
    Run { directory: Directory::new(), arguments: Vec::new(), device, program: program() }
}

/// Gives `test` a fio that claims another version.
pub fn of_another_version(test: impl FnOnce(&Path)) {
    let output = Command::new(program()).arg("--version").output().expect("fio");
    let version = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    let real = env::split_paths(&env::var_os("PATH").expect("a PATH"))
        .map(|directory| directory.join(program()))
        .find(|path| path.is_file());
    let mut bytes = fs::read(real.expect("fio on the PATH")).expect("a program");
    let places: Vec<_> =
        (0..bytes.len() - version.len()).filter(|&at| bytes[at..].starts_with(version.as_bytes())).collect();
    assert!(!places.is_empty(), "{version} is not in the program");
    for at in places {
        bytes[at + version.len() - 1] = b'x';
    }
    let directory = Directory::new();
    let other = directory.path().join("fio");
    fs::write(&other, bytes).expect("a directory of our own");
    fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).expect("a file of our own");
    test(&other);
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    /// The messages of fio and of the engine.
    pub messages: String,
    /// fio's statistics of each job.
    pub jobs: Vec<Value>,
}

impl Run {
    /// Adds options of the form `--name=value`.
    pub fn with<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(options.into_iter().map(str::to_owned));
        self
    }

    /// Adds a job on the device under test, with the options that every job needs.
    pub fn job(self, options: &[&str]) -> Self {
        self.named("job", options)
    }

    /// Does the same as [`job`](Self::job), for a run of several jobs.
    pub fn named(self, name: &str, options: &[&str]) -> Self {
        let name = format!("--name={name}");
        let engine = format!("--ioengine=external:{}", engine().expect("the caller has looked"));
        let device = format!("--filename={}", self.device);
        let patience = format!("--upcie_timeout={PATIENCE}");
        let common = [name.as_str(), &engine, &device, "--thread=1", "--bs=4k", "--size=4M", &patience];
        self.with(common).with(options.iter().copied())
    }

    /// Sets the program that runs the job instead of fio.
    pub fn by(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Adds a job file with this text, which finds the device and the engine in the environment.
    pub fn file(mut self, text: &str) -> Self {
        let path = self.directory.path().join("job.fio");
        fs::write(&path, text).expect("a directory of our own");
        self.arguments.push(path.display().to_string());
        self
    }

    /// Adds a log of I/Os to replay, in fio's format.
    pub fn replay(self, log: &str) -> Self {
        let path = self.directory.path().join("log");
        fs::write(&path, log).expect("a directory of our own");
        self.with([format!("--read_iolog={}", path.display()).as_str()])
    }

    fn start(&self) -> Process {
        let mut command = Command::new(&self.program);
        command.current_dir(self.directory.path()).args(["--output-format=json", "--output=statistics"]);
        // Spares fio's check of the processors' counters, which is half of the work of a short run.
        command.arg("--clocksource=clock_gettime");
        command.args(&self.arguments);
        command
            .env("UPCIE_ENGINE", engine().expect("the caller has looked"))
            .env("UPCIE_FILENAME", &self.device);
        Process::start(command)
    }

    fn outcome(&self, process: Process) -> Outcome {
        let (status, messages) = process.finish();
        let statistics = fs::read_to_string(self.directory.path().join("statistics")).unwrap_or_default();
        // Messages come on the same stream, before the statistics.
        let json = statistics.find('{').map_or("", |at| &statistics[at..]);
        let json: Value = serde_json::from_str(json).unwrap_or_default();
        let jobs = json["jobs"].as_array().cloned().unwrap_or_default();
        Outcome { code: status.code(), messages, jobs }
    }

    /// Runs fio to its end.
    pub fn run(self) -> Outcome {
        let process = self.start();
        self.outcome(process)
    }

    /// Runs fio, and calls `then` once its job runs.
    pub fn run_and(self, then: impl FnOnce(&mut Process)) -> Outcome {
        let run = self.with(["--eta=always", "--eta-newline=1"]);
        let mut process = run.start();
        process.wait_for("(f=1)").unwrap_or_else(|error| panic!("{error}"));
        then(&mut process);
        run.outcome(process)
    }
}

/// Returns fio's help for all options of the engine, or for one.
pub fn help(option: Option<&str>) -> String {
    let engine = engine().expect("the caller has looked");
    let what = option.map_or_else(|| engine.clone(), |option| format!("{engine},{option}"));
    let mut command = Command::new(program());
    command.arg(format!("--enghelp={what}"));
    let output = within(deadline(), move || command.output()).expect("fio");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the version of fio, as a pair: 3 and 33 of 3.33.
pub fn version() -> (u32, u32) {
    let output = Command::new(program()).arg("--version").output().expect("fio");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.trim().trim_start_matches("fio-").split(['.', '-']);
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    (next(), next())
}

fn program() -> PathBuf {
    env::var_os("UPCIE_FIO").unwrap_or_else(|| "fio".into()).into()
}

impl Outcome {
    /// Checks that all jobs succeeded without a message; returns their statistics.
    #[track_caller]
    pub fn passed(self, what: &str) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{what}: {}", self.messages);
        assert!(!self.jobs.is_empty(), "{what}: no statistics: {}", self.messages);
        for job in &self.jobs {
            assert_eq!(job["error"], 0, "{what}: {}", self.messages);
            let done: u64 = ["read", "write", "trim"].iter().map(|kind| total(job, kind)).sum();
            assert!(done > 0, "{what}: {} did nothing: {}", job["jobname"], self.messages);
        }
        let complaint =
            self.messages.lines().find(|line| line.starts_with("upcie: ") || line.contains("verify:"));
        assert_eq!(complaint, None, "{what}");
        self.jobs
    }

    /// Checks that the engine refused, with one line that contains all of `parts`.
    #[track_caller]
    pub fn refused(self, what: &str, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{what}: {}", self.messages);
        let lines: Vec<_> = self.messages.lines().filter(|line| line.starts_with("upcie: ")).collect();
        assert_eq!(lines.len(), 1, "{what}: {}", self.messages);
        for part in parts {
            assert!(lines[0].contains(part), "{what}: {part:?} is not in: {}", lines[0]);
        }
    }
}

/// Returns the number of I/Os of a kind that a job has done.
pub fn total(job: &Value, kind: &str) -> u64 {
    job[kind]["total_ios"].as_u64().unwrap_or_default()
}
