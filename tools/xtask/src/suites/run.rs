//! A run of `cargo xtask test`: what a person chose, what is built, and the results so far.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cargo::{Executable, Workspace};
use crate::lab::fio;
use crate::process::{self, say};
use crate::suites::row::Row;

/// The package with the suites that run over every transport.
const SUITES: &str = "upcie-tests";
/// For each suite; emulation on a busy machine is slow.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// The part of the command line that picks suites and steps.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Show what passing suites print too
    #[arg(long, short)]
    pub verbose: bool,
    /// Only the suites of these modes, such as vfio,uio (columns of the matrix), and those that belong to a boot
    /// itself, such as off,numa
    #[arg(long, value_delimiter = ',')]
    pub mode: Vec<String>,
    /// Only the suites and steps whose name contains one of these
    pub filter: Vec<String>,
}

impl Choice {
    pub fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word.as_str()))
    }
}

/// A run so far.
pub struct Run<'a> {
    pub choice: &'a Choice,
    pub workspace: Workspace,
    /// In CI nothing may be skipped.
    pub strict: bool,
    pub rows: Vec<Row>,
    /// The tools, once they are built.
    pub tools: Vec<PathBuf>,
    /// fio and the engine, where a suite wants them.
    pub fio: Option<fio::Built>,
}

impl Run<'_> {
    pub fn push(&mut self, row: Row) {
        say!("{}", row.line(24));
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

    /// Runs a program of the tests on this machine, and prints what a failed one said.
    pub fn suite(&self, name: &str, harness: bool, command: &mut Command, log: &Path) -> Result<Row> {
        command.env("UPCIE_BIN", self.workspace.bin(false));
        command.env("RUST_BACKTRACE", "1");
        if let Some(built) = &self.fio {
            command.env("UPCIE_FIO", &built.fio).env("UPCIE_FIO_ENGINE", &built.engine);
        }
        let started = Instant::now();
        let (status, text) = process::captured(command, log, DEADLINE, self.choice.verbose)?;
        // As a shell says it: 128 and the signal that ended it.
        let code = status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        let row = Row::of(name, "host", started.elapsed(), code, &text, harness, self.strict);
        if row.problem.is_some() && !self.choice.verbose {
            println!("{}", text.trim_end());
        }
        Ok(row)
    }
}

/// Whether this is one of the tests' package.
pub fn is_suite(executable: &Executable) -> bool {
    executable.kind == "test" && executable.package == SUITES
}

/// What a suite is called in the table, and by filters.
pub fn name(executable: &Executable) -> String {
    match executable.kind.as_str() {
        "test" => executable.name.clone(),
        "example" => format!("example {}", executable.name),
        "bin" => format!("{} {}", executable.package, executable.name),
        _ => executable.package.clone(),
    }
}
