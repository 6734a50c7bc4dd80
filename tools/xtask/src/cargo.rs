//! The workspace as cargo describes it, and the programs that cargo built.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;

/// Directories and packages of the workspace.
#[derive(Debug, Clone, Deserialize)]
pub struct Workspace {
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

/// A program that cargo built.
#[derive(Debug, Clone)]
pub struct Executable {
    pub package: String,
    /// Directory of the package's manifest; its tests run there.
    pub directory: PathBuf,
    /// `lib`, `bin`, `test`, `bench` or `example`.
    pub kind: String,
    /// True if it was built with the test harness.
    pub test: bool,
    pub name: String,
    pub path: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Returns true in continuous integration, where a test that can't run is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Makes a command of the cargo that runs this program.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

impl Workspace {
    /// Finds the workspace that this program was built from.
    pub fn find() -> Result<Self> {
        Self::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), None)
    }

    /// Finds the workspace in a directory, with cargo's target directory or another one.
    pub fn at(root: &Path, target: Option<&Path>) -> Result<Self> {
        let mut command = cargo();
        if let Some(target) = target {
            command.env("CARGO_TARGET_DIR", target);
        }
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
        serde_json::from_str(&process::output(&mut command)?).context("cargo metadata")
    }

    /// Makes a cargo command in this workspace.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        if is_ci() {
            // CI builds everything once, so incremental compilation would only take disk space.
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// Returns the version of a package of this workspace.
    pub fn version(&self, name: &str) -> Result<&str> {
        let package = self.packages.iter().find(|package| package.name == name);
        Ok(&package.with_context(|| format!("no package {name}"))?.version)
    }

    /// Lists the integration tests of a package whose name contains one of `words`.
    pub fn tests(&self, package: &str, words: &[String]) -> Vec<String> {
        let packages = self.packages.iter().filter(|known| known.name == package);
        let tests = packages.flat_map(|package| &package.targets).filter(|target| target.kind == ["test"]);
        let wanted = |target: &&Target| words.iter().any(|word| target.name.contains(word.as_str()));
        tests.filter(wanted).map(|target| target.name.clone()).collect()
    }

    /// Builds, shows the compiler's messages, and returns the programs.
    pub fn build(&self, arguments: &[&str]) -> Result<Vec<Executable>> {
        self.build_by(self.cargo(arguments))
    }

    /// Builds programs that are measured. Incremental compilation is always off, because it splits a crate
    /// differently and so changes the machine code.
    pub fn build_optimised(&self, arguments: &[&str]) -> Result<Vec<Executable>> {
        let mut command = self.cargo(arguments);
        command.env("CARGO_INCREMENTAL", "0");
        self.build_by(command)
    }

    /// Builds by a cargo command, like [`build`](Self::build).
    pub fn build_by(&self, mut command: Command) -> Result<Vec<Executable>> {
        command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().with_context(|| process::describe(&command))?;
        process::check_interrupt()?;
        if !output.status.success() {
            bail!("`{}` failed: {}", process::describe(&command), output.status);
        }
        let mut executables = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Message>(line) else { continue };
            let (Some(target), Some(path), Some(id)) =
                (message.target, message.executable, message.package_id)
            else {
                continue;
            };
            let Some(package) = self.packages.iter().find(|package| package.id == id) else { continue };
            if message.reason == "compiler-artifact" {
                executables.push(Executable {
                    package: package.name.clone(),
                    directory: package.manifest_path.parent().unwrap_or(&self.root).to_owned(),
                    kind: target.kind.into_iter().next().unwrap_or_default(),
                    test: message.profile.is_some_and(|profile| profile.test),
                    name: target.name,
                    path,
                });
            }
        }
        // Cargo lists them in the order in which they were built.
        executables.sort_by(|a, b| (&a.package, &a.kind, &a.name).cmp(&(&b.package, &b.kind, &b.name)));
        Ok(executables)
    }

    /// Builds the tools; returns their paths.
    pub fn build_tools(&self, release: bool) -> Result<Vec<PathBuf>> {
        let mut arguments = vec!["build", "--package", "upcie-tools", "--bins"];
        // Show progress to a person, since this may take a minute; show a script only messages.
        if !std::io::stderr().is_terminal() {
            arguments.push("--quiet");
        }
        if release {
            arguments.push("--release");
        }
        Ok(self.build(&arguments)?.into_iter().map(|executable| executable.path).collect())
    }

    /// Makes the command that runs a program as `cargo test` does: in its package, with the variables that
    /// suites read.
    pub fn command(&self, executable: &Executable) -> Command {
        let mut command = Command::new(&executable.path);
        command
            .current_dir(&executable.directory)
            .env("CARGO", cargo().get_program())
            .env("CARGO_MANIFEST_DIR", &executable.directory)
            .env("CARGO_PKG_NAME", &executable.package);
        command
    }

    /// Returns the directory of a profile's programs, for UPCIE_BIN.
    pub fn bin(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" })
    }
}
