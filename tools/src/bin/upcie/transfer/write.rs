//! `upcie write`: writes blocks from a file or a pipe.

use super::{pipeline::Pipeline, progress::progress, range::RangeArgs, read};
use crate::{
    cli,
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
    io::{self, IsTerminal, Read},
    path::PathBuf,
};
use upcie_nvme::{Controller, Namespace};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie write 0000:01:00.0 disk.img --verify --destructive
  dd if=/dev/urandom bs=1M count=64 | upcie write 0000:01:00.0 --offset 1G --destructive
  upcie write emu:file=disk.img,size=1G boot.bin --destructive

A file that is not a whole number of blocks, or is too long, is refused before
anything is written. A pipe is written block by block, and a partial block at its
end is refused. All written data is flushed.

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
    consent: Consent,
    /// Read everything back at the end and compare it (by a 64-bit checksum per command)
    #[arg(long)]
    verify: bool,
    /// Placement identifier of the writes: `upcie fdp status` lists those of the namespace
    #[arg(long, value_name = "PID", value_parser = parse::<u16>)]
    placement: Option<u16>,
}

/// Progress of a copy.
struct Written {
    bytes: u64,
    /// Checksum of each command's data, with `--verify`.
    sums: Vec<u64>,
    /// Error in the rest of the input.
    refused: Option<String>,
}

/// Runs `upcie write`.
pub fn run(args: &WriteArgs) -> anyhow::Result<Outcome> {
    let (mut input, name, known) = open_input(args)?;
    args.consent.check(&args.target, args.range.namespace, "this overwrites")?;
    signal::install()?;
    let controller = args.target.open(Controller::builder().timeout(args.range.timeout))?;
    let namespace = target::data_namespace(&controller, args.range.namespace)?;
    guard::check_unprotected(controller.name(), &namespace)?;
    let left = args.range.check(&namespace)?;
    check_input(args, &namespace, &name, known, left)?;
    if args.target.is_ephemeral() {
        cli::message(&format!(
            "upcie: note: {} keeps its data in this process, which loses it at its end",
            controller.name()
        ));
    }
    if let Some(identifier) = args.placement {
        target::check_placement(&namespace, &[identifier])?;
    }
    let mut pipeline = Pipeline::new(&controller, &namespace, args.range.timeout)?;
    pipeline.place(args.placement);
    let length = args.range.length.as_ref().map(|length| length.bytes).or(known);
    let bar = progress("writing", length);
    let mut written = Written { bytes: 0, sums: Vec::new(), refused: None };
    let most = length.unwrap_or(left);
    let copied = copy(&mut pipeline, &namespace, args, &mut *input, &name, most, &mut written, &bar);
    bar.finish_and_clear();
    let said = |bytes| {
        format!("{} ({bytes} bytes) were written from byte {} on", units::bytes(bytes), args.range.offset)
    };
    if let Err(error) = copied.and_then(|()| pipeline.flush()) {
        bail!("{error:#}; {}", said(written.bytes));
    }
    if signal::interrupted() {
        cli::message(&format!("upcie: interrupted: {}", said(written.bytes)));
        return Ok(Outcome::Interrupted);
    }
    if let Some(refused) = written.refused {
        bail!("{refused}; {}", said(written.bytes));
    }
    if args.verify { verify(&mut pipeline, &namespace, args, &written) } else { Ok(Outcome::Done) }
}

/// Opens the input; returns it with its name, and its length if it is a regular file.
fn open_input(args: &WriteArgs) -> anyhow::Result<(Box<dyn Read>, String, Option<u64>)> {
    let place = Place::input(&args.file);
    let name = match place {
        Place::Path(path) => path.display().to_string(),
        _ => "stdin".into(),
    };
    let input = Use::reads(&name, place);
    files::check_distinct(&Use::media(&args.target, true).into_iter().chain([input]).collect::<Vec<_>>())?;
    let Place::Path(path) = place else {
        ensure!(!io::stdin().is_terminal(), "nothing to write: name a file, or pipe data in");
        files::check_stream_unlocked(place)?;
        return Ok((Box::new(io::stdin().lock()), name, None));
    };
    let file = File::open(path).with_context(|| format!("opening {name}"))?;
    let kind = file.metadata().with_context(|| format!("reading the type of {name}"))?;
    ensure!(!kind.is_dir(), "{name} is a directory");
    files::check_unlocked(&file, &name, false)?;
    Ok((Box::new(file), name, kind.is_file().then_some(kind.len())))
}

/// Checks the length of the input before anything is written.
fn check_input(
    args: &WriteArgs,
    namespace: &Namespace,
    name: &str,
    known: Option<u64>,
    left: u64,
) -> anyhow::Result<()> {
    let Some(known) = known else { return Ok(()) };
    let block = namespace.block_size() as u64;
    if let Some(length) = &args.range.length {
        ensure!(
            length.bytes <= known,
            "{name} has {known} bytes, less than --length {length}; nothing was written"
        );
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
        known <= left,
        "{name} has {known} bytes, but namespace {} has only {left} from --offset {} on; nothing was written",
        namespace.nsid(),
        args.range.offset
    );
    Ok(())
}

/// Writes at most `most` bytes of the input. `written` holds the progress, even after an error.
#[expect(clippy::too_many_arguments, reason = "each is another part of the copy")]
fn copy(
    pipeline: &mut Pipeline,
    namespace: &Namespace,
    args: &WriteArgs,
    input: &mut dyn Read,
    name: &str,
    most: u64,
    written: &mut Written,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let block = namespace.block_size();
    let (mut read, mut ended) = (0, false);
    loop {
        while !ended && read < most && !signal::interrupted() {
            let want = (most - read).min(pipeline.piece(args.range.offset.bytes + read) as u64) as usize;
            let Some(mut buffer) = pipeline.buffer(want, true) else { break };
            let bytes = buffer.as_mut_slice().expect("memory of this process alone");
            let got = fill(input, &mut bytes[..want]).with_context(|| format!("reading {name}"))?;
            let whole = got / block * block;
            if got < want {
                ended = true;
                if got > whole {
                    written.refused = Some(format!(
                        "{name} ended with a partial block of {} bytes (of {block}), which was not written",
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
                written.sums.push(sum(&buffer.to_vec()));
            }
            pipeline.send((args.range.offset.bytes + read) / block as u64, buffer, true)?;
            read += whole as u64;
        }
        let Some(piece) = pipeline.oldest(true)? else { break };
        written.bytes += piece.data.len() as u64;
        bar.set_position(written.bytes);
        pipeline.give_back(piece.data);
    }
    // A pipe may hold more data than the namespace.
    let rest = !ended && args.range.length.is_none() && !signal::interrupted();
    if rest && fill(input, &mut [0]).with_context(|| format!("reading {name}"))? > 0 {
        written.refused =
            Some(format!("{name} has more data than the namespace has room for: the rest was not written"));
    }
    Ok(())
}

/// Reads until the buffer is full or the input ends; returns the number of bytes read.
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

/// Reads the written blocks back and compares their checksums.
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
    let result = read::each(pipeline, namespace, args.range.offset.bytes, written.bytes, |slba, data| {
        bar.inc(data.len() as u64);
        if sums.next() != Some(&sum(data)) {
            wrong += 1;
            let last = slba + (data.len() / block) as u64 - 1;
            bar.suspend(|| {
                cli::message(&format!("upcie: blocks {slba} to {last} differ from the written data"))
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
