//! `upcie io`: runs an I/O command that the user builds.

use super::common::{Common, Effect};
use crate::{
    cli,
    files::{self, Place, Use},
    guard::Consent,
    input,
    outcome::Outcome,
    structures::{dump, hex, parse, write_file},
};
use anyhow::{bail, ensure};
use clap::Args;
use std::path::PathBuf;
use upcie_nvme::spec::{Command, DataDirection, NvmOpcode};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie io emu --opcode 2 --length 4096 --dword12 7                        Read, blocks 0 to 7
  upcie io emu --opcode 1 --data block.bin --dword10 8                      Write, block 8
  upcie io 0000:01:00.0 --opcode 0x0e --dword10 15 --length 64              Reservation Report

Read, Compare, Verify, Flush, Reservation Report, the receiving commands of Base and ZNS, and
Retrieve, List and Exist of namespaces with keys only read; every other command needs --destructive
on a device that keeps data.";

/// Commands that change nothing.
const READERS: [u8; 9] = [0x00, 0x02, 0x05, 0x06, 0x0c, 0x0e, 0x12, 0x14, 0x7a];

/// Arguments of `upcie io`.
#[derive(Debug, Args)]
pub struct IoArgs {
    #[command(flatten)]
    common: Common,
    /// Opcode of the command
    #[arg(long, short, value_name = "N", value_parser = parse::<u8>)]
    opcode: u8,
    /// Namespace (NSID)
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "1")]
    namespace: u32,
    /// Command dword 2
    #[arg(long, short_alias = '2', alias = "cdw2", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword2: u32,
    /// Command dword 3
    #[arg(long, short_alias = '3', alias = "cdw3", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword3: u32,
    /// Command dword 10: the lower half of the first block
    #[arg(long, short_alias = '4', alias = "cdw10", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword10: u32,
    /// Command dword 11
    #[arg(long, short_alias = '5', alias = "cdw11", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword11: u32,
    /// Command dword 12: blocks, 0's based
    #[arg(long, short_alias = '6', alias = "cdw12", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword12: u32,
    /// Command dword 13
    #[arg(long, short_alias = '7', alias = "cdw13", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword13: u32,
    /// Command dword 14
    #[arg(long, short_alias = '8', alias = "cdw14", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword14: u32,
    /// Command dword 15
    #[arg(long, short_alias = '9', alias = "cdw15", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword15: u32,
    /// Bytes that the command returns
    #[arg(long, short, alias = "data-len", value_name = "BYTES", value_parser = parse::<u32>, conflicts_with = "data")]
    length: Option<u32>,
    /// Bytes that the command sends, from a file
    #[arg(long, short_alias = 'i', alias = "input-file", value_name = "FILE")]
    data: Option<PathBuf>,
    /// Write the bytes that the command returns to FILE; `-` is stdout
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    raw: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

/// Runs `upcie io`.
pub fn run(args: &IoArgs) -> anyhow::Result<Outcome> {
    let opcode = NvmOpcode(args.opcode);
    let sends = opcode.direction() == DataDirection::ToController;
    let reads = READERS.contains(&args.opcode);
    let mut uses: Vec<_> = Use::media(&args.common.target, !reads).into_iter().collect();
    uses.extend(args.raw.as_ref().map(|path| Use::writes("--raw", Place::output(path))));
    uses.extend(args.data.as_ref().map(|path| Use::reads("--data", Place::input(path))));
    files::check_distinct(&uses)?;
    ensure!(
        args.data.is_none() || sends,
        "{opcode} sends no data to the controller: use --length instead of --data"
    );
    if sends && args.length.is_some_and(|length| length > 0) {
        bail!("{opcode} sends data to the controller: use --data instead of --length");
    }
    let mut data = match (&args.data, args.length) {
        (Some(path), _) => input::read(path, input::COMMAND)?,
        (None, length) => vec![0; length.unwrap_or(0) as usize],
    };
    let what = format!("{opcode} may change");
    let effect = if reads { Effect::Reads } else { Effect::Erases(Some(args.namespace), &what) };
    let controller = args.common.open(effect, args.consent)?;
    let mut command = Command::io(opcode, args.namespace);
    (command.cdw2, command.cdw3) = (args.dword2, args.dword3);
    (command.cdw10, command.cdw11, command.cdw12) = (args.dword10, args.dword11, args.dword12);
    (command.cdw13, command.cdw14, command.cdw15) = (args.dword13, args.dword14, args.dword15);
    let dword0 = controller.io(&command, &mut data, args.common.timeout)?;
    let returned: &[u8] = if sends { &[] } else { &data };
    match &args.raw {
        Some(path) if path.as_os_str() == "-" => return cli::print(returned).map(|()| Outcome::Done),
        Some(path) => write_file(path, returned)?,
        None => {}
    }
    let mut text = format!("{opcode}: dword 0 of the completion: {dword0:#010x}");
    if args.raw.is_none() && !returned.is_empty() {
        text += "\n";
        text += dump(returned).trim_end();
    }
    let fields =
        [("command", opcode.to_string().into()), ("dword0", dword0.into()), ("data", hex(returned).into())];
    args.common.print(controller.name(), &text, &fields)
}
