//! `cargo xtask sanitize`: unit tests and suites under AddressSanitizer or ThreadSanitizer.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
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
    let (nightly, environment) = match args.sanitizer {
        // Memory that a device may still use is kept for good, on purpose: it is no leak.
        Sanitizer::Address => (
            Nightly::new(&workspace, "sanitize/address", "-Zsanitizer=address", &[])?,
            ("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=1".to_owned()),
        ),
        // Without the standard library's own accesses each lock of it would be a race.
        Sanitizer::Thread => (
            Nightly::new(&workspace, "sanitize/thread", "-Zsanitizer=thread", &["-Zbuild-std"])?,
            // Some tests act as a program that forks and then starts threads.
            ("TSAN_OPTIONS", "history_size=6:die_after_fork=0".to_owned()),
        ),
    };
    let executables = nightly.build(&args.words)?;
    let passed = nightly.run(&executables, &args.words, &[environment])?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
