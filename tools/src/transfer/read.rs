//! `upcie read`.

use super::{RangeArgs, is_pipe, pipeline::Pipeline, progress};
use crate::{cli, outcome::Outcome, signal, target, target::Target, units};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};
use upcie_nvme::{ControllerOptions, DmaBuf, Namespace};

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie read 0000:01:00.0 disk.img                    all of the first namespace
  upcie read 0000:01:00.0 --offset 1M --length 4K | hexdump -C
  upcie read emu:file=disk.img --length 64M copy.img

A reader that closes the pipe early ends the command without an error.";

/// Arguments of `upcie read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    target: Target,
    /// Where the data goes: a file, which is overwritten, or - for stdout
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
}

/// Runs it.
pub fn run(args: &ReadArgs) -> anyhow::Result<Outcome> {
    if is_pipe(&args.file) && io::stdout().is_terminal() {
        bail!("refusing to print blocks to a terminal: name a file, or pipe them into another command");
    }
    signal::install()?;
    let controller = args
        .target
        .open(ControllerOptions { timeout: args.range.timeout, ..ControllerOptions::default() })?;
    let namespace = target::namespace(&controller, args.range.namespace)?;
    let left = args.range.check(&namespace)?;
    let length = args.range.length.unwrap_or(left);
    let mut pipeline = Pipeline::new(&controller, &namespace, args.range.timeout)?;
    // Last: whatever can be found wrong before leaves an existing file as it is.
    let (name, mut out): (_, Box<dyn Write>) = if is_pipe(&args.file) {
        ("stdout".into(), Box::new(io::stdout().lock()))
    } else {
        let name = args.file.display().to_string();
        let file = File::create(&args.file).with_context(|| format!("creating {name}"))?;
        (name, Box::new(file))
    };
    let bar = progress("reading", Some(length));
    let result = each(&mut pipeline, &namespace, args.range.offset, length, |_, data| {
        bar.inc(data.len() as u64);
        out.write_all(data).with_context(|| format!("writing {name}"))
    });
    bar.finish_and_clear();
    let done = result?;
    out.flush().with_context(|| format!("writing {name}"))?;
    if done < length {
        cli::say(&format!("upcie: interrupted after {} of {}", units::bytes(done), units::bytes(length)));
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::Done)
}

/// Reads `length` bytes from `offset` on and hands them to `take`, in order, with the block that they start at. Gives the
/// number of bytes handed over: less, if the user ended it.
pub fn each(
    pipeline: &mut Pipeline,
    namespace: &Namespace,
    offset: u64,
    length: u64,
    mut take: impl FnMut(u64, &DmaBuf) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let block = namespace.block_size() as u64;
    let (mut sent, mut done) = (0, 0);
    loop {
        while sent < length && !signal::interrupted() {
            let len = (length - sent).min(pipeline.piece() as u64);
            let Some(buffer) = pipeline.buffer(len as usize) else { break };
            pipeline.send((offset + sent) / block, buffer, false)?;
            sent += len;
        }
        let Some(piece) = pipeline.oldest(false)? else { return Ok(done) };
        take(piece.slba, &piece.data)?;
        done += piece.data.len() as u64;
        pipeline.give_back(piece.data);
    }
}
