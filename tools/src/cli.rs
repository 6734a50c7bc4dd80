//! What every tool's command line needs.

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use std::io::{self, Write};
use upcie_core::pci::Bdf;

/// Writes to stdout.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).context("writing to stdout")
}

/// Says something on stderr. Where that takes nothing (its reader has gone, the disk is full) it is not said, and no reason to
/// panic: results and the exit code are worth more.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints the completion script of `command` for a shell.
pub fn print_completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Whether stdout's reader has gone: it has seen what it wanted.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// A PCI function as an argument.
pub fn parse_bdf(text: &str) -> Result<Bdf, String> {
    text.parse().map_err(|_| "a function is domain:bus:device.function: 0000:01:00.0 or 01:00.0".to_owned())
}
