//! Checks that the simulation finds bugs: plants each of a list of bugs into a copy of the sources, and plays seeds until
//! one fails.
//!
//! All bugs are in one build of the copy, each behind a condition that `UPCIE_PLANTED` makes true. The sources themselves have
//! nothing of it.

mod copy;
mod mutants;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::{Executable, Workspace};
use crate::process::{self, log};
use mutants::{MUTANTS, Mutant};

/// Seeds in which each bug must be found.
const SEEDS: &str = "10000";
/// Seeds that must hold in the copy without a bug.
const WITHOUT: &str = "200";
/// The longest time for one bug; 10,000 seeds take a minute on two quiet cores.
const DEADLINE: Duration = Duration::from_secs(300);
/// The variable with the number of the bug that is at work.
const VARIABLE: &str = "UPCIE_PLANTED";

/// Plants each bug whose name contains one of `words`, all without any; prints what was found, and fails if one was not.
pub fn check(workspace: &Workspace, words: &[String]) -> Result<()> {
    let wanted =
        |mutant: &Mutant| words.is_empty() || words.iter().any(|word| mutant.name.contains(word.as_str()));
    if !MUTANTS.iter().any(wanted) {
        bail!("no planted bug has a name that contains {}", words.join(" or "));
    }
    let program = build(workspace)?;
    let log = workspace.target.join("xtask/planted.log");
    if let Found::Failed { said, .. } = play(&program, 0, WITHOUT, &log)? {
        bail!("the simulation fails without a planted bug: {said}");
    }
    let mut missed = Vec::new();
    for (number, mutant) in (1..).zip(MUTANTS).filter(|(_, mutant)| wanted(mutant)) {
        let started = Instant::now();
        let (seed, said) = match play(&program, number, SEEDS, &log)? {
            Found::Failed { seed, said } => (seed, said),
            Found::Nothing(reason) => {
                missed.push(mutant.name);
                ("-".to_owned(), reason)
            }
        };
        // Without the device's name, which has all options.
        let said = said.split(": ").filter(|part| !part.starts_with("emu:")).collect::<Vec<_>>().join(": ");
        let said: String = said.chars().take(110).collect();
        println!("{:54} {seed:>8} {:>6.1} s  {said}", mutant.name, started.elapsed().as_secs_f64());
    }
    if !missed.is_empty() {
        bail!("{SEEDS} seeds don't find {} of the planted bugs: {}", missed.len(), missed.join(", "));
    }
    Ok(())
}

/// Builds the simulation of the copy with all bugs.
fn build(workspace: &Workspace) -> Result<Executable> {
    let directory = workspace.target.join("xtask/planted");
    copy::make(&workspace.root, &directory, VARIABLE, workspace.version("upcie-core")?)?;
    log!("building the simulation with {} planted bugs", MUTANTS.len());
    let copy = Workspace::at(&directory, Some(&workspace.target))?;
    let programs = copy.build(&["build", "--quiet", "--profile", "sim", "--package", "upcie-simulation"])?;
    programs.into_iter().find(|program| program.kind == "bin").context("cargo built no program")
}

/// The end of the seeds with one bug.
enum Found {
    /// A seed failed, and the property that it broke.
    Failed { seed: String, said: String },
    /// No seed failed, or the program did not get so far.
    Nothing(String),
}

/// Plays `seeds` seeds with the bug of this number; 0 is none.
fn play(program: &Executable, number: usize, seeds: &str, log: &Path) -> Result<Found> {
    let mut command = std::process::Command::new(&program.path);
    command.args(["--brief", "--seeds", seeds]).env(VARIABLE, number.to_string());
    let (status, text) = process::captured(&mut command, log, DEADLINE, false)?;
    let _ = fs::remove_file(log);
    // "seed 1:17 (Healthy) FAILED: what"
    if let Some((seed, said)) = text.lines().find_map(|line| line.split_once(" FAILED: ")) {
        let seed = seed.trim_start_matches("seed ").split(' ').next().unwrap_or(seed);
        return Ok(Found::Failed { seed: seed.to_owned(), said: said.to_owned() });
    }
    Ok(Found::Nothing(match status {
        Some(status) if status.success() => "not found".to_owned(),
        Some(status) => format!("the simulation died: {status} {}", process::last_lines(&text, 1)),
        None => format!("the simulation took more than {} s", DEADLINE.as_secs()),
    }))
}
