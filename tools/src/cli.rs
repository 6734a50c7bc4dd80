//! Functions of every tool's command line.

use crate::stdio;
use anyhow::Context;
use clap::{Command, Parser};
use clap_complete::Shell;
use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::Path,
};
use upcie_core::pci::Bdf;

/// Parses a command line; `version` alone means `--version`. Prints help, the version or an error as clap does, and ends the
/// program after it: unlike clap with an error if stdout does not take the text.
pub fn parse<T: Parser>(arguments: impl IntoIterator<Item = OsString>) -> T {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    if all.len() == 2 && all[1] == "version" {
        all[1] = "--version".into();
    }
    T::try_parse_from(all).unwrap_or_else(|answer| {
        if answer.use_stderr() {
            answer.exit();
        }
        let printed = stdio::check_stdout().and_then(|()| answer.print()).and_then(|()| io::stdout().flush());
        match printed.context("writing to stdout") {
            Err(error) if !is_broken_pipe(&error) => {
                message(&format!("{}: {error:#}", T::command().get_name()));
                std::process::exit(1);
            }
            _ => std::process::exit(0),
        }
    })
}

/// Prints a text on stdout.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let open = stdio::check_stdout();
    open.and_then(|()| stdout.write_all(text)).and_then(|()| stdout.flush()).context("writing to stdout")
}

/// Prints a line on stderr. Ignores errors (no reader, a full disk): results and the exit code matter more
/// than the line.
pub fn message(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints the completion script of `command` for a shell.
pub fn print_completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Writes man pages of `command` and its subcommands to a directory, which is made if it is missing.
pub fn write_manual(command: Command, directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("writing man pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(command, directory).with_context(failed)
}

/// Returns true if the reader of stdout has closed the pipe: it needs no more output.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Parses the address of a PCI function.
pub fn parse_bdf(text: &str) -> Result<Bdf, String> {
    text.parse().map_err(|_| {
        "not a PCI address: use domain:bus:device.function, as in 0000:01:00.0 or 01:00.0".to_owned()
    })
}
