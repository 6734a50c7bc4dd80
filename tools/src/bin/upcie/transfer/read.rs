//! `upcie read`: reads blocks into a file or a pipe.

use super::{
    blocks::{BlockArgs, Layout},
    pipeline::{Piece, Pipeline},
    progress::progress,
    range::{RangeArgs, Span},
    streams::Stdout,
};
use crate::{
    cli, contents,
    files::{self, Output, Place, Use},
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie read 0000:01:00.0 disk.img                    the whole first namespace
  upcie read 0000:01:00.0 --offset 1M --length 4K | hexdump -C
  upcie read emu:file=disk.img --length 64M copy.img
  upcie read 0000:01:00.0 --lba 2048 --blocks 8 blocks.bin
  upcie read vfio-user:/run/nvme.sock disk.img --sgl   from a target that takes few PRPs
  upcie read 0000:01:00.0 disk.img --metadata disk.md --prinfo 7

A reader that closes the pipe early ends the command without an error.

Blocks with metadata at their end are read with it (520 bytes for 512+8), or apart
with --metadata. Protection information apart from the data is checked and
stripped by the controller, unless --metadata or --prinfo says otherwise.";

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
    #[command(flatten)]
    blocks: BlockArgs,
}

/// Runs `upcie read`.
pub fn run(args: &ReadArgs) -> anyhow::Result<Outcome> {
    let place = Place::output(&args.file);
    let name = name_of(place);
    let apart = args.blocks.metadata.as_deref().map(Place::output);
    if [Some(place), apart].iter().flatten().any(|place| matches!(place, Place::Stdout))
        && io::stdout().is_terminal()
    {
        bail!("refusing to print blocks to a terminal: name a file, or pipe the output into a command");
    }
    let outputs = [Some(place), apart].into_iter().flatten().map(|place| Use::writes(name_of(place), place));
    files::check_distinct(&Use::media(&args.target, false).into_iter().chain(outputs).collect::<Vec<_>>())?;
    signal::install()?;
    let controller = args.target.open_to_read(args.range.builder())?;
    let (namespace, layout) = Layout::open(&controller, args.range.namespace, &args.blocks)?;
    let Span { first, left, length } = args.range.check(&namespace, &layout)?;
    let length = length.unwrap_or(left);
    let count = length / layout.block as u64;
    let mut pipeline = Pipeline::new(&controller, &namespace, layout, first, args.range.timeout)?;
    // Opened last: every error before this, and a device that returns no data, leaves an existing file
    // unchanged.
    let mut out = open_output(place)?;
    let mut more = apart.map(open_output).transpose()?;
    let bar = progress("reading", Some(length));
    let mut done = 0;
    let result = each(&mut pipeline, first, count, |_, data, metadata| {
        out.write_all(data).with_context(|| format!("writing {name}"))?;
        if let (Some(more), Some(path)) = (&mut more, &args.blocks.metadata) {
            more.write_all(metadata).with_context(|| format!("writing {}", path.display()))?;
        }
        done += data.len() as u64;
        bar.set_position(done);
        Ok(())
    });
    bar.finish_and_clear();
    let copied = match (done, place) {
        (0, Place::Path(_)) => format!("{name} is unchanged"),
        _ => format!("{} of {} were written to {name}", units::bytes(done), units::bytes(length)),
    };
    let flushed = result.and_then(|_| {
        out.flush().with_context(|| format!("writing {name}"))?;
        more.map_or(Ok(()), |mut more| more.flush()).context("writing the metadata")
    });
    match flushed {
        Err(error) if cli::is_broken_pipe(&error) => Err(error),
        Err(error) => bail!("{error:#}; {copied}"),
        Ok(()) if done < length => {
            cli::message(&format!("upcie: interrupted: {copied}"));
            Ok(Outcome::Interrupted)
        }
        Ok(()) => Ok(Outcome::Done),
    }
}

/// Returns the name of an output for messages.
fn name_of(place: Place<'_>) -> String {
    match place {
        Place::Path(path) => Path::display(path).to_string(),
        _ => "stdout".into(),
    }
}

fn open_output(place: Place<'_>) -> anyhow::Result<Box<dyn Write>> {
    match place {
        Place::Path(path) => Ok(Box::new(Output::open(path)?)),
        _ => {
            files::check_stream_unlocked(place)?;
            Ok(Box::new(Stdout::open().context("opening stdout")?))
        }
    }
}

/// Reads `count` blocks from block `first` on, and passes their data and metadata to `take` in order, each piece with its
/// first block. Returns the number of blocks passed on, which is smaller if the user interrupts.
pub fn each(
    pipeline: &mut Pipeline,
    first: u64,
    count: u64,
    mut take: impl FnMut(u64, &[u8], &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (mut sent, mut done) = (0, 0);
    loop {
        while sent < count && !signal::interrupted() {
            let blocks = (count - sent).min(pipeline.most(first + sent));
            let Some(buffers) = pipeline.buffers(blocks as usize, false) else { break };
            pipeline.send(first + sent, buffers, false)?;
            sent += blocks;
        }
        let Some(piece) = pipeline.oldest(false)? else { return Ok(done) };
        pass(pipeline.layout(), &piece, &mut take)?;
        done += (piece.buffers.data.len() / pipeline.layout().moved) as u64;
        pipeline.give_back(piece.buffers);
    }
}

/// Passes the data and metadata of a piece to `take`.
fn pass(
    layout: &Layout,
    piece: &Piece,
    take: &mut impl FnMut(u64, &[u8], &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let data = contents::of(&piece.buffers.data);
    if layout.is_split() {
        let (data, metadata) = layout.split(&data);
        return take(piece.slba, &data, &metadata);
    }
    take(piece.slba, &data, &contents::of(&piece.buffers.metadata))
}
