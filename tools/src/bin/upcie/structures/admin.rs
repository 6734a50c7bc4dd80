//! `upcie admin`: runs an admin command that the user builds.

use super::{
    names,
    output::{dump, hex, write_file},
};
use crate::{
    cli,
    files::{self, Place, Use},
    guard::Consent,
    input,
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;
use std::{io::Write, path::PathBuf, time::Duration};
use upcie_nvme::{
    Controller,
    spec::{ALL_NAMESPACES, AdminOpcode, Command, DataDirection},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie admin emu --opcode 0x06 --dword10 1 --length 4096 --raw ctrl.bin      Identify Controller
  upcie admin emu --opcode 0x0a --dword10 7                                  Get Features
  upcie admin emu --opcode 0x09 --dword10 4 --dword11 350 --destructive       Set Features
  upcie admin-passthru emu -o 6 -r -4 1 -l 4096 -b | xxd                     with nvme-cli's options
  upcie admin 0000:01:00.0 --opcode 0x11 --dword10 0x3ff --data image.bin --destructive

Get Log Page, Identify, Get Features, Security Receive and Get LBA Status only read; every other
command needs --destructive on a device that keeps data. The driver refuses commands that would
change its own queues, give the controller memory, or have data of a length that it does not know.";

/// Commands that change nothing.
const READERS: [AdminOpcode; 5] = [
    AdminOpcode::GET_LOG_PAGE,
    AdminOpcode::IDENTIFY,
    AdminOpcode::GET_FEATURES,
    AdminOpcode::SECURITY_RECEIVE,
    AdminOpcode::GET_LBA_STATUS,
];

/// Arguments of `upcie admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(flatten)]
    target: Target,
    /// Opcode of the command
    #[arg(long, short, value_name = "N", value_parser = names::parse::<u8>)]
    opcode: u8,
    /// Namespace (NSID)
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = names::parse::<u32>, default_value = "0")]
    namespace: u32,
    /// Command dword 2
    #[arg(long, short_alias = '2', alias = "cdw2", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword2: u32,
    /// Command dword 3
    #[arg(long, short_alias = '3', alias = "cdw3", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword3: u32,
    /// Command dword 10
    #[arg(long, short_alias = '4', alias = "cdw10", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword10: u32,
    /// Command dword 11
    #[arg(long, short_alias = '5', alias = "cdw11", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword11: u32,
    /// Command dword 12
    #[arg(long, short_alias = '6', alias = "cdw12", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword12: u32,
    /// Command dword 13
    #[arg(long, short_alias = '7', alias = "cdw13", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword13: u32,
    /// Command dword 14
    #[arg(long, short_alias = '8', alias = "cdw14", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword14: u32,
    /// Command dword 15
    #[arg(long, short_alias = '9', alias = "cdw15", value_name = "N", value_parser = names::parse::<u32>, default_value = "0")]
    dword15: u32,
    /// Bytes that the command returns
    #[arg(long, short, alias = "data-len", value_name = "BYTES", value_parser = names::parse::<u32>, conflicts_with = "data")]
    length: Option<u32>,
    /// Bytes that the command sends, from a file
    #[arg(long, short_alias = 'i', alias = "input-file", value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write the bytes that the command returns to FILE; `-` is stdout
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Give up if the command is not answered for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
    #[command(flatten)]
    consent: Consent,
}

/// Runs `upcie admin`.
pub fn run(args: &AdminArgs) -> anyhow::Result<Outcome> {
    let opcode = AdminOpcode(args.opcode);
    let reads = READERS.contains(&opcode);
    let mut uses: Vec<_> = Use::media(&args.target, !reads).into_iter().collect();
    uses.push(match &args.raw {
        Some(path) => Use::writes("--raw", Place::output(path)),
        None => Use::writes("stdout", Place::Stdout),
    });
    if let Some(path) = &args.data {
        uses.push(Use::reads("--data", Place::input(path)));
    }
    files::check_distinct(&uses)?;
    files::check_stream_unlocked(Place::Stdout)?;
    let mut data = match (&args.data, args.length) {
        (Some(path), _) => input::read(path, input::COMMAND)?,
        (None, length) => vec![0; length.unwrap_or(0) as usize],
    };
    // Before, a pipe may keep this program waiting: a signal ends it at once.
    signal::install()?;
    let sends = opcode.direction() == DataDirection::ToController;
    ensure!(
        args.data.is_none() || sends,
        "{opcode} sends no data to the controller: use --length instead of --data"
    );
    if sends && args.length.is_some_and(|length| length > 0) {
        bail!("{opcode} sends data to the controller: use --data instead of --length");
    }
    if !reads {
        let what = format!("{opcode} may change the data of");
        args.consent.check(&args.target, Some(ALL_NAMESPACES), &what)?;
    }
    let options = Controller::builder().timeout(args.timeout);
    let controller = if reads { args.target.open_to_read(options)? } else { args.target.open(options)? };
    let mut command = Command::admin(opcode, args.namespace);
    (command.cdw2, command.cdw3) = (args.dword2, args.dword3);
    (command.cdw10, command.cdw11, command.cdw12) = (args.dword10, args.dword11, args.dword12);
    (command.cdw13, command.cdw14, command.cdw15) = (args.dword13, args.dword14, args.dword15);
    let dword0 = controller.admin_within(&command, &mut data, args.timeout)?;
    let returned: &[u8] = if sends { &[] } else { &data };
    print(args, controller.name(), opcode, dword0, returned)?;
    Ok(Outcome::Done)
}

fn print(
    args: &AdminArgs,
    device: &str,
    opcode: AdminOpcode,
    dword0: u32,
    data: &[u8],
) -> anyhow::Result<()> {
    match &args.raw {
        Some(path) if path.as_os_str() == "-" => return cli::print(data),
        Some(path) => write_file(path, data)?,
        None => {}
    }
    let mut text = Vec::new();
    if args.json {
        let answer = json!({
            "device": device, "command": opcode.to_string(), "dword0": dword0, "data": hex(data),
        });
        serde_json::to_writer_pretty(&mut text, &answer)?;
        writeln!(text)?;
    } else {
        writeln!(text, "{device}: {opcode}: dword 0 of the completion: {dword0:#010x}")?;
        if args.raw.is_none() && !data.is_empty() {
            write!(text, "{}", dump(data))?;
        }
    }
    cli::print(&text)
}
