//! The workspace as cargo tells it, and what it built.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;

/// Where things are.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// Something cargo built that can be run.
#[derive(Debug, Clone)]
pub struct Executable {
    pub package: String,
    /// Directory of the package's manifest, where its tests expect to run.
    pub directory: PathBuf,
    /// `lib`, `bin`, `test`, `bench`, `example`.
    pub kind: String,
    /// Built with the test harness.
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

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Tells whether this is a run of continuous integration, where a test that can't run is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

impl Workspace {
    /// The one this program was built from.
    pub fn find() -> Result<Self> {
        Self::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), None)
    }

    /// The one at a directory, building where cargo would or elsewhere.
    pub fn at(root: &Path, target: Option<&Path>) -> Result<Self> {
        let mut command = cargo();
        if let Some(target) = target {
            command.env("CARGO_TARGET_DIR", target);
        }
        command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
        serde_json::from_str(&process::output(&mut command)?).context("cargo metadata")
    }

    /// A cargo command in this workspace.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        if is_ci() {
            // Nothing is built twice there: the parts of an incremental build would take disk space for nothing.
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// The version of a package of this workspace.
    pub fn version(&self, name: &str) -> Result<&str> {
        let package = self.packages.iter().find(|package| package.name == name);
        Ok(&package.with_context(|| format!("no package {name}"))?.version)
    }

    /// Builds, showing the compiler's messages, and returns what can be run.
    pub fn build(&self, arguments: &[&str]) -> Result<Vec<Executable>> {
        self.build_by(self.cargo(arguments))
    }

    /// The same for what is measured: whatever the environment says, nothing is compiled in increments, since that cuts a
    /// crate into other pieces and so changes its code.
    pub fn build_optimised(&self, arguments: &[&str]) -> Result<Vec<Executable>> {
        let mut command = self.cargo(arguments);
        command.env("CARGO_INCREMENTAL", "0");
        self.build_by(command)
    }

    fn build_by(&self, mut command: Command) -> Result<Vec<Executable>> {
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
        // Cargo names them as they get ready.
        executables.sort_by(|a, b| (&a.package, &a.kind, &a.name).cmp(&(&b.package, &b.kind, &b.name)));
        Ok(executables)
    }

    /// Builds the tools and returns their paths.
    pub fn build_tools(&self, release: bool) -> Result<Vec<PathBuf>> {
        let mut arguments = vec!["build", "--package", "upcie-tools", "--bins"];
        // A person sees the progress of what may take a minute; a script sees only messages.
        if !std::io::stderr().is_terminal() {
            arguments.push("--quiet");
        }
        if release {
            arguments.push("--release");
        }
        Ok(self.build(&arguments)?.into_iter().map(|executable| executable.path).collect())
    }

    /// Runs an executable the way `cargo test` does: in its package, with the variables that suites read.
    pub fn command(&self, executable: &Executable) -> Command {
        let mut command = Command::new(&executable.path);
        command
            .current_dir(&executable.directory)
            .env("CARGO", cargo().get_program())
            .env("CARGO_MANIFEST_DIR", &executable.directory)
            .env("CARGO_PKG_NAME", &executable.package);
        command
    }

    /// The directory of a profile's programs, for UPCIE_BIN.
    pub fn bin(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" })
    }
}
