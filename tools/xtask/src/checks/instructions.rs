//! Counts instructions per I/O with callgrind. The numbers are exact, so that `cargo xtask test` can fail if
//! they grow.
//!
//! The `counted` program of the benches runs one function for N and for 2N I/Os; the difference divided by N
//! has no setup in it. Instructions of the stand-in device are left out. `benches/instructions.json` holds
//! the numbers by compiler and profile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::checks::counted::{PROFILES, PROGRAM, program};
use crate::process::{self, log};

const FILE: &str = "benches/instructions.json";
const DEPTHS: [u32; 3] = [1, 32, 128];
/// I/Os of the shorter run; the rings wrap several times.
const COUNT: u64 = 16 << 10;
/// The hand-written loop that the others are compared with.
const HAND: &str = "hand";
const SIDES: [&str; 5] = ["ours", "caller", "c_poll", "c_many", HAND];
/// Function of the stand-in device, which is left out.
const DEVICE: &str = "upcie_benches::standin::step";
/// Sides that are calls of the C interface, of which no optimiser makes one function.
const CALLS: &str = "c_";
/// The most instructions of the calls at depth 32, in those of the Rust turn.
const CALLS_LIMIT: f64 = 1.35;
/// Functions that must contain all instructions of the other sides: any other function is a call on the hot path.
const INSIDE: [&str; 3] = ["counted::", "upcie_benches::caller::", DEVICE];
/// Largest growth with a known compiler. The numbers have no noise, but an unrelated change may add a
/// register spill.
const GROWTH: f64 = 1.01;
/// Largest growth of the ratio to the hand-written loop, with a compiler that has no numbers yet.
const RATIO_GROWTH: f64 = 1.1;

/// Instructions per I/O by side and depth, such as `ours_qd32`.
type Figures = BTreeMap<String, f64>;
/// Figures by compiler, then by profile.
type AllFigures = BTreeMap<String, BTreeMap<String, Figures>>;

/// Counts, prints, and compares with the recorded numbers, or records new ones.
pub fn check(workspace: &Workspace, update: bool) -> Result<()> {
    if process::output(Command::new("valgrind").arg("--version")).is_err() {
        bail!("valgrind is needed (Debian: apt install valgrind)");
    }
    let path = workspace.root.join(FILE);
    let mut all: AllFigures = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| FILE)?,
        Err(_) if update => AllFigures::new(),
        Err(error) => return Err(error).context(FILE),
    };
    let compiler = compiler(workspace)?;
    let mut problems = Vec::new();
    for profile in PROFILES {
        let program = program(workspace, profile)?;
        let (figures, calls) = measure(workspace, &program)?;
        problems.extend(calls.into_iter().map(|call| format!("{profile}: {call}")));
        problems.extend(beyond_limit(profile, &figures));
        print(profile, &figures, known(&all, &compiler, profile));
        if update {
            all.entry(compiler.clone()).or_default().insert(profile.to_owned(), figures);
        } else {
            problems.extend(compare(&all, &compiler, profile, &figures));
        }
    }
    if update {
        fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
        log!("written to {FILE} for {compiler}");
    }
    if !problems.is_empty() {
        bail!("the hot path has changed:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// Returns the compiler's release and host, which determine the machine code.
fn compiler(workspace: &Workspace) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = process::output(Command::new(rustc).arg("-vV").current_dir(&workspace.root))?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.with_context(|| format!("rustc -vV has no {name}"))
    };
    Ok(format!("{} {}", field("release")?, field("host")?))
}

