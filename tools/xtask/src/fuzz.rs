//! `cargo xtask fuzz`: runs the fuzz targets for longer than the suites do.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::process::{self, log};

/// The packages with targets: those for anybody, and unit tests of private parts with `fuzz` in their names.
const PACKAGES: [&str; 4] = ["upcie-fuzz", "upcie-core", "upcie-nvme", "upcie-tools"];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz --runs 10000000 vfio_user_server\n  cargo xtask fuzz --runs 10000000 --from 10000000   # go on where that run has ended\n  cargo xtask fuzz addresses fault_plans\n  cargo xtask fuzz --guided --runs 10000000 addresses"
)]
pub struct Args {
    /// The number of mutations of each target
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// The number of the first mutation: the sum of a former run's --from and --runs, to go on where it has ended
    #[arg(long, default_value_t = 0, conflicts_with = "guided")]
    from: u64,
    /// Let coverage guide the mutations: libFuzzer, which needs a nightly compiler and cargo-fuzz
    #[arg(long)]
    guided: bool,
    /// Only the targets whose name, or whose test's name, contains one of these words (with --guided: whose name)
    targets: Vec<String>,
}

/// The package of libFuzzer's entry points.
const GUIDED: &str = "tests/fuzz/fuzz";
/// The longest input that libFuzzer makes, in bytes.
const LONGEST: u32 = 8192;
/// A run of more seconds hangs.
const HANGS: u32 = 30;

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    if args.guided {
        return guided(&workspace, args);
    }
    let mut command = workspace.cargo(&["test", "--quiet", "--profile", "sim"]);
    command
        .args(PACKAGES.map(|package| format!("--package={package}")))
        .args(["--lib", "--bins", "--test", "fuzzed"]);
    command.args(["--", "--nocapture", "fuzz"]);
    command.env("UPCIE_FUZZ_RUNS", args.runs.to_string()).env("UPCIE_FUZZ_FROM", args.from.to_string());
    if !args.targets.is_empty() {
        command.env("UPCIE_FUZZ_TARGETS", args.targets.join(","));
    }
    let directory = workspace.target.join("fuzz");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let (status, text) = process::captured(&mut command, &directory.join("log"), Duration::MAX, true)?;
    let code = status.and_then(|status| status.code()).unwrap_or(1);
    if code != 0 {
        return Ok(ExitCode::from(code as u8));
    }
    let count = text.lines().filter(|line| line.ends_with(&ending(args))).count();
    if count == 0 {
        bail!("no target has a name, or a test with a name, that contains {}", args.targets.join(" or "));
    }
    log!("{count} targets; to go on: --from {}", args.from.saturating_add(args.runs));
    Ok(ExitCode::SUCCESS)
}

/// Returns the end of the line that each target prints (`upcie_core::testing::fuzz`).
fn ending(args: &Args) -> String {
    format!(" seeds, {} mutations from {} on", args.runs, args.from)
}

/// Runs each target under libFuzzer, from its seeds, its kept inputs, and the inputs that former runs have found.
fn guided(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let (package, target) = (workspace.root.join(GUIDED), workspace.target.join("fuzz"));
    let (seeds, build) = (target.join("seeds"), target.join("build"));
    let program = ["run", "--quiet", "--package", "upcie-fuzz", "--bin", "seeds", "--"];
    process::run(workspace.cargo(&program).arg(&seeds))?;
    let (mut count, mut failed) = (0, Vec::new());
    for name in names(&package.join("fuzz_targets"))? {
        if !args.targets.is_empty() && !args.targets.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        log!("target {name}");
        count += 1;
        let found = target.join("corpus").join(&name);
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir"]).arg(&package);
        command.arg("--target-dir").arg(&build).arg(&name).arg(&found).arg(seeds.join(&name));
        let kept = workspace.root.join("tests/fuzz/corpus").join(&name);
        if kept.exists() {
            command.arg(kept);
        }
        command.arg("--").arg(format!("-runs={}", args.runs)).arg(format!("-max_len={LONGEST}"));
        command.arg(format!("-timeout={HANGS}")).arg("-print_final_stats=1");
        command.current_dir(&workspace.root).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
        if !process::status(&mut command)?.success() {
            failed.push(name);
        }
    }
    if count == 0 {
        bail!("no target of {GUIDED} has a name that contains {}", args.targets.join(" or "));
    }
    if !failed.is_empty() {
        bail!("failed: {}; see above, and {GUIDED}/artifacts", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the names of the targets, which are files of a directory.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let name = |entry: fs::DirEntry| Some(entry.path().file_stem()?.to_string_lossy().into_owned());
    let mut names: Vec<_> = entries.filter_map(|entry| name(entry.ok()?)).collect();
    names.sort();
    Ok(names)
}
