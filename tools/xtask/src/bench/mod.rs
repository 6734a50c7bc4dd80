//! `cargo xtask bench`: runs the benches, collects their results, and compares two revisions.
//!
//! A bench writes each result as one JSON object to a file in the directory `UPCIE_BENCH_OUT`; [`Entry`] has
//! the keys. `UPCIE_BIN` is the directory of programs that it starts. The benches of the hot path run in each
//! of [`PROFILES`].

mod entry;
mod fio;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::bench::entry::{Entry, median, number};
use crate::cargo::{Executable, Workspace};
use crate::checks::counted::{BENCHES, PROFILES};
use crate::checks::{assembly, instructions};
use crate::process::{self, log};

/// Benches that start no other program.
const ALONE: [&str; 8] = ["hot_path", "async_queue", "heap", "prp", "protection", "iova", "memory", "start"];
const HOT_PATH: &str = "hot_path";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench hot_path\n  cargo xtask bench hot_path --against main\n  cargo xtask bench --instructions"
)]
pub struct Args {
    /// Run only the benches whose name contains this word
    filter: Option<String>,
    /// Build profile of the hot path's benches: release as the workspace's programs, user with cargo's
    /// defaults (these entries are named hot_path_user/…) [default: both]
    #[arg(long, value_parser = PROFILES)]
    profile: Option<String>,
    /// Also build this revision, and run the two in turns
    #[arg(long, value_name = "REV")]
    against: Option<String>,
    /// Number of runs of each of the two
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
    /// Count the hot path's instructions per I/O with callgrind instead, and check its machine code
    #[arg(long, conflicts_with_all = ["filter", "against"])]
    instructions: bool,
    /// Write the counts to benches/instructions.json
    #[arg(long, requires = "instructions")]
    update: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    if args.instructions {
        instructions::check(&workspace, args.update)?;
        assembly::check(&workspace)?;
        return Ok(ExitCode::SUCCESS);
    }
    match &args.against {
        None => bench(args, &workspace)?,
        Some(revision) => compare(args, &workspace, revision)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(args: &Args, workspace: &Workspace) -> Result<()> {
    let directory = workspace.target.join("bench");
    let filter = args.filter.as_deref();
    // The benches with fio are not part of the package.
    let mut entries = match filter {
        Some(filter) if filter.starts_with("fio") => Vec::new(),
        _ => Build::new(args, workspace)?.run(args, &directory.join("entries"))?,
    };
    entries.extend(fio::run(workspace, filter)?);
    fs::create_dir_all(&directory)?;
    let summary = directory.join("summary.json");
    fs::write(&summary, serde_json::to_string_pretty(&entries)? + "\n")?;

    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(5);
    println!(
        "\n{:width$} {:>10} {:>10} {:>7} {:>8} {:>5}  unit",
        "bench", "ours", "theirs", "ratio", "spread", "runs"
    );
    for entry in &entries {
        println!(
            "{:width$} {:>10} {:>10} {:>7} {:>8} {:>5}  {}",
            entry.name,
            number(Some(entry.ours)),
            number(entry.theirs),
            number(entry.ratio),
            number(Some(entry.spread)),
            entry.runs,
            entry.unit(),
        );
    }
    println!("\nwritten to {}", summary.display());
    Ok(())
}

/// Compares with a revision. The runs are interleaved, since the speed of a machine changes by the minute.
fn compare(args: &Args, workspace: &Workspace, revision: &str) -> Result<()> {
    let worktree = Worktree::add(workspace, revision)?;
    let directory = workspace.target.join("bench");
    // The directory is kept, so that the next comparison builds only changes.
    let theirs = Workspace::at(&worktree.path, Some(&directory.join("against-target")))?;
    let builds = [("then", Build::new(args, &theirs)?), ("now", Build::new(args, workspace)?)];
    let mut runs: BTreeMap<String, (Option<Entry>, [Vec<f64>; 2])> = BTreeMap::new();
    for round in 1..=args.rounds {
        for (side, (label, build)) in builds.iter().enumerate() {
            log!("round {round} of {}: {}", args.rounds, if side == 0 { revision } else { "this tree" });
            for entry in build.run(args, &directory.join("against-entries").join(label))? {
                let run = runs.entry(entry.name.clone()).or_default();
                run.1[side].push(entry.ours);
                run.0 = Some(entry);
            }
        }
    }
    let width = runs.keys().map(String::len).max().unwrap_or(0).max(5);
    println!(
        "\n{:width$} {:>10} {:>10} {:>7}  unit   (medians of {} runs)",
        "bench", revision, "this tree", "ratio", args.rounds
    );
    for (name, (entry, [then, now])) in &mut runs {
        let (then, now) = (median(then), median(now));
        let ratio = then.zip(now).map(|(then, now)| now / then);
        let unit = entry.as_ref().map(Entry::unit).unwrap_or_default();
        println!("{name:width$} {:>10} {:>10} {:>7}  {unit}", number(then), number(now), number(ratio));
    }
    Ok(())
}

/// Benches and tools of one tree, built.
struct Build<'a> {
    workspace: &'a Workspace,
    /// All benches, with the workspace's profile.
    benches: Vec<Executable>,
    /// Benches of the hot path, with the other profile.
    user: Vec<Executable>,
}

impl<'a> Build<'a> {
    fn new(args: &Args, workspace: &'a Workspace) -> Result<Self> {
        log!("building the benches of {}", workspace.root.display());
        // The name of an entry begins with its bench: the others need not be built.
        let only = args.filter.as_deref().and_then(|filter| filter.split('/').next());
        let only = only.filter(|name| workspace.root.join(format!("benches/benches/{name}.rs")).exists());
        if !only.is_some_and(|only| ALONE.contains(&only)) {
            workspace.build_tools(true)?;
        }
        let build = |arguments: &[&str]| -> Result<Vec<Executable>> {
            let mut benches = workspace.build_optimised(arguments)?;
            benches.retain(|executable| executable.kind == "bench");
            if benches.is_empty() {
                bail!("{} has no benches in {BENCHES}", workspace.root.display());
            }
            Ok(benches)
        };
        let [release, user] =
            PROFILES.map(|profile| args.profile.as_deref().is_none_or(|only| only == profile));
        // An older revision may not have the profile.
        let user = user
            && only.is_none_or(|only| only == HOT_PATH)
            && fs::read_to_string(workspace.root.join("Cargo.toml"))?.contains("[profile.user]");
        let bench = ["bench", "--package", BENCHES, "--no-run"];
        let all = only.map_or(bench.to_vec(), |only| [&bench[..], &["--bench", only]].concat());
        let hot_path = [&bench[..], &["--bench", HOT_PATH, "--profile", PROFILES[1]]].concat();
        Ok(Self {
            workspace,
            benches: if release { build(&all)? } else { Vec::new() },
            user: if user { build(&hot_path)? } else { Vec::new() },
        })
    }