/// Measures all sides and depths; returns the numbers, and the calls on the hot path.
fn measure(workspace: &Workspace, program: &Path) -> Result<(Figures, Vec<String>)> {
    let directory = workspace.target.join("bench");
    fs::create_dir_all(&directory)?;
    let out = directory.join("callgrind.out");
    let (mut figures, mut calls) = (Figures::new(), Vec::new());
    for depth in DEPTHS {
        for side in SIDES {
            let run = |count| run(program, side, depth, count, &out);
            let ((done, short), (more, long)) = (run(COUNT)?, run(2 * COUNT)?);
            let mut sum = 0.0;
            for (name, cost) in long {
                let per_io =
                    (cost as f64 - short.get(&name).copied().unwrap_or(0) as f64) / (more - done) as f64;
                if !side.starts_with(CALLS)
                    && !INSIDE.iter().any(|inside| name.starts_with(inside))
                    && per_io > 0.0
                {
                    calls.push(format!("{side}_qd{depth} calls {name} ({per_io:.1} instructions per I/O)"));
                }
                if name != DEVICE {
                    sum += per_io;
                }
            }
            if sum <= 0.0 {
                bail!("callgrind counted nothing for {side} at depth {depth}");
            }
            figures.insert(format!("{side}_qd{depth}"), (sum * 100.0).round() / 100.0);
        }
    }
    Ok((figures, calls))
}

/// Runs one side; returns the number of I/Os, and the instructions of each function without its callees.
fn run(
    program: &Path,
    side: &str,
    depth: u32,
    count: u64,
    out: &Path,
) -> Result<(u64, BTreeMap<String, u64>)> {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--toggle-collect=counted::counted_*"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(program).args([side, &depth.to_string(), &count.to_string()]);
    let text = process::output(&mut command)?;
    let done = text.trim().parse().with_context(|| format!("{PROGRAM} printed {text:?}"))?;
    Ok((done, self_costs(&fs::read_to_string(out)?)))
}

/// Parses callgrind's format: `fn=(id) name` begins a function's lines, `calls=` a line with the cost of a
/// callee.
fn self_costs(text: &str) -> BTreeMap<String, u64> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut costs: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut function, mut called) = ("", false);
    for line in text.lines() {
        if let Some(word) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (id, name) = word.split_once(' ').unwrap_or((word, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if line.starts_with("fn=") {
                function = id;
            }
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            if !std::mem::take(&mut called) {
                *costs.entry(function).or_default() += cost;
            }
        }
    }
    let mut by_name = BTreeMap::new();
    for (id, cost) in costs {
        *by_name.entry(names.get(id).copied().unwrap_or(id).to_owned()).or_default() += cost;
    }
    by_name
}

fn known<'a>(all: &'a AllFigures, compiler: &str, profile: &str) -> Option<&'a Figures> {
    all.get(compiler)?.get(profile)
}

fn print(profile: &str, figures: &Figures, before: Option<&Figures>) {
    println!("\ninstructions per I/O, profile {profile}, without the device");
    println!("{:14} {:>8} {:>8} {:>8}", "", "now", "written", "by hand");
    for (name, now) in figures {
        let before = before.and_then(|before| before.get(name));
        let before = before.map_or("-".to_owned(), |before| format!("{before:.2}"));
        let ratio = ratio(figures, name).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        println!("{name:14} {now:>8.2} {before:>8} {ratio:>8}");
    }
}

/// Divides a number by that of the hand-written loop at the same depth.
fn ratio(figures: &Figures, name: &str) -> Option<f64> {
    let (side, depth) = name.rsplit_once('_')?;
    (side != HAND).then_some(())?;
    Some(figures.get(name)? / figures.get(&format!("{HAND}_{depth}"))?)
}

/// Lists the calls of the C interface that take more than their limit.
fn beyond_limit(profile: &str, figures: &Figures) -> Vec<String> {
    let Some(turn) = figures.get("ours_qd32") else { return Vec::new() };
    let calls = figures.iter().filter(|(name, _)| name.starts_with(CALLS) && name.ends_with("_qd32"));
    let ratios = calls.map(|(name, calls)| (name, calls / turn));
    let beyond = ratios.filter(|(_, ratio)| *ratio > CALLS_LIMIT);
    beyond
        .map(|(name, ratio)| format!("{profile} {name}: {ratio:.2} times the Rust turn, limit {CALLS_LIMIT}"))
        .collect()
}

