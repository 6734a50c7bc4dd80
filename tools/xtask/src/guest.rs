//! `cargo xtask guest`: runs a command or a prompt in the guest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::lab::guest::{self, Job};
use crate::lab::payload::Payload;
use crate::lab::prepare::prepare;
use crate::lab::qemu::Options;
use crate::lab::shell;
use crate::process::quote;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask guest -- upcie list\n  cargo xtask guest --user -- upcie perf 0000:01:00.0 --time 2\n  cargo xtask guest --shell\n  cargo xtask guest --iommu off --numa 2 -- dmesg\n\nExit code: that of the command; 1 if the guest could not run it."
)]
pub struct Args {
    /// Only prepare the guest: packages, kernel modules, base archive
    #[arg(long, conflicts_with_all = ["shell", "command"])]
    prepare: bool,
    /// Open a prompt in the guest on this terminal; `exit` ends it, Ctrl-] kills it
    #[arg(long, conflicts_with = "command")]
    shell: bool,
    /// Run as a plain user (uid 1000) who owns the VFIO nodes, instead of as root
    #[arg(long)]
    user: bool,
    /// Copy a program and its libraries to the guest's PATH (repeatable)
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    options: Options,
    /// Command to run in the guest, with the tools and BusyBox on its PATH and an empty stdin
    #[arg(last = true, required_unless_present_any = ["prepare", "shell"])]
    command: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let lab = prepare()?;
    if args.prepare {
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    let mut payload = Payload::new(args.user, args.options.iommu);
    for program in workspace.build_tools(true)? {
        payload.add_program(&program)?;
    }
    for program in &args.with {
        payload.add_program(program)?;
    }
    if args.shell {
        return shell::run(&lab, &args.options, payload);
    }
    let words: Vec<_> = args.command.iter().map(|word| quote(word)).collect();
    let mut job = Job::new("command", format!("exec {}", words.join(" ")));
    if args.user {
        job.user = "user";
    }
    let deadline = Duration::from_secs(args.timeout);
    let results = guest::run(&lab, &args.options, payload, &[job], deadline, true, &mut |_, _| {})?;
    let code = results.jobs.first().map_or(1, |result| result.code);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
