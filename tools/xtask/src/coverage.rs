//! `cargo xtask coverage`: which lines of the libraries the unit tests and the suites of this machine execute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{Executable, Workspace};
use crate::process::{self, log};
use crate::suites::nightly::Nightly;

/// The sources that count.
const LIBRARIES: [&str; 3] = ["upcie-core/src", "upcie-nvme/src", "upcie-c/src"];
/// The library that C programs are linked with, if it was built.
const SHARED: &str = "libupcie.so";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask coverage\n  cargo xtask coverage upcie-nvme   # by the unit tests of upcie-nvme alone\n  cargo xtask coverage --add queues reset   # by these suites too"
)]
pub struct Args {
    /// Add to what former runs have executed since the last one without this option; the sources must be the same
    #[arg(long)]
    add: bool,
    /// Only the unit tests and suites whose name contains one of these words
    words: Vec<String>,
}

/// The lines of a source, and how often each was executed.
type Lines = BTreeMap<u32, u64>;

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let nightly = Nightly::new(&workspace, "coverage", "-Cinstrument-coverage", &[])?;
    let tools = nightly.tools()?;
    let executables = nightly.build(&args.words)?;
    let [profiles, objects] = ["profiles", "objects"].map(|name| nightly.directory().join(name));
    if !args.add {
        let _ = fs::remove_dir_all(&profiles);
        let _ = fs::remove_file(&objects);
    }
    // Programs of one build write to a few files, each of which sums up.
    let pattern = profiles.join("%4m.profraw").display().to_string();
    let passed = nightly.run(&executables, &args.words, &[("LLVM_PROFILE_FILE", pattern)])?;

    let merged = nightly.directory().join("merged.profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    process::run(merge.args(["merge", "--sparse", "--failure-mode=warn", "-o"]).arg(&merged).arg(&profiles))?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged);
    let mut programs = programs(&executables, &objects)?;
    let shared = nightly.built().join(SHARED);
    programs.extend(shared.exists().then(|| shared.display().to_string()));
    // The first program has no option before it.
    for (index, program) in programs.iter().enumerate() {
        if index > 0 {
            export.arg("--object");
        }
        export.arg(program);
    }
    let report = process::output(export.args(LIBRARIES.map(|library| workspace.root.join(library))))?;
    let files = parse(&report, &workspace.root);
    print!("\n{}", table(&files));
    let list = nightly.directory().join("uncovered.txt");
    fs::write(&list, uncovered(&files)).with_context(|| list.display().to_string())?;
    log!("lines that were not executed: {}", list.display());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lists the programs of this run and of those before it, which the file `objects` names, and notes all of them there.
fn programs(executables: &[Executable], objects: &Path) -> Result<BTreeSet<String>> {
    let mut all: BTreeSet<_> = process::read(objects).lines().map(str::to_owned).collect();
    all.extend(executables.iter().map(|executable| executable.path.display().to_string()));
    // A former program that was built anew since has another name.
    all.retain(|program| Path::new(program).exists());
    let text = all.iter().map(|program| format!("{program}\n")).collect::<String>();
    fs::write(objects, text).with_context(|| objects.display().to_string())?;
    Ok(all)
}

/// Reads a report in lcov's format: the lines of each source of the libraries, without tests.
fn parse(report: &str, root: &Path) -> BTreeMap<String, Lines> {
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    let mut now: Option<(String, u32)> = None;
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let name = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path)).display().to_string();
            let source = fs::read_to_string(path).unwrap_or_default();
            let is_test =
                name.contains("/tests/") || name.ends_with("tests.rs") || name.contains("/testing/");
            now = (!is_test).then(|| (name, tests_begin(&source)));
        } else if let (Some((name, end)), Some(data)) = (&now, line.strip_prefix("DA:")) {
            let mut numbers = data.split(',').map(|number| number.parse::<u64>().unwrap_or(0));
            let (at, count) = (numbers.next().unwrap_or(0) as u32, numbers.next().unwrap_or(0));
            if at < *end {
                *files.entry(name.clone()).or_default().entry(at).or_default() += count;
            }
        }
    }
    files
}

/// Returns the line at which a source's unit tests begin.
fn tests_begin(source: &str) -> u32 {
    let lines: Vec<_> = source.lines().collect();
    let is_begin =
        |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(is_begin).map_or(u32::MAX, |at| at as u32 + 1)
}

/// Returns the module of a source: the crate, and the first part of its path.
fn module(name: &str) -> String {
    let (library, rest) = name.split_once("/src/").unwrap_or(("", name));
    let first = rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs");
    format!("{}::{first}", library.replace('-', "_"))
}

/// Formats the table of modules, and the sum of each library.
fn table(files: &BTreeMap<String, Lines>) -> String {
    let mut modules: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (name, lines) in files {
        let covered = lines.values().filter(|&&count| count > 0).count();
        let module = module(name);
        let library = module.split("::").next().unwrap_or_default().to_owned();
        for key in [module, library] {
            let sum = modules.entry(key).or_default();
            *sum = (sum.0 + lines.len(), sum.1 + covered);
        }
    }
    let mut text = String::from("| module | lines | executed | % |\n|---|---|---|---|\n");
    for (name, (all, covered)) in modules {
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "| `{name}` | {all} | {covered} | {:.1} |", 100.0 * covered as f64 / all as f64);
    }
    text
}

/// Lists the lines that were not executed, as ranges.
fn uncovered(files: &BTreeMap<String, Lines>) -> String {
    let mut text = String::new();
    for (name, lines) in files {
        let missed: BTreeSet<u32> =
            lines.iter().filter(|(_, count)| **count == 0).map(|(at, _)| *at).collect();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for at in missed {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == at => *end = at,
                _ => ranges.push((at, at)),
            }
        }
        for (start, end) in ranges {
            let _ = writeln!(text, "{name}:{start}-{end}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_report_are_summed_by_module() {
        let report = "SF:/w/upcie-nvme/src/engine/turn.rs\nDA:1,2\nDA:2,0\nDA:3,0\nDA:9,0\nend_of_record\n\
                      SF:/w/upcie-nvme/src/engine/ring.rs\nDA:7,1\nend_of_record\n\
                      SF:/w/upcie-nvme/src/engine/tests.rs\nDA:1,0\nend_of_record\n";
        let files = parse(report, Path::new("/w"));
        assert!(table(&files).contains("| `upcie_nvme::engine` | 5 | 2 | 40.0 |"), "{}", table(&files));
        let list = uncovered(&files);
        assert_eq!(list, "upcie-nvme/src/engine/turn.rs:2-3\nupcie-nvme/src/engine/turn.rs:9-9\n");
    }

    #[test]
    fn unit_tests_at_the_end_of_a_source_do_not_count() {
        assert_eq!(tests_begin("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 3);
        assert_eq!(tests_begin("fn a() {}\n#[cfg(test)]\nmod tests;\n"), u32::MAX);
    }
}
