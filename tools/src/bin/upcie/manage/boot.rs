//! `upcie boot-part`: boot partitions.

use super::common::{Common, Effect};
use crate::{
    cli,
    files::{self, Output, Place, Use},
    guard::Consent,
    outcome::Outcome,
    signal,
    target::Target,
    units::{self, Bytes},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    time::Duration,
};
use upcie_nvme::{BootPartitions, Controller};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie boot-part info 0000:01:00.0
  upcie boot-part read 0000:01:00.0 boot.img
  upcie boot-part read 0000:01:00.0 --bpid 1 --offset 4K --length 512 | hexdump -C
  upcie feature 0000:01:00.0 set boot-partition-write-protection-config partition_1=1 --destructive
  upcie fw download 0000:01:00.0 boot.img --action replace-boot-partition --bpid 1 --destructive
  upcie fw commit 0000:01:00.0 --action activate-boot-partition --bpid 1 --destructive";

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;
/// Reads begin at multiples of this.
const UNIT: u64 = 4096;

/// Arguments of `upcie boot-part`.
#[derive(Debug, Args)]
pub struct BootArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the size of the boot partitions, and which one is active
    Info {
        #[command(flatten)]
        common: Common,
    },
    /// Read a boot partition into a file or a pipe
    Read(ReadArgs),
}

#[derive(Debug, Args)]
struct ReadArgs {
    #[command(flatten)]
    target: Target,
    /// File to write, or - for stdout; an existing file is replaced when the first data has been read
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Boot partition, 0 or 1 [default: the active one]
    #[arg(long, alias = "lsp", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=1))]
    bpid: Option<u8>,
    /// First byte; a multiple of 4K
    #[arg(long, short_alias = 'o', value_name = "BYTES", default_value = "0")]
    offset: Bytes,
    /// Bytes to read [default: to the end of the partition]
    #[arg(long, short, alias = "size", value_name = "BYTES")]
    length: Option<Bytes>,
    /// Give up if a command is not answered for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

/// Runs `upcie boot-part`.
pub fn run(args: &BootArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Info { common } => {
            let controller = common.open(Effect::Reads, Consent::default())?;
            let partitions = partitions(&controller)?;
            let text = format!(
                "2 boot partitions of {}, {} is active",
                units::bytes(partitions.size),
                partitions.active
            );
            let fields = [("size", partitions.size.into()), ("active", partitions.active.into())];
            common.print(controller.name(), &text, &fields)
        }
        Verb::Read(args) => read(args),
    }
}

fn partitions(controller: &Controller) -> anyhow::Result<BootPartitions> {
    match controller.boot_partitions()? {
        Some(partitions) => Ok(partitions),
        None => bail!("{}: it has no boot partitions (CAP.BPS is 0)", controller.name()),
    }
}

fn read(args: &ReadArgs) -> anyhow::Result<Outcome> {
    let place = Place::output(&args.file);
    let name = match place {
        Place::Path(path) => path.display().to_string(),
        _ => "stdout".into(),
    };
    if matches!(place, Place::Stdout) && io::stdout().is_terminal() {
        bail!(
            "refusing to print a boot partition to a terminal: name a file, or pipe the output into a command"
        );
    }
    let output = Use::writes(&name, place);
    files::check_distinct(&Use::media(&args.target, false).into_iter().chain([output]).collect::<Vec<_>>())?;
    signal::install()?;
    let controller = args.target.open_to_read(Controller::builder().timeout(args.timeout))?;
    let BootPartitions { size, active, .. } = partitions(&controller)?;
    let id = args.bpid.unwrap_or(active);
    let offset = args.offset.bytes;
    if !offset.is_multiple_of(UNIT) || offset >= size {
        bail!("--offset {}: give a multiple of 4K below the {size} bytes of a boot partition", args.offset);
    }
    let left = size - offset;
    let length = args.length.as_ref().map_or(left, |length| length.bytes);
    if length == 0 || length > left {
        bail!("--length {length}: boot partition {id} has {left} bytes from --offset {} on", args.offset);
    }
    // Opened last: every error before this leaves an existing file unchanged.
    let mut out: Box<dyn Write> = match place {
        Place::Path(path) => Box::new(Output::open(path)?),
        _ => {
            files::check_stream_unlocked(place)?;
            Box::new(io::stdout().lock())
        }
    };
    let mut data = vec![0; PIECE];
    let mut done = 0;
    while done < length {
        if signal::interrupted() {
            cli::message(&format!("upcie: interrupted: {done} of {length} bytes were written to {name}"));
            return Ok(Outcome::Interrupted);
        }
        let part = &mut data[..(length - done).min(PIECE as u64) as usize];
        controller.read_boot_partition(id, offset + done, part)?;
        out.write_all(part).with_context(|| format!("writing {name}"))?;
        done += part.len() as u64;
    }
    out.flush().with_context(|| format!("writing {name}"))?;
    Ok(Outcome::Done)
}
