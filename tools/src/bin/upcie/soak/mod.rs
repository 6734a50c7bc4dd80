//! `upcie soak`: reads, writes and flushes at random, kills its worker and its server, and checks after each time that every block
//! holds what it must.

mod book;
mod lane;
mod load;
mod record;
mod supervise;
mod worker;

use crate::{
    cli,
    guard::Consent,
    outcome::Outcome,
    signal,
    target::{self, Lists},
    units,
    units::Bytes,
};
use anyhow::ensure;
use clap::Args;
use load::Load;
use record::{Counts, LANES};
use std::{path::PathBuf, time::Duration};
use upcie_nvme::Address;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie soak emu --time 10m
  upcie soak emu:size=1G --faults plan.toml --verify --time 1h
  upcie soak 0000:01:00.0 --time 1h --kill 5 --destructive
  upcie soak --server file=disk.img,size=1G --time 1h --kill 2 --destructive

Each block holds its number, the run's number and a version. A record in a file says which
versions it may hold: from the last one that was completed (after a power cut: from the
last one that was flushed) to the newest that was sent. With --kill a worker process is
killed (SIGKILL) about so often, and with --server the server as well. The next worker
opens the controller again, checks every block, and goes on. Commands that fail are counted;
without a fault plan they end the run with exit code 3. A command that is late has the
controller reset: each command in flight must come back once.";

/// Arguments of `upcie soak`.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Device: a PCI address, vfio-user:SOCKET, emu, … (see below)
    #[arg(value_name = "ADDR", value_parser = target::parse_address, required_unless_present = "server")]
    address: Option<Address>,
    /// Start `nvme-emu` with these options (key=value,…) and use it instead of ADDR; `file=` keeps its data when it
    /// is killed
    #[arg(long, value_name = "OPTIONS", conflicts_with = "address")]
    server: Option<String>,
    /// Let the embedded controller, or the server, fail as the plan in this file says (its option `faults=`)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Check all blocks after each queue pair of a thread, too, not only when a worker begins and at the end
    #[arg(long)]
    verify: bool,
    /// Run for this long
    #[arg(long, short, value_name = "TIME", default_value = "60", value_parser = units::parse_time)]
    time: Duration,
    /// Kill the worker, or the server, about this often
    #[arg(long, value_name = "TIME", value_parser = units::parse_time)]
    kill: Option<Duration>,
    /// Threads, each with blocks and a queue pair of its own [default: 2, or as many as the controller has queue pairs]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Most commands in flight on each queue pair; each queue pair has a random depth up to this [default: 32, or as many
    /// as the controller takes]
    #[arg(long, short, value_name = "N")]
    depth: Option<u32>,
    /// First byte of the tested range
    #[arg(long, value_name = "BYTES", default_value = "0")]
    offset: Bytes,
    /// Size of the tested range [default: 64M, or the rest of the namespace if that is less]
    #[arg(long, short, value_name = "BYTES")]
    length: Option<Bytes>,
    /// Namespace to use [default: the first]
    #[arg(long, short, value_name = "NSID")]
    namespace: Option<u32>,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Reset the controller for a command that does not complete for this long; open it again if it does not help
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    consent: Consent,
    /// Be a worker on this record
    #[arg(long, value_name = "FILE", hide = true)]
    worker: Option<PathBuf>,
    /// Be the worker of this number
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    life: u64,
}

/// Runs `upcie soak`.
pub fn run(args: &SoakArgs) -> anyhow::Result<Outcome> {
    signal::install()?;
    if let Some(record) = &args.worker {
        return worker::run(args, record);
    }
    let Load { threads, depth } = Load::of(args);
    ensure!((1..=LANES).contains(&threads), "--threads {threads}: use 1 to {LANES}");
    ensure!((1..=4096).contains(&depth), "--depth {depth}: use 1 to 4096");
    let (sum, outcome) = supervise::run(args)?;
    cli::print(text(&sum, outcome).as_bytes())?;
    // Those of a fault plan are wanted.
    let planned = args.address.as_ref().map(Address::to_string).or_else(|| args.server.clone());
    let planned = args.faults.is_some() || planned.is_some_and(|options| options.contains("faults="));
    Ok(if sum.counts.errors > 0 && outcome == Outcome::Done && !planned { Outcome::Faults } else { outcome })
}

/// Formats the result.
fn text(sum: &supervise::Sum, outcome: Outcome) -> String {
    let Counts { reads, writes, flushes, errors, bytes, verified, reopened, given_back } = sum.counts;
    let mut lines = vec![
        format!(
            "{} reads, {} writes, {} flushes: {}, in {:.0} s",
            units::grouped(reads),
            units::grouped(writes),
            units::grouped(flushes),
            units::bytes(bytes),
            sum.time.as_secs_f64()
        ),
        format!(
            "killed {} and {}; found {} as they had to be",
            units::number(sum.workers_killed, "worker"),
            units::number(sum.servers_killed, "server"),
            units::number(verified, "block")
        ),
    ];
    if errors > 0 {
        lines.push(format!("{} with an error status", units::number(errors, "command")));
    }
    if given_back > 0 {
        lines.push(format!("{} given back by resets, each once", units::number(given_back, "command")));
    }
    if reopened > 0 {
        lines.push(format!("opened the controller again {} after an error", units::number(reopened, "time")));
    }
    lines.push(match outcome {
        Outcome::Faults => "WRONG DATA, or a command that was lost: see above".to_owned(),
        Outcome::Interrupted => "interrupted: the blocks were not checked at the end".to_owned(),
        _ => "no block is wrong".to_owned(),
    });
    lines.join("\n") + "\n"
}