    /// Runs all benches once, as `cargo bench` does.
    fn run(&self, args: &Args, out: &Path) -> Result<Vec<Entry>> {
        let mut entries = self.run_all(&self.benches, args, out)?;
        let user = self.run_all(&self.user, args, out)?;
        entries.extend(user.into_iter().map(|entry| {
            let name = entry.name.replacen(HOT_PATH, &format!("{HOT_PATH}_{}", PROFILES[1]), 1);
            Entry { name, ..entry }
        }));
        if entries.is_empty() {
            bail!(
                "no bench left a result{}",
                args.filter.as_ref().map(|word| format!(" for {word:?}")).unwrap_or_default()
            );
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn run_all(&self, benches: &[Executable], args: &Args, out: &Path) -> Result<Vec<Entry>> {
        let _ = fs::remove_dir_all(out);
        fs::create_dir_all(out)?;
        for bench in benches {
            let mut command = self.workspace.command(bench);
            command.arg("--bench").args(&args.filter);
            command.env("UPCIE_BENCH_OUT", out).env("UPCIE_BIN", self.workspace.bin(true));
            process::run(&mut command)?;
        }
        let mut entries = Vec::new();
        for file in fs::read_dir(out)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path)?;
                entries.push(serde_json::from_str(&text).with_context(|| path.display().to_string())?);
            }
        }
        Ok(entries)
    }
}

/// A checkout of another revision, removed when dropped.
struct Worktree {
    root: PathBuf,
    path: PathBuf,
}

impl Worktree {
    fn add(workspace: &Workspace, revision: &str) -> Result<Self> {
        let worktree = Self { root: workspace.root.clone(), path: workspace.target.join("bench/against") };
        // Remove the checkout of an interrupted run.
        worktree.remove();
        let _ = process::output(worktree.git().args(["worktree", "prune"]));
        process::output(
            worktree.git().args(["worktree", "add", "--detach"]).arg(&worktree.path).arg(revision),
        )?;
        Ok(worktree)
    }

    fn git(&self) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.root);
        command
    }

    fn remove(&self) {
        if self.path.exists() {
            let _ = process::output(self.git().args(["worktree", "remove", "--force"]).arg(&self.path));
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        self.remove();
    }
}
