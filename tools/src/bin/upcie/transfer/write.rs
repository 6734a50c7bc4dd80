//! `upcie write`: writes blocks from a file or a pipe.

use super::{
    blocks::{BlockArgs, Layout},
    pipeline::{Buffers, Pipeline},
    progress::progress,
    range::{RangeArgs, Span},
    read,
    streams::fill,
};
use crate::{
    cli, contents,
    files::{self, Place, Use},
    guard::{self, Consent},
    outcome::Outcome,
    signal,
    structures::parse,
    target::{self, Target},
    units,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use std::{
    fs::File,
    hash::{DefaultHasher, Hasher},
    io::{self, IsTerminal},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Instant,
};
use upcie_nvme::{DmaBuf, Namespace};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie write 0000:01:00.0 disk.img --verify --destructive
  dd if=/dev/urandom bs=1M count=64 | upcie write 0000:01:00.0 --offset 1G --destructive
  upcie write emu:file=disk.img,size=1G boot.bin --destructive
  upcie write 0000:01:00.0 blocks.bin --lba 2048 --blocks 8 --fua --destructive
  upcie write 0000:01:00.0 disk.img --metadata disk.md --prinfo 7 --destructive

A file that is not a whole number of blocks, or is too long, is refused before
anything is written. A pipe is written block by block, and a partial block at its
end is refused. All written data is flushed.

Blocks with metadata at their end are written with it (520 bytes for 512+8), or
from two files with --metadata. Protection information apart from the data is
made by the controller, unless --metadata or --prinfo says otherwise.

Without --destructive nothing is written to a device whose data others may want;
the error names the partition table or file system that is there. A device that
the kernel drives is always refused, and so is the device's own file as input.";

/// Arguments of `upcie write`.
#[derive(Debug, Args)]
pub struct WriteArgs {
    #[command(flatten)]
    target: Target,
    /// File to read, or - for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    blocks: BlockArgs,
    #[command(flatten)]
    consent: Consent,
    /// Read everything back at the end and compare it (by a 64-bit checksum per command)
    #[arg(long)]
    verify: bool,
    /// Placement identifier of the writes: `upcie fdp status` lists those of the namespace
    #[arg(long, value_name = "PID", value_parser = parse::<u16>)]
    placement: Option<u16>,
}

/// A file, or stdin, that is read.
struct Source {
    read: File,
    name: String,
    /// Bytes, if it is a regular file.
    known: Option<u64>,
}

/// Progress of a copy.
struct Written {
    /// Bytes of data.
    bytes: u64,
    /// Checksum of each command's data, with `--verify`.
    sums: Vec<u64>,
    /// Error in the rest of the input.
    refused: Option<String>,
}

/// Runs `upcie write`.
pub fn run(args: &WriteArgs) -> anyhow::Result<Outcome> {
    let (mut input, mut apart) = open_inputs(args)?;
    args.consent.check(&args.target, args.range.namespace, "this overwrites")?;
    signal::install()?;
    let controller = args.target.open(args.range.builder())?;
    let (namespace, layout) = Layout::open(&controller, args.range.namespace, &args.blocks)?;
    guard::check_unprotected(controller.name(), &namespace)?;
    ensure!(
        !args.verify || !layout.changes_data(),
        "--verify: with --prinfo 8 the controller makes a part of each block of {}: give --metadata, which keeps that apart, or \
         leave --verify out",
        namespace.format()
    );
    let span = args.range.check(&namespace, &layout)?;
    check_input(args, &namespace, &layout, &input, span)?;
    let length = span.length.or(input.known);
    if let (Some(apart), Some(length)) = (&apart, length) {
        check_metadata(apart, length, &layout)?;
    }
    if args.target.is_ephemeral() {
        cli::message(&format!(
            "upcie: note: {} keeps its data in this process, which loses it at its end",
            controller.name()
        ));
    }
    target::check_placement(&namespace, args.placement.as_slice())?;
    let Span { first, left, .. } = span;
    let mut pipeline = Pipeline::new(&controller, &namespace, layout, first, args.range.timeout)?;
    pipeline.place(args.placement);
    let (bar, start) = (progress("writing", length), Instant::now());
    let mut written = Written { bytes: 0, sums: Vec::new(), refused: None };
    let most = length.unwrap_or(left);
    let copied = copy(&mut pipeline, args, &mut input, apart.as_mut(), (first, most), &mut written, &bar);
    bar.finish_and_clear();
    let from = first * layout.block as u64;
    let said = |bytes| format!("{} ({bytes} bytes) were written from byte {from} on", units::bytes(bytes));
    if let Err(error) = copied.and_then(|()| pipeline.flush()) {
        bail!("{error:#}; {}", said(written.bytes));
    }
    let took = start.elapsed();
    if signal::interrupted() {
        cli::message(&format!("upcie: interrupted: {}", said(written.bytes)));
        return Ok(Outcome::Interrupted);
    }
    if let Some(refused) = written.refused {
        let so_far = if written.bytes == 0 { "nothing was written".into() } else { said(written.bytes) };
        bail!("{refused}; {so_far}");
    }
    let outcome = if args.verify { verify(&mut pipeline, first, &written)? } else { Outcome::Done };
    if outcome == Outcome::Done && io::stderr().is_terminal() {
        let rate = units::bytes((written.bytes as f64 / took.as_secs_f64().max(1e-9)) as u64);
        let verified = if args.verify { ", and verified" } else { "" };
        cli::message(&format!("upcie: {} in {took:.1?} ({rate}/s){verified}", said(written.bytes)));
    }
    Ok(outcome)
}

/// Opens the input, and that of metadata if there is one.
fn open_inputs(args: &WriteArgs) -> anyhow::Result<(Source, Option<Source>)> {
    let places = [Some(&args.file), args.blocks.metadata.as_ref()].into_iter().flatten();
    let places: Vec<_> = places.map(|path| Place::input(path)).collect();
    ensure!(
        places.iter().filter(|place| matches!(place, Place::Stdin)).count() < 2,
        "stdin can't be both the data and the --metadata: name a file for one of them"
    );
    let uses = places.iter().map(|&place| Use::reads(name_of(place), place));
    files::check_distinct(&Use::media(&args.target, true).into_iter().chain(uses).collect::<Vec<_>>())?;
    let mut sources = places.into_iter().map(open_input).collect::<anyhow::Result<Vec<_>>>()?.into_iter();
    match sources.next() {
        Some(data) => Ok((data, sources.next())),
        None => bail!("nothing to write: name a file, or pipe data in"),
    }
}

fn name_of(place: Place<'_>) -> String {
    match place {
        Place::Path(path) => Path::display(path).to_string(),
        _ => "stdin".into(),
    }
}

fn open_input(place: Place<'_>) -> anyhow::Result<Source> {
    let name = name_of(place);
    let Place::Path(path) = place else {
        ensure!(!io::stdin().is_terminal(), "nothing to write: name a file, or pipe data in");
        files::check_stream_unlocked(place)?;
        let read = File::from(io::stdin().as_fd().try_clone_to_owned().context("opening stdin")?);
        return Ok(Source { read, name, known: None });
    };
    let file = File::open(path).with_context(|| format!("opening {name}"))?;
    let kind = file.metadata().with_context(|| format!("reading the type of {name}"))?;
    ensure!(!kind.is_dir(), "{name} is a directory");
    files::check_unlocked(&file, &name, false)?;
    let known = kind.is_file().then_some(kind.len());
    Ok(Source { read: file, name, known })
}

/// Checks the length of the input before anything is written.
fn check_input(
    args: &WriteArgs,
    namespace: &Namespace,
    layout: &Layout,
    input: &Source,
    span: Span,
) -> anyhow::Result<()> {
    let Source { name, known: Some(known), .. } = input else { return Ok(()) };
    let (known, block) = (*known, layout.block as u64);
    if let (Some(length), Some(option)) = (span.length, args.range.length()) {
        ensure!(length <= known, "{name} has {known} bytes, less than {option}; nothing was written");
        return Ok(());
    }
    ensure!(known > 0, "{name} is empty; nothing was written");
    ensure!(
        known.is_multiple_of(block),
        "{name} has {known} bytes, not a multiple of the block size, {block} bytes; nothing was written \
         (--length {} writes its whole blocks, `truncate -s %{block}` pads a file with zeros)",
        known / block * block
    );
    ensure!(
        known <= span.left,
        "{name} has {known} bytes, but namespace {} has only {} from {} on; nothing was written",
        namespace.nsid(),
        span.left,
        args.range.start()
    );
    Ok(())
}

/// Checks the length of the metadata of `length` bytes of data before anything is written.
fn check_metadata(apart: &Source, length: u64, layout: &Layout) -> anyhow::Result<()> {
    let Source { name, known: Some(known), .. } = apart else { return Ok(()) };
    let needed = length / layout.block as u64 * layout.metadata as u64;
    ensure!(
        *known == needed,
        "{name} has {known} bytes, and the metadata of {length} bytes of data has {needed} ({} for each block of {}); nothing \
         was written",
        layout.metadata,
        layout.block
    );
    Ok(())
}

/// Writes at most `most` bytes of the input from block `first` on. `written` holds the progress, even after an error.
fn copy(
    pipeline: &mut Pipeline,
    args: &WriteArgs,
    input: &mut Source,
    mut apart: Option<&mut Source>,
    (first, most): (u64, u64),
    written: &mut Written,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let block = pipeline.layout().block;
    let (mut read, mut ended) = (0, false);
    loop {
        while !ended && read < most && !signal::interrupted() {
            let slba = first + read / block as u64;
            let blocks = ((most - read) / block as u64).min(pipeline.most(slba)) as usize;
            let Some(mut buffers) = pipeline.buffers(blocks, true) else { break };
            let got = fill_blocks(pipeline.layout(), input, apart.as_deref_mut(), &mut buffers, blocks)?;
            let whole = got / block;
            if got < blocks * block && signal::interrupted() {
                pipeline.give_back(buffers);
                break;
            }
            if got < blocks * block {
                ended = true;
                if got > whole * block {
                    written.refused = Some(format!(
                        "{} ended with a partial block of {} bytes (of {block}), which was not written",
                        input.name,
                        got - whole * block
                    ));
                } else if args.range.length().is_some() || input.known.is_some() || read + got as u64 == 0 {
                    written.refused = Some(format!("{} ended after {} bytes", input.name, read + got as u64));
                }
            }
            if whole == 0 {
                pipeline.give_back(buffers);
                break;
            }
            if whole < blocks {
                buffers = pipeline.cut(buffers, whole);
            }
            if args.verify {
                written.sums.push(sum_of(pipeline.layout(), &buffers));
            }
            pipeline.send(slba, buffers, true)?;
            read += (whole * block) as u64;
        }
        let Some(piece) = pipeline.oldest(true)? else { break };
        written.bytes += (piece.buffers.data.len() / pipeline.layout().moved * block) as u64;
        bar.set_position(written.bytes);
        pipeline.give_back(piece.buffers);
    }
    // A pipe may hold more data than the namespace.
    let rest = !ended && args.range.length().is_none() && !signal::interrupted();
    if rest && fill(&mut input.read, &mut [0]).with_context(|| format!("reading {}", input.name))? > 0 {
        written.refused = Some(format!(
            "{} has more data than the namespace has room for: the rest was not written",
            input.name
        ));
    }
    Ok(())
}

/// Reads `blocks` blocks into buffers, with the metadata of those that are whole; returns the number of bytes of data, fewer at
/// the end of the input.
fn fill_blocks(
    layout: &Layout,
    input: &mut Source,
    apart: Option<&mut Source>,
    buffers: &mut Buffers,
    blocks: usize,
) -> anyhow::Result<usize> {
    let Buffers { data, metadata } = buffers;
    contents::change(data, |place| fill_place(layout, input, apart, (place, metadata), blocks))
}

/// Reads `blocks` blocks into `place`, and the metadata of those that are whole; returns the number of bytes of data.
fn fill_place(
    layout: &Layout,
    input: &mut Source,
    apart: Option<&mut Source>,
    (place, own): (&mut [u8], &mut DmaBuf),
    blocks: usize,
) -> anyhow::Result<usize> {
    let mut split = vec![0; if layout.is_split() { blocks * layout.block } else { 0 }];
    let data = if layout.is_split() { &mut split[..] } else { &mut place[..blocks * layout.block] };
    let got = fill(&mut input.read, data).with_context(|| format!("reading {}", input.name))?;
    let Some(apart) = apart else { return Ok(got) };
    let mut metadata = vec![0; got / layout.block * layout.metadata];
    let more = fill(&mut apart.read, &mut metadata).with_context(|| format!("reading {}", apart.name))?;
    if more < metadata.len() && signal::interrupted() {
        return Ok(0);
    }
    ensure!(
        more == metadata.len(),
        "{} ended within the metadata of the blocks: {more} of {} bytes",
        apart.name,
        metadata.len()
    );
    if layout.is_split() {
        layout.join(&split, &metadata, place);
    } else {
        own.write_at(0, &metadata);
    }
    Ok(got)
}

/// Reads the written blocks back and compares their checksums.
fn verify(pipeline: &mut Pipeline, first: u64, written: &Written) -> anyhow::Result<Outcome> {
    let bar = progress("verifying", Some(written.bytes));
    let mut sums = written.sums.iter();
    let mut wrong = 0_u64;
    let layout = *pipeline.layout();
    let count = written.bytes / layout.block as u64;
    let result = read::each(pipeline, first, count, |slba, data, metadata| {
        bar.inc(data.len() as u64);
        if sums.next() != Some(&sum(&layout, data, metadata)) {
            wrong += 1;
            let last = slba + (data.len() / layout.block) as u64 - 1;
            bar.suspend(|| {
                cli::message(&format!("upcie: blocks {slba} to {last} differ from the written data"))
            });
        }
        Ok(())
    });
    bar.finish_and_clear();
    match (result? < count, wrong) {
        (_, 1..) => Ok(Outcome::Faults),
        (true, 0) => Ok(Outcome::Interrupted),
        (false, 0) => Ok(Outcome::Done),
    }
}

/// Returns the checksum of a command's data and metadata.
fn sum_of(layout: &Layout, buffers: &Buffers) -> u64 {
    let data = buffers.data.to_vec();
    match layout.is_split() {
        true => {
            let (data, metadata) = layout.split(&data);
            sum(layout, &data, &metadata)
        }
        false => sum(layout, &data, &buffers.metadata.to_vec()),
    }
}

/// Returns the checksum of data and metadata; of data alone where the controller changes the metadata.
fn sum(layout: &Layout, data: &[u8], metadata: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    if !layout.is_made {
        hasher.write(metadata);
    }
    hasher.finish()
}
