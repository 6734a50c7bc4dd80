//! `cargo xtask sanitize`: unit tests and suites under AddressSanitizer or ThreadSanitizer.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo::Workspace;
use crate::process::{self, log};
use crate::suites::nightly::Nightly;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sanitize\n  cargo xtask sanitize address upcie-core    # the unit tests of one library\n  cargo xtask sanitize thread\n  cargo xtask sanitize thread queues reset   # suites whose name contains it"
)]
pub struct Args {
    /// The sanitizer
    #[arg(value_enum, default_value_t = Sanitizer::Address)]
    sanitizer: Sanitizer,
    /// Only the unit tests and suites whose name contains one of these words
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sanitizer {
    /// Accesses outside of memory, and to memory that was freed
    Address,
    /// Accesses of two threads without an order
    Thread,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let (nightly, variable, options) = match args.sanitizer {
        // Memory that a device may still use is kept for good, on purpose: it is no leak.
        Sanitizer::Address => (
            Nightly::new(&workspace, "sanitize/address", "-Zsanitizer=address", &[])?,
            "ASAN_OPTIONS",
            "detect_leaks=0:detect_stack_use_after_return=1",
        ),
        // Without the standard library's own accesses each lock of it would be a race.
        Sanitizer::Thread => (
            Nightly::new(&workspace, "sanitize/thread", "-Zsanitizer=thread", &["-Zbuild-std"])?,
            "TSAN_OPTIONS",
            // Some tests act as a program that forks and then starts threads.
            "history_size=6:die_after_fork=0",
        ),
    };
    let executables = nightly.build(&args.words)?;
    // The reports go to files: a suite passes if it kills a program that has reported a fault, a server for instance.
    let reports = nightly.directory().join("reports");
    let _ = fs::remove_dir_all(&reports);
    fs::create_dir_all(&reports).with_context(|| reports.display().to_string())?;
    let options = format!("{options}:log_path=\"{}\"", reports.join("report").display());
    let passed = nightly.run(&executables, &args.words, &[(variable, options)])?;
    let count = show(&reports)?;
    if count > 0 {
        log!("{count} programs with faults: {}", reports.display());
    }
    Ok(if passed && count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the reports of faults in a directory; returns their number.
fn show(directory: &Path) -> Result<usize> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let reports = entries.filter_map(|entry| Some(process::read(&entry.ok()?.path())));
    let faults: Vec<_> = reports.filter(|report| is_fault(report)).collect();
    faults.iter().for_each(|report| println!("{}", report.trim_end()));
    Ok(faults.len())
}

/// Returns true if a program's reports tell of a fault, besides a signal that has ended it: some tests end a program by one, and
/// the others notice.
fn is_fault(report: &str) -> bool {
    const SIGNALS: [&str; 6] = ["SEGV", "BUS", "ABRT", "ILL", "FPE", "TRAP"];
    report.lines().any(|line| {
        let fault = line.split_once("ERROR: AddressSanitizer: ").map(|(_, fault)| fault);
        line.contains("WARNING: ThreadSanitizer: ")
            || fault.is_some_and(|fault| !SIGNALS.iter().any(|signal| fault.starts_with(signal)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_from_signals() {
        for (line, wanted) in [
            ("WARNING: ThreadSanitizer: data race (pid=7)", true),
            ("==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1", true),
            ("==7==ERROR: AddressSanitizer: attempting double-free on 0x1 in thread T0:", true),
            ("==7==ERROR: AddressSanitizer: BUS on unknown address (pc 0x1)", false),
            ("==7==ERROR: ThreadSanitizer: SEGV on unknown address", false),
            ("==7==WARNING: AddressSanitizer failed to allocate 0x1 bytes", false),
        ] {
            assert_eq!(is_fault(&format!("=================\n{line}\n")), wanted, "{line}");
        }
    }
}
