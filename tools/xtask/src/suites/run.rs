//! A run of `cargo xtask test`: the choice on the command line, the built programs, and the results so far.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cargo::{Executable, Workspace};
use crate::lab::fio;
use crate::process::{self, log};
use crate::suites::row::{self, Row};

/// Package of the suites that run over every transport.
pub const SUITES: &str = "upcie-tests";
/// Deadline of each suite; emulation on a busy machine is slow.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// Command line arguments that select suites and steps.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Show the output of passing suites too
    #[arg(long, short)]
    pub verbose: bool,
    /// Run only the suites of these modes (columns of the matrix), such as vfio,uio, and those of these
    /// boots, such as off,numa
    #[arg(long, value_delimiter = ',')]
    pub mode: Vec<String>,
    /// Run only the suites and steps whose name contains one of these words
    pub filter: Vec<String>,
}

impl Choice {
    pub fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word.as_str()))
    }
}

/// State of a run.
pub struct Run<'a> {
    pub choice: &'a Choice,
    pub workspace: Workspace,
    /// True in CI, where nothing may be skipped.
    pub strict: bool,
    pub rows: Vec<Row>,
    /// Paths of the tools, once they are built.
    pub tools: Vec<PathBuf>,
    /// fio and the engine, if a suite needs them.
    pub fio: Option<fio::Built>,
    /// C programs, if a suite starts them.
    pub c_programs: Vec<PathBuf>,
}

impl Run<'_> {
    /// Makes a run of the same choice and programs without results, for another thread.
    pub fn beside(&self) -> Self {
        Self {
            choice: self.choice,
            workspace: self.workspace.clone(),
            strict: self.strict,
            rows: Vec::new(),
            tools: self.tools.clone(),
            fio: self.fio.clone(),
            c_programs: self.c_programs.clone(),
        }
    }

    pub fn push(&mut self, row: Row) {
        log!("{}", row.line(24));
        self.rows.push(row);
    }

    /// Runs a step that passes or fails as a whole.
    pub fn step(&mut self, name: &str, work: impl FnOnce(&Workspace) -> Result<()>) -> Result<()> {
        if !self.choice.wants(name) {
            return Ok(());
        }
        let started = Instant::now();
        let result = work(&self.workspace);
        process::check_interrupt()?;
        self.push(Row::step(name, "host", started.elapsed(), result.err().map(|error| format!("{error:#}"))));
        Ok(())
    }

    /// Runs a test program on this machine, and prints its output if it fails.
    pub fn suite(&self, name: &str, harness: bool, command: &mut Command, log: &Path) -> Result<Row> {
        command.env("UPCIE_BIN", self.workspace.bin(false));
        command.env("RUST_BACKTRACE", "1");
        if let Some(built) = &self.fio {
            command.env("UPCIE_FIO", &built.fio).env("UPCIE_FIO_ENGINE", &built.engine);
        }
        let started = Instant::now();
        let (status, text) = process::captured(command, log, DEADLINE, self.choice.verbose)?;
        // Use a shell's exit code for signals: 128 and the signal.
        let code = status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        let row = Row::of(name, "host", started.elapsed(), code, &text, harness, self.strict);
        match row.problem {
            _ if self.choice.verbose => {}
            Some(_) => println!("{}", text.trim_end()),
            None => print!("{}", row::tables(&text)),
        }
        Ok(row)
    }
}

/// Returns true if the program belongs to the tests' package.
pub fn is_suite(executable: &Executable) -> bool {
    executable.kind == "test" && executable.package == SUITES
}

/// Returns the name of a suite for the table and for filters.
pub fn name(executable: &Executable) -> String {
    match executable.kind.as_str() {
        "test" => executable.name.clone(),
        "example" => format!("example {}", executable.name),
        "bin" => format!("{} {}", executable.package, executable.name),
        _ => executable.package.clone(),
    }
}
