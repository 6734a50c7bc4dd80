//! `simulate`: plays seeds; `cargo xtask simulate` runs it.

use clap::Parser;
use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};
use upcie_simulation::{Case, GENERATOR, Outcome, run, shrink};

/// The most lines of a failing seed's trace.
const LINES: usize = 20;

/// Plays driver, controller and time in one thread, in an order that a seed decides.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes:\n  0  all properties hold\n  1  a property failed: its seed and a short trace are printed\n  2  wrong usage"
)]
struct Args {
    /// The seed, or the first one: a number, or VERSION:NUMBER as a failure prints it
    #[arg(long, default_value = "0", value_parser = parse_seed)]
    seed: u64,
    /// The number of seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
    /// Print of a failure one line only, and don't make it small
    #[arg(long)]
    brief: bool,
    /// The number of threads
    #[arg(long, default_value_t = 2)]
    threads: u64,
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let (version, number) = match text.split_once(':') {
        Some((version, number)) => (version.parse::<u32>().ok(), number),
        None => (Some(GENERATOR), text),
    };
    match (version, number.parse()) {
        (Some(GENERATOR), Ok(seed)) => Ok(seed),
        (Some(other), Ok(_)) => Err(format!(
            "this seed is of version {other} of the generator, and this program has version {GENERATOR}: check out \
             the revision that printed it"
        )),
        _ => Err("a number, or VERSION:NUMBER, is needed".into()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // The panics of failing runs are part of their results.
    std::panic::set_hook(Box::new(|_| {}));
    if args.seeds == 1 {
        return play(args.seed, args.trace, args.brief);
    }
    let (next, stop, start) = (AtomicU64::new(0), AtomicBool::new(false), Instant::now());
    let failed = AtomicU64::new(u64::MAX);
    thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.seeds {
                        return;
                    }
                    let seed = args.seed.wrapping_add(index);
                    if run(&Case::generate(seed), false).failure.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        return play(failed, false, args.brief);
    }
    let rate = args.seeds as f64 / start.elapsed().as_secs_f64();
    println!("{} seeds from {} on: all properties hold ({rate:.0} seeds/s)", args.seeds, args.seed);
    ExitCode::SUCCESS
}

/// Plays one seed; prints a failure with a short trace.
fn play(seed: u64, trace: bool, brief: bool) -> ExitCode {
    let case = Case::generate(seed);
    let outcome = run(&case, trace);
    if trace {
        println!("seed {GENERATOR}:{seed}, {:?}, {}", case.class, case.options);
        for rule in &case.plan.rules {
            println!("  {rule:?}");
        }
        outcome.lines.iter().for_each(|line| println!("{line}"));
        println!("digest {:016x}", outcome.digest);
    }
    let Some(failure) = outcome.failure else {
        println!("seed {GENERATOR}:{seed}: all properties hold, digest {:016x}", outcome.digest);
        return ExitCode::SUCCESS;
    };
    println!("seed {GENERATOR}:{seed} ({:?}) FAILED: {failure}", case.class);
    if brief {
        return ExitCode::FAILURE;
    }
    let small = shrink(&case);
    let Outcome { lines, failure, .. } = run(&small, false);
    println!("made small, with {:?}, {}:", small.class, small.options);
    for rule in &small.plan.rules {
        println!("  {rule:?}");
    }
    let skipped = lines.len().saturating_sub(LINES);
    if skipped > 0 {
        println!("  … {skipped} lines before");
    }
    lines[skipped..].iter().for_each(|line| println!("{line}"));
    println!("  {}", failure.unwrap_or_default());
    println!("replay: cargo xtask simulate --seed {GENERATOR}:{seed} --trace");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_of_another_version_says_so() {
        assert_eq!(parse_seed("17"), Ok(17));
        assert_eq!(parse_seed(&format!("{GENERATOR}:17")), Ok(17));
        let error = parse_seed(&format!("{}:17", GENERATOR - 1)).unwrap_err();
        assert!(error.contains(&format!("version {}", GENERATOR - 1)), "{error}");
        assert!(
            error.contains(&format!("has version {GENERATOR}")) && error.contains("check out"),
            "{error}"
        );
        for wrong in ["", "x", "4:", ":17", "4:x", "-1"] {
            assert!(parse_seed(wrong).unwrap_err().contains("VERSION:NUMBER"), "{wrong}");
        }
    }
}
