//! Unit tests and suites of this machine, built by the nightly compiler with instrumentation that stable Rust lacks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::cargo::{Executable, Workspace};
use crate::process::{self, log};
use crate::suites::row::{self, Row};
use crate::suites::run::{SUITES, name};

/// Deadline of each program; instrumented ones are some times slower.
const DEADLINE: Duration = Duration::from_secs(1800);

/// The packages whose unit tests run.
const LIBRARIES: [&str; 3] = ["upcie-core", "upcie-nvme", "upcie-c"];

/// Beginnings of suites' names that can't run instrumented, and the reasons.
const LEFT_OUT: &[(&str, &str)] = &[
    ("guest_", "it runs in the guest"),
    ("fio_", "fio is not instrumented, and loads the engine"),
    ("host_fio", "fio is not instrumented, and loads the engine"),
    ("host_python", "Python is not instrumented, and loads the module"),
    ("host_compile_fail", "it tests the compiler's messages"),
    ("host_examples", "its programs are not built here"),
    ("no_allocation", "it counts allocations, and the instrumentation's would count"),
    ("no_syscalls", "it counts system calls, and the instrumentation's would count"),
];

/// Beginnings of suites' names that can't run under a sanitizer, beside those, and the reason.
const NOT_SANITIZED: &[(&str, &str)] = {
    const REASON: &str = "the C compiler does not link the sanitizer into its programs";
    &[("abi", REASON), ("c_programs", REASON), ("xnvme", REASON)]
};

/// A build of the tests in a target directory of its own.
#[derive(Debug)]
pub struct Nightly {
    workspace: Workspace,
    rustflags: String,
    arguments: Vec<String>,
    triple: String,
}

impl Nightly {
    /// Describes a build in `directory` below the target directory, with flags of the compiler and arguments of cargo.
    pub fn new(workspace: &Workspace, directory: &str, rustflags: &str, arguments: &[&str]) -> Result<Self> {
        let toolchains = process::output(Command::new("rustup").args(["toolchain", "list"]))?;
        if !toolchains.lines().any(|line| line.starts_with("nightly")) {
            bail!("this needs a nightly compiler: `rustup toolchain install nightly`");
        }
        let target = workspace.target.join(directory);
        Ok(Self {
            workspace: Workspace::at(&workspace.root, Some(&target))?,
            rustflags: rustflags.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            triple: format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        })
    }

    /// Returns the directory of the build.
    pub fn directory(&self) -> &Path {
        &self.workspace.target
    }

    /// Returns the directory of the programs and libraries.
    pub fn built(&self) -> PathBuf {
        self.directory().join(&self.triple).join("debug")
    }

    /// Returns the directory of LLVM's tools.
    pub fn tools(&self) -> Result<PathBuf> {
        let sysroot =
            process::output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
        let tools = Path::new(sysroot.trim()).join("lib/rustlib").join(&self.triple).join("bin");
        if !tools.join("llvm-cov").exists() {
            bail!("LLVM's tools are missing: `rustup component add llvm-tools --toolchain nightly`");
        }
        Ok(tools)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]).args(arguments);
        // With a target, build scripts and macros are not instrumented.
        command.args(["--quiet", "--target", &self.triple]).args(&self.arguments);
        command.current_dir(&self.workspace.root).env("CARGO_TARGET_DIR", &self.workspace.target);
        command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env("RUSTFLAGS", &self.rustflags);
        command
    }

    /// Builds the tests whose name contains one of `words`, all without words, and the tools if there are suites among them;
    /// returns all programs.
    pub fn build(&self, words: &[String]) -> Result<Vec<Executable>> {
        log!("building with {}", self.rustflags);
        let mut all = Vec::new();
        if words.is_empty() || !self.workspace.tests(SUITES, words).is_empty() {
            let tools = ["build", "--package", "upcie-tools", "--bins"];
            all = self.workspace.build_by(self.cargo(&tools))?;
        }
        for arguments in self.tests(words) {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            all.extend(self.workspace.build_by(self.cargo(&arguments))?);
        }
        Ok(all)
    }

    /// Lists cargo's arguments for the tests: one build for all of them, or one for each wanted library and one for the wanted
    /// suites.
    fn tests(&self, words: &[String]) -> Vec<Vec<String>> {
        let command = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        if words.is_empty() {
            let packages = LIBRARIES.iter().chain([&SUITES]).flat_map(|package| ["--package", package]);
            let all = ["test", "--no-run", "--all-features", "--lib", "--tests"].into_iter().chain(packages);
            return vec![command(&all.collect::<Vec<_>>())];
        }
        let wanted = |package: &str| words.iter().any(|word| package.contains(word.as_str()));
        let libraries = LIBRARIES.iter().chain([&SUITES]).filter(|package| wanted(package));
        let library =
            |package: &&str| command(&["test", "--no-run", "--all-features", "--package", package, "--lib"]);
        let mut commands: Vec<_> = libraries.map(library).collect();
        let suites = self.workspace.tests(SUITES, words);
        if !suites.is_empty() {
            let names = suites.iter().flat_map(|name| ["--test", name]);
            let suites = ["test", "--no-run", "--package", SUITES].into_iter().chain(names);
            commands.push(command(&suites.collect::<Vec<_>>()));
        }
        commands
    }

    /// Runs the tests whose name contains one of `words`, all without words, with the variables of `environment`; prints the
    /// output of those that fail, and a table. Returns `true` if all passed.
    pub fn run(
        &self,
        executables: &[Executable],
        words: &[String],
        environment: &[(&str, String)],
    ) -> Result<bool> {
        let output = self.directory().join("suite.log");
        let mut rows = Vec::new();
        let more = if self.rustflags.contains("sanitizer") { NOT_SANITIZED } else { &[] };
        for executable in executables.iter().filter(|executable| executable.test) {
            let name = name(executable);
            if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let left_out = LEFT_OUT.iter().chain(more).find(|(prefix, _)| name.starts_with(prefix));
            if let Some((_, reason)) = left_out {
                log!("left out: {name}: {reason}");
                continue;
            }
            let mut command = self.workspace.command(executable);
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command.env("UPCIE_BIN", self.built());
            let started = Instant::now();
            let (status, text) = process::captured(&mut command, &output, DEADLINE, false)?;
            let code = status.map(|status| status.code().unwrap_or(128));
            let row = Row::suite(&name, "host", started.elapsed(), code, &text, false);
            if row.problem.is_some() {
                println!("{}", text.trim_end());
            }
            log!("{}", row.line(24));
            rows.push(row);
        }
        if rows.is_empty() {
            bail!("no test has a name that contains {}", words.join(" or "));
        }
        print!("\n{}", row::table(&rows));
        Ok(rows.iter().all(|row| row.problem.is_none()))
    }
}
