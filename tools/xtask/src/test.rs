//! `cargo xtask test`: everything that must hold, on this machine and in the guest.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cargo::{Executable, Workspace};
use crate::checks::{assembly, instructions, licences, package};
use crate::lab::{fio, kernel};
use crate::process::{self, say};
use crate::suites::modes::{self, BOOTS, GUEST_ONLY, HOST};
use crate::suites::row::{self, Row};
use crate::suites::{boot, linux, matrix};

/// The package with the suites that run over every transport.
const SUITES: &str = "upcie-tests";
/// The suite that fio's engine is built for.
const FIO_SUITE: &str = "fio_jobs";
/// Libraries that must build for the other architecture.
const AARCH64: &str = "aarch64-unknown-linux-gnu";
/// The oldest Rust that the libraries build with: `rust-version` in Cargo.toml.
const MSRV: &str = "1.85";
/// For each suite; emulation on a busy machine is slow.
pub const DEADLINE: Duration = Duration::from_secs(900);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-guest\n  cargo xtask test integrity     # suites and steps whose name contains it\n  cargo xtask test --mode vfio queues   # one cell of the matrix, or some"
)]
pub struct Args {
    /// Leave out what needs QEMU
    #[arg(long)]
    no_guest: bool,
    /// Show what passing suites print too
    #[arg(long, short)]
    pub verbose: bool,
    /// Only the suites of these modes, such as vfio,uio (columns of the matrix), and those that belong to a boot
    /// itself, such as off,numa
    #[arg(long, value_delimiter = ',')]
    pub mode: Vec<String>,
    /// Only the suites and steps whose name contains one of these
    filter: Vec<String>,
}

impl Args {
    pub fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|word| name.contains(word.as_str()))
    }
}

