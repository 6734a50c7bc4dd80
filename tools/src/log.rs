//! The log of the libraries, on stderr.

use anyhow::Context;
use clap::Args;
use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing_subscriber::EnvFilter;

/// Log option of every tool.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log the driver's actions on stderr: a level (error, warn, info, debug, trace) or a filter like
    /// upcie_core=trace [env: UPCIE_LOG, default: warn]
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "debug",
        // Shells would complete files.
        value_hint = clap::ValueHint::Other
    )]
    log: Option<String>,
}

/// True once the log is silenced.
static SILENCED: AtomicBool = AtomicBool::new(false);
/// The filter that the user asked for.
static REQUESTED: OnceLock<String> = OnceLock::new();

/// Starts the log with the filter of --log or of UPCIE_LOG.
///
/// # Errors
/// Fails if the text is not a filter.
pub fn start(args: &LogArgs) -> anyhow::Result<()> {
    let given = args.log.clone().or_else(|| std::env::var("UPCIE_LOG").ok());
    let text = match given.filter(|text| !text.is_empty()) {
        Some(text) => REQUESTED.get_or_init(|| text),
        None => "warn",
    };
    let filter = EnvFilter::builder().parse(text).with_context(|| {
        format!("{text:?} is not a filter for --log or UPCIE_LOG; try debug, or upcie_core=trace")
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).init();
    Ok(())
}

/// Returns the filter that the user asked for, to pass it on to a child.
pub fn requested() -> Option<&'static str> {
    REQUESTED.get().map(String::as_str)
}

/// Silences the log unless the user asked for one. Call it after a reported error: the consequences tell
/// nothing new.
pub fn silence() {
    SILENCED.store(true, Ordering::Relaxed);
}

fn writer() -> Box<dyn Write> {
    match SILENCED.load(Ordering::Relaxed) && requested().is_none() {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    }
}
