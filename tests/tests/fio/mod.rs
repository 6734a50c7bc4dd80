//! fio with the engine, as a process of the test's.

use serde_json::Value;
use std::{env, fs, process::Command};
use upcie_nvme::Address;
use upcie_tests::{
    deadline,
    process::{Directory, Process, within},
};

/// Where the engine is: `cargo xtask test` builds it for the installed fio, and says.
const ENGINE: &str = "UPCIE_FIO_ENGINE";

/// The engine's path; `None` where it was not built.
pub fn engine() -> Option<String> {
    env::var(ENGINE).ok()
}

/// A run of fio.
#[derive(Debug)]
pub struct Run {
    directory: Directory,
    arguments: Vec<String>,
    device: String,
}

/// fio with nothing but what the caller adds.
pub fn fio(address: &Address) -> Run {
    // As fio wants its separator.
    let device = address.to_string().replace(':', "\\:");
    Run { directory: Directory::new(), arguments: Vec::new(), device }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    /// fio's messages and the engine's.
    pub messages: String,
    /// The statistics.
    pub jobs: Vec<Value>,
}

impl Run {
    /// Options: `--name=value`.
    pub fn with<'a>(mut self, options: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(options.into_iter().map(str::to_owned));
        self
    }

    /// A job on the device under test, with what every job needs.
    pub fn job(self, options: &[&str]) -> Self {
        let engine = format!("--ioengine=external:{}", engine().expect("the caller has looked"));
        let device = format!("--filename={}", self.device);
        let common = ["--name=job", &engine, &device, "--thread=1", "--bs=4k", "--size=4M"];
        self.with(common).with(options.iter().copied())
    }

    /// A job file of this text, which finds the device and the engine in the environment.
    pub fn file(mut self, text: &str) -> Self {
        let path = self.directory.path().join("job.fio");
        fs::write(&path, text).expect("a directory of our own");
        self.arguments.push(path.display().to_string());
        self
    }

    fn start(&self) -> Process {
        let mut command = program();
        command.current_dir(self.directory.path()).args(["--output-format=json", "--output=statistics"]);
        command.args(&self.arguments);
        command
            .env("UPCIE_ENGINE", engine().expect("the caller has looked"))
            .env("UPCIE_FILENAME", &self.device);
        Process::start(command)
    }

    fn outcome(&self, process: Process) -> Outcome {
        let (status, messages) = process.finish();
        let statistics = fs::read_to_string(self.directory.path().join("statistics")).unwrap_or_default();
        // The messages come there too, before.
        let json = statistics.find('{').map_or("", |at| &statistics[at..]);
        let json: Value = serde_json::from_str(json).unwrap_or_default();
        let jobs = json["jobs"].as_array().cloned().unwrap_or_default();
        Outcome { code: status.code(), messages, jobs }
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        let process = self.start();
        self.outcome(process)
    }

    /// Runs it, and does something to it once its job runs.
    pub fn run_and(self, then: impl FnOnce(&mut Process)) -> Outcome {
        let run = self.with(["--eta=always", "--eta-newline=1"]);
        let mut process = run.start();
        process.wait_for("Jobs: 1 (f=1)").unwrap_or_else(|error| panic!("{error}"));
        then(&mut process);
        run.outcome(process)
    }
}

/// What fio prints of the engine's options: of all, or of one.
pub fn help(option: Option<&str>) -> String {
    let engine = engine().expect("the caller has looked");
    let what = option.map_or_else(|| engine.clone(), |option| format!("{engine},{option}"));
    let mut command = program();
    command.arg(format!("--enghelp={what}"));
    let output = within(deadline(), move || command.output()).expect("fio");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn program() -> Command {
    Command::new(env::var_os("UPCIE_FIO").unwrap_or_else(|| "fio".into()))
}

impl Outcome {
    /// Checks that all jobs did what they were to do, and nobody complained; gives their statistics.
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

    /// Checks that it was refused, by one line of the engine's with all of `parts`.
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

/// How many I/Os of a kind a job has done.
pub fn total(job: &Value, kind: &str) -> u64 {
    job[kind]["total_ios"].as_u64().unwrap_or_default()
}
