//! `upcie write`.

use super::{RangeArgs, is_pipe, pipeline::Pipeline, progress, read};
use crate::{cli, guard, outcome::Outcome, signal, target, target::Target, units};
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use std::{
    fs::File,
    hash::{DefaultHasher, Hasher},
    io::{self, IsTerminal, Read},
    path::PathBuf,
};
use upcie_nvme::{ControllerOptions, Namespace};

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie write 0000:01:00.0 disk.img --verify
  dd if=/dev/urandom bs=1M count=64 | upcie write 0000:01:00.0 --offset 1G
  upcie write emu:file=disk.img,size=1G boot.bin

Input of a known length that is not a whole number of blocks, or too long, is
refused before anything is written. Of a pipe, whole blocks are written, and a
rest of less than a block is refused at the end. What was written is flushed. A
device that the kernel drives is refused.";

/// Arguments of `upcie write`.
#[derive(Debug, Args)]
pub struct WriteArgs {
    #[command(flatten)]
    target: Target,
    /// Where the data comes from: a file, or - for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    range: RangeArgs,
    /// Read everything back at the end, and compare (by a 64-bit checksum of each command's data)
    #[arg(long)]
    verify: bool,
}

/// What was written.
struct Written {
    bytes: u64,
    /// A checksum per command, when they are asked for.
    sums: Vec<u64>,
    /// What was wrong with the rest of the input.
    refused: Option<String>,
}

/// Runs it.
pub fn run(args: &WriteArgs) -> anyhow::Result<Outcome> {
    let (mut input, name, known) = open_input(args)?;
    guard::check_writable(&args.target)?;
    signal::install()?;
    let controller = args
        .target
        .open(ControllerOptions { timeout: args.range.timeout, ..ControllerOptions::default() })?;
    let namespace = target::namespace(&controller, args.range.namespace)?;
    ensure!(
        !namespace.identify().is_write_protected(),
        "{}: namespace {} is write protected",
        controller.name(),
        namespace.nsid()
    );
    let left = args.range.check(&namespace)?;
    check_input(args, &namespace, &name, known, left)?;
    if args.target.is_ephemeral() {
        cli::say(&format!(
            "upcie: note: {} is memory of this process: what is written is gone when it ends",
            controller.name()
        ));
    }
    let mut pipeline = Pipeline::new(&controller, &namespace, args.range.timeout)?;
    let length = args.range.length.or(known);
    let bar = progress("writing", length);
    let written = copy(&mut pipeline, &namespace, args, &mut *input, &name, length.unwrap_or(left), &bar);
    bar.finish_and_clear();
    let written = written?;
    namespace.flush()?;
    let said = |bytes| {
        format!("{} ({bytes} bytes) were written from byte {} on", units::bytes(bytes), args.range.offset)
    };
    if signal::interrupted() {
        cli::say(&format!("upcie: interrupted: {}", said(written.bytes)));
        return Ok(Outcome::Interrupted);
    }
    if let Some(refused) = written.refused {
        bail!("{refused}; {}", said(written.bytes));
    }
    if args.verify { verify(&mut pipeline, &namespace, args, &written) } else { Ok(Outcome::Done) }
}

/// The input, its name, and its length where it has one.
fn open_input(args: &WriteArgs) -> anyhow::Result<(Box<dyn Read>, String, Option<u64>)> {
    if is_pipe(&args.file) {
        ensure!(!io::stdin().is_terminal(), "nothing to write: name a file, or pipe data in");
        return Ok((Box::new(io::stdin().lock()), "stdin".into(), None));
    }
    let name = args.file.display().to_string();
    let file = File::open(&args.file).with_context(|| format!("opening {name}"))?;
    let kind = file.metadata().with_context(|| format!("looking at {name}"))?;
    ensure!(!kind.is_dir(), "{name} is a directory");
    Ok((Box::new(file), name, kind.is_file().then_some(kind.len())))
}

