//! The log of the libraries, on stderr.

use anyhow::Context;
use clap::Args;
use std::{
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};
use tracing_subscriber::EnvFilter;

/// Log option of every tool.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log the driver's actions on stderr: a level (error, warn, info, debug, trace) or a filter like
    /// upcie_core=trace [env: UPCIE_LOG, default: warn]
    #[arg(long, global = true, value_name = "FILTER", num_args = 0..=1, require_equals = true, default_missing_value = "debug")]
    log: Option<String>,
}

/// True once the log is silenced.
static SILENCED: AtomicBool = AtomicBool::new(false);
/// True if the user asked for a log.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts the log with the filter of --log or of UPCIE_LOG.
///
/// # Errors
/// Fails if the text is not a filter.
pub fn start(args: &LogArgs) -> anyhow::Result<()> {
    let given = args.log.clone().or_else(|| std::env::var("UPCIE_LOG").ok());
    let given = given.as_deref().filter(|text| !text.is_empty());
    REQUESTED.store(given.is_some(), Ordering::Relaxed);
    let text = given.unwrap_or("warn");
    let filter = EnvFilter::builder().parse(text).with_context(|| {
        format!("{text:?} is not a filter for --log or UPCIE_LOG; try debug, or upcie_core=trace")
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).init();
    Ok(())
}

/// Silences the log unless the user asked for one. Call it after a reported error: the consequences tell
/// nothing new.
pub fn silence() {
    SILENCED.store(true, Ordering::Relaxed);
}

fn writer() -> Box<dyn Write> {
    match SILENCED.load(Ordering::Relaxed) && !REQUESTED.load(Ordering::Relaxed) {
        true => Box::new(io::sink()),
        false => Box::new(io::stderr()),
    }
}
