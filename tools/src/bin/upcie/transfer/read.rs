//! `upcie read`: reads blocks into a file or a pipe.

use super::{pipeline::Pipeline, progress::progress, range::RangeArgs};
use crate::{
    cli,
    files::{self, Output, Place, Use},
    outcome::Outcome,
    signal, target,
    target::Target,
    units,
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};
use upcie_nvme::{Controller, Namespace};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie read 0000:01:00.0 disk.img                    the whole first namespace
  upcie read 0000:01:00.0 --offset 1M --length 4K | hexdump -C
  upcie read emu:file=disk.img --length 64M copy.img

A reader that closes the pipe early ends the command without an error.";

/// Arguments of `upcie read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    target: Target,
    /// File to write, or - for stdout; an existing file is replaced when the first data has been read
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
}

/// Runs `upcie read`.
pub fn run(args: &ReadArgs) -> anyhow::Result<Outcome> {
    let place = Place::output(&args.file);
    let name = match place {
        Place::Path(path) => path.display().to_string(),
        _ => "stdout".into(),
    };
    if matches!(place, Place::Stdout) && io::stdout().is_terminal() {
        bail!("refusing to print blocks to a terminal: name a file, or pipe the output into a command");
    }
    let output = Use::writes(&name, place);
    files::check_distinct(&Use::media(&args.target, false).into_iter().chain([output]).collect::<Vec<_>>())?;
    signal::install()?;
    let controller = args.target.open_to_read(Controller::builder().timeout(args.range.timeout))?;
    let namespace = target::data_namespace(&controller, args.range.namespace)?;
    let left = args.range.check(&namespace)?;
    let length = args.range.length.as_ref().map_or(left, |length| length.bytes);
    let mut pipeline = Pipeline::new(&controller, &namespace, args.range.timeout)?;
    // Opened last: every error before this, and a device that returns no data, leaves an existing file
    // unchanged.
    let mut out: Box<dyn Write> = match place {
        Place::Path(path) => Box::new(Output::open(path)?),
        _ => {
            files::check_stream_unlocked(place)?;
            Box::new(io::stdout().lock())
        }
    };
    let bar = progress("reading", Some(length));
    let mut done = 0;
    let result = each(&mut pipeline, &namespace, args.range.offset.bytes, length, |_, data| {
        out.write_all(data).with_context(|| format!("writing {name}"))?;
        done += data.len() as u64;
        bar.set_position(done);
        Ok(())
    });
    bar.finish_and_clear();
    let copied = match (done, place) {
        (0, Place::Path(_)) => format!("{name} is unchanged"),
        _ => format!("{} of {} were written to {name}", units::bytes(done), units::bytes(length)),
    };
    match result.and_then(|_| out.flush().with_context(|| format!("writing {name}"))) {
        Err(error) if cli::is_broken_pipe(&error) => Err(error),
        Err(error) => bail!("{error:#}; {copied}"),
        Ok(()) if done < length => {
            cli::message(&format!("upcie: interrupted: {copied}"));
            Ok(Outcome::Interrupted)
        }
        Ok(()) => Ok(Outcome::Done),
    }
}

/// Reads `length` bytes from `offset` on, and passes them to `take` in order, each piece with its first
/// block. Returns the number of bytes passed on, which is smaller if the user interrupts.
pub fn each(
    pipeline: &mut Pipeline,
    namespace: &Namespace,
    offset: u64,
    length: u64,
    mut take: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let block = namespace.block_size() as u64;
    let (mut sent, mut done) = (0, 0);
    loop {
        while sent < length && !signal::interrupted() {
            let len = (length - sent).min(pipeline.piece(offset + sent) as u64);
            let Some(buffer) = pipeline.buffer(len as usize, false) else { break };
            pipeline.send((offset + sent) / block, buffer, false)?;
            sent += len;
        }
        let Some(piece) = pipeline.oldest(false)? else { return Ok(done) };
        take(piece.slba, piece.data.as_slice().expect("memory of this process alone"))?;
        done += piece.data.len() as u64;
        pipeline.give_back(piece.data);
    }
}