/// A run, with what is known so far.
pub struct Run<'a> {
    pub args: &'a Args,
    pub workspace: Workspace,
    /// In CI nothing may be skipped.
    pub strict: bool,
    pub rows: Vec<Row>,
    /// The tools, once they are built.
    pub tools: Vec<PathBuf>,
    /// fio and the engine, where a suite wants them.
    pub fio: Option<fio::Built>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if let Some(word) = args.mode.iter().find(|word| !modes::is_known(word)) {
        let names = modes::names().chain(BOOTS.iter().map(|boot| boot.name)).collect::<Vec<_>>();
        bail!("there is no mode and no boot {word}; there are {}", names.join(", "));
    }
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let workspace = Workspace::find()?;
    let mut run = Run { args, workspace, strict, rows: Vec::new(), tools: Vec::new(), fio: None };
    // First, so that a person who must type a password is still there.
    let lab = if args.no_guest { None } else { Some(kernel::prepare()?) };
    let fio = args.wants(FIO_SUITE).then(fio::installed);
    if args.mode.is_empty() {
        run.steps()?;
    }
    if let Some(found) = fio {
        run.engine(found)?;
    }
    let executables = run.build()?;
    run.host(&executables)?;
    if let Some(lab) = &lab {
        for boot in BOOTS {
            boot::run(&mut run, lab, boot, &executables)?;
        }
        linux::run(&mut run, lab)?;
    } else {
        say!("the guest's suites are left out, as asked");
    }
    if run.rows.is_empty() {
        bail!("nothing has a name that contains {}", args.filter.join(" or "));
    }
    print!("\n{}", row::table(&run.rows));
    println!("\n{}", matrix::matrix(&run.rows, modes::names()));
    let bad = run.rows.iter().filter(|row| row.problem.is_some()).count();
    println!("{} of {} failed", bad, run.rows.len());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Run<'_> {
    pub fn push(&mut self, row: Row) {
        say!("{}", row.line(24));
        self.rows.push(row);
    }

    /// Does something that passes or fails as a whole.
    fn step(&mut self, name: &str, work: impl FnOnce(&Workspace) -> Result<()>) -> Result<()> {
        if !self.args.wants(name) {
            return Ok(());
        }
        let started = Instant::now();
        let result = work(&self.workspace);
        process::check_interrupt()?;
        self.push(Row::step(name, "host", started.elapsed(), result.err().map(|error| format!("{error:#}"))));
        Ok(())
    }

    /// What is checked without running anything.
    fn steps(&mut self) -> Result<()> {
        self.step("format", |workspace| process::run(&mut workspace.cargo(&["fmt", "--all", "--check"])))?;
        let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        self.step("clippy", |workspace| process::run(&mut workspace.cargo(&clippy)))?;
        let docs = ["doc", "--quiet", "--no-deps", "--package", "upcie-core", "--package", "upcie-nvme"];
        self.step("docs", |workspace| {
            process::run(workspace.cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"))
        })?;
        let targets = process::output(Command::new("rustup").args(["target", "list", "--installed"]));
        if targets.is_ok_and(|targets| targets.lines().any(|target| target == AARCH64)) {
            let libraries = [
                "check",
                "--quiet",
                "--target",
                AARCH64,
                "--package",
                "upcie-core",
                "--package",
                "upcie-nvme",
            ];
            self.step("aarch64", |workspace| process::run(&mut workspace.cargo(&libraries)))?;
        } else if self.args.wants("aarch64") {
            say!("aarch64 is not checked: its target is absent (`rustup target add {AARCH64}`)");
        }
        let toolchains = process::output(Command::new("rustup").args(["toolchain", "list"]));
        if toolchains.is_ok_and(|list| list.lines().any(|name| name.starts_with(MSRV))) {
            self.step("msrv", |workspace| {
                let check =
                    ["run", MSRV, "cargo", "check", "--quiet", "-p", "upcie-core", "-p", "upcie-nvme"];
                let target = workspace.target.join("msrv");
                let mut command = Command::new("rustup");
                process::run(command.args(check).current_dir(&workspace.root).env("CARGO_TARGET_DIR", target))
            })?;
        } else if self.args.wants("msrv") {
            say!("Rust {MSRV} is not checked: it is absent (`rustup toolchain install {MSRV}`)");
        }
        self.step("package", package::check)?;
        self.step("licences", licences::check)?;
        // Both know x86-64 only.
        if cfg!(target_arch = "x86_64") {
            self.step("instructions", |workspace| instructions::check(workspace, false))?;
            self.step("assembly", assembly::check)?;
        }
        Ok(())
    }

    /// Builds fio's engine: its suite has nothing to do without.
    fn engine(&mut self, found: Result<fio::Found>) -> Result<()> {
        let started = Instant::now();
        match found.and_then(|found| fio::build(&self.workspace, &found)) {
            Ok(built) => self.fio = Some(built),
            Err(error) if self.strict => {
                let problem = Some(format!("{error:#}"));
                self.push(Row::step("fio's engine", "host", started.elapsed(), problem));
            }
            Err(error) => say!("fio's suite is left out: {error:#}"),
        }
        process::check_interrupt()
    }

    fn build(&mut self) -> Result<Vec<Executable>> {
        say!("building the tools and the tests");
        self.tools = self.workspace.build_tools(false)?;
        // Linux's driver needs none of the tests.
        if !self.args.mode.is_empty() && !modes::needs_suites(&self.args.mode) {
            return Ok(Vec::new());
        }
        // A cell of the matrix needs no more than the suites.
        let packages = if self.args.mode.is_empty() { "--workspace" } else { "--package=upcie-tests" };
        self.workspace.build(&["test", "--quiet", packages, "--no-run"])
    }

    /// Unit tests, doc tests, suites and examples on this machine.
    fn host(&mut self, executables: &[Executable]) -> Result<()> {
        let logs = self.workspace.target.join("xtask");
        fs::create_dir_all(&logs)?;
        let log = logs.join("suite.log");
        for executable in executables {
            let name = name(executable);
            if name.starts_with(GUEST_ONLY) || !self.args.wants(&name) {
                continue;
            }
            if is_suite(executable) && modes::anywhere(&name) {
                for &(mode, device) in HOST.iter().filter(|(mode, _)| modes::wanted(mode, &self.args.mode)) {
                    let mut command = self.workspace.command(executable);
                    command.env("UPCIE_TEST_DEVICES", device);
                    let mut row = refuse_empty(self.suite(&name, true, &mut command, &log)?);
                    row.mode = Some(mode);
                    self.push(row);
                }
                continue;
            }
            if !self.args.mode.is_empty() {
                continue;
            }
            let mut command = self.workspace.command(executable);
            if executable.kind == "example" {
                command.arg("emu");
            } else if !executable.test {
                continue;
            }
            let row = self.suite(&name, executable.test, &mut command, &log)?;
            // Most programs have no unit tests, and need none.
            let nothing = row.passed + row.failed + row.ignored == 0 && row.problem.is_none();
            if nothing && executable.kind != "test" {
                continue;
            }
            self.push(refuse_empty(row));
        }
        if self.args.mode.is_empty() && self.args.wants("doc tests") {
            let mut command = self.workspace.cargo(&["test", "--quiet", "--workspace", "--doc"]);
            let row = self.suite("doc tests", true, &mut command, &log)?;
            if row.passed + row.failed + row.ignored > 0 || row.problem.is_some() {
                self.push(row);
            }
        }
        Ok(())
    }

    fn suite(&self, name: &str, harness: bool, command: &mut Command, log: &std::path::Path) -> Result<Row> {
        command.env("UPCIE_BIN", self.workspace.bin(false));
        command.env("RUST_BACKTRACE", "1");
        if let Some(built) = &self.fio {
            command.env("UPCIE_FIO", &built.fio).env("UPCIE_FIO_ENGINE", &built.engine);
        }
        let started = Instant::now();
        let (status, text) = process::captured(command, log, DEADLINE, self.args.verbose)?;
        // As a shell says it: 128 and the signal that ended it.
        let code = status.map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        let row = row(name, "host", started.elapsed(), code, &text, harness, self.strict);
        if row.problem.is_some() && !self.args.verbose {
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

pub fn row(
    name: &str,
    place: &'static str,
    time: Duration,
    code: Option<i32>,
    text: &str,
    harness: bool,
    strict: bool,
) -> Row {
    if harness {
        return Row::suite(name, place, time, code, text, strict);
    }
    let problem = match code {
        Some(0) => None,
        Some(code) => Some(format!("exit code {code}")),
        None => Some("no end within its deadline".to_owned()),
    };
    Row::step(name, place, time, problem)
}

/// A suite that holds no test passes by mistake.
pub fn refuse_empty(mut row: Row) -> Row {
    if row.problem.is_none() && row.passed + row.ignored == 0 {
        row.problem = Some("no test ran".to_owned());
    }
    row
}