/// Lists the numbers that are worse than the recorded ones.
fn compare(all: &AllFigures, compiler: &str, profile: &str, figures: &Figures) -> Vec<String> {
    let mut problems = Vec::new();
    let ours = || figures.iter().filter(|(name, _)| !name.starts_with(HAND));
    if let Some(before) = known(all, compiler, profile) {
        for (name, now) in ours() {
            match before.get(name) {
                Some(before) if *now > before * GROWTH => {
                    problems.push(format!("{profile} {name}: {now:.2} instructions, {before:.2} before"));
                }
                Some(_) => {}
                None => problems.push(format!("{profile} {name} is not in {FILE}: add it with --update")),
            }
        }
        return problems;
    }
    log!("{FILE} has no numbers for {compiler}: comparing ratios to the hand-written loop");
    let others: Vec<_> = all.values().filter_map(|profiles| profiles.get(profile)).collect();
    for (name, _) in ours() {
        let now = ratio(figures, name).unwrap_or(f64::INFINITY);
        let before = others.iter().filter_map(|figures| ratio(figures, name)).reduce(f64::max);
        match before {
            Some(before) if now > before * RATIO_GROWTH => {
                problems.push(format!(
                    "{profile} {name}: {now:.2} times the hand-written loop, {before:.2} before"
                ));
            }
            Some(_) => {}
            None => problems.push(format!("{profile} {name} is not in {FILE}: add it with --update")),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{AllFigures, Figures, beyond_limit, compare, self_costs};

    fn figures(ours: f64, hand: f64) -> Figures {
        [("ours_qd1".to_owned(), ours), ("hand_qd1".to_owned(), hand)].into()
    }

    fn all() -> AllFigures {
        [("1.0 a".to_owned(), [("user".to_owned(), figures(150.0, 100.0))].into())].into()
    }

    #[test]
    fn a_function_s_cost_excludes_its_callees() {
        let text = "events: Ir\nsummary: 30\n\nfn=(1) a::b\n10 5\ncfn=(2) c d\ncalls=3 20\n* 20\n+1 2\n\nfn=(2)\n20 15\n-3 5\n\nfn=(1)\n1 3\n";
        let costs: Vec<_> = self_costs(text).into_iter().collect();
        assert_eq!(costs, [("a::b".to_owned(), 10), ("c d".to_owned(), 20)]);
    }

    #[test]
    fn only_growth_is_a_problem() {
        assert_eq!(compare(&all(), "1.0 a", "user", &figures(150.9, 100.0)), [""; 0]);
        assert_eq!(compare(&all(), "1.0 a", "user", &figures(120.0, 100.0)), [""; 0]);
        assert_eq!(compare(&all(), "1.0 a", "user", &figures(153.0, 100.0)).len(), 1);
    }

    #[test]
    fn an_unknown_compiler_is_judged_by_the_ratio() {
        assert_eq!(compare(&all(), "2.0 a", "user", &figures(300.0, 200.0)), [""; 0]);
        assert_eq!(compare(&all(), "2.0 a", "user", &figures(170.0, 100.0)).len(), 1);
    }

    #[test]
    fn a_missing_number_is_a_problem() {
        assert_eq!(compare(&all(), "1.0 a", "release", &figures(1.0, 1.0)).len(), 1);
        let more = [("caller_qd1".to_owned(), 1.0)].into();
        assert_eq!(compare(&all(), "1.0 a", "user", &more).len(), 1);
    }

    #[test]
    fn the_c_calls_keep_their_limit() {
        let of = |call: f64| -> Figures {
            [
                ("ours_qd32".to_owned(), 100.0),
                ("c_poll_qd32".to_owned(), call),
                ("c_poll_qd1".to_owned(), 500.0),
            ]
            .into()
        };
        assert_eq!(beyond_limit("user", &of(135.0)), [""; 0]);
        assert_eq!(
            beyond_limit("user", &of(136.0)),
            ["user c_poll_qd32: 1.36 times the Rust turn, limit 1.35"]
        );
        let recorded: AllFigures =
            serde_json::from_str(include_str!("../../../../benches/instructions.json"))
                .expect("the file's form");
        for (profile, figures) in recorded.values().flatten() {
            assert!(figures.contains_key("c_many_qd32"), "{profile}");
            assert_eq!(beyond_limit(profile, figures), [""; 0]);
        }
    }
}