/// What can be said before anything is written.
fn check_input(
    args: &WriteArgs,
    namespace: &Namespace,
    name: &str,
    known: Option<u64>,
    left: u64,
) -> anyhow::Result<()> {
    let Some(known) = known else { return Ok(()) };
    let block = namespace.block_size() as u64;
    if let Some(length) = args.range.length {
        ensure!(
            length <= known,
            "{name} has {known} bytes, less than --length {length}; nothing was written"
        );
        return Ok(());
    }
    ensure!(known > 0, "{name} is empty; nothing was written");
    ensure!(
        known.is_multiple_of(block),
        "{name} has {known} bytes, not a multiple of the block size, {block} bytes; nothing was written \
         (--length {} takes its whole blocks, `truncate -s %{block}` pads a file with zeros)",
        known / block * block
    );
    ensure!(
        known <= left,
        "{name} has {known} bytes, but namespace {} only {left} from --offset {} on; nothing was written",
        namespace.nsid(),
        args.range.offset
    );
    Ok(())
}

/// Writes at most `most` bytes of the input.
fn copy(
    pipeline: &mut Pipeline,
    namespace: &Namespace,
    args: &WriteArgs,
    input: &mut dyn Read,
    name: &str,
    most: u64,
    bar: &ProgressBar,
) -> anyhow::Result<Written> {
    let block = namespace.block_size();
    let (mut read, mut ended) = (0, false);
    let mut written = Written { bytes: 0, sums: Vec::new(), refused: None };
    loop {
        while !ended && read < most && !signal::interrupted() {
            let want = (most - read).min(pipeline.piece() as u64) as usize;
            let Some(mut buffer) = pipeline.buffer(want) else { break };
            let got = fill(input, &mut buffer[..want]).with_context(|| format!("reading {name}"))?;
            let whole = got / block * block;
            if got < want {
                ended = true;
                if got > whole {
                    written.refused = Some(format!(
                        "{name} ended with {} bytes of a block of {block}: they were not written",
                        got - whole
                    ));
                } else if args.range.length.is_some() || read + whole as u64 == 0 {
                    written.refused = Some(format!("{name} ended after {} bytes", read + got as u64));
                }
            }
            if whole == 0 {
                pipeline.give_back(buffer);
                break;
            }
            if whole < want {
                buffer = buffer.slice(0..whole);
            }
            if args.verify {
                written.sums.push(sum(&buffer));
            }
            pipeline.send((args.range.offset + read) / block as u64, buffer, true)?;
            read += whole as u64;
        }
        let Some(piece) = pipeline.oldest(true)? else { break };
        written.bytes += piece.data.len() as u64;
        bar.set_position(written.bytes);
        pipeline.give_back(piece.data);
    }
    // A pipe may hold more than the namespace.
    let rest = !ended && args.range.length.is_none() && !signal::interrupted();
    if rest && fill(input, &mut [0]).with_context(|| format!("reading {name}"))? > 0 {
        written.refused = Some(format!("{name} holds more than the namespace: the rest was not written"));
    }
    Ok(written)
}

/// Reads until the buffer is full or the input ends; gives the bytes read.
fn fill(input: &mut dyn Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let whole = buffer.len();
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted && !signal::interrupted() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole - buffer.len())
}

/// Reads back what was written.
fn verify(
    pipeline: &mut Pipeline,
    namespace: &Namespace,
    args: &WriteArgs,
    written: &Written,
) -> anyhow::Result<Outcome> {
    let bar = progress("verifying", Some(written.bytes));
    let mut sums = written.sums.iter();
    let mut wrong = 0_u64;
    let block = namespace.block_size();
    let result = read::each(pipeline, namespace, args.range.offset, written.bytes, |slba, data| {
        bar.inc(data.len() as u64);
        if sums.next() != Some(&sum(data)) {
            wrong += 1;
            let last = slba + (data.len() / block) as u64 - 1;
            bar.suspend(|| {
                cli::say(&format!(
                    "upcie: blocks {slba} to {last} read back as something else than was written"
                ))
            });
        }
        Ok(())
    });
    bar.finish_and_clear();
    match (result? < written.bytes, wrong) {
        (true, _) => Ok(Outcome::Interrupted),
        (false, 0) => Ok(Outcome::Done),
        (false, _) => Ok(Outcome::Faults),
    }
}

fn sum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}
