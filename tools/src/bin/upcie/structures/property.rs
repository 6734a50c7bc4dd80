//! `upcie property`: registers of a controller (properties), by their offsets.

use super::names;
use crate::{
    cli,
    files::{self, Place, Use},
    guard::Consent,
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{io::Write as _, time::Duration};
use upcie_nvme::{
    Controller, ResetKind,
    spec::{NSSR_SIGNATURE, offset},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie property get 0000:01:00.0 --offset 0x1c                      CSTS
  upcie get-property 0000:01:00.0 -O 0x14 --json                     CC, by nvme-cli's name
  upcie property set 0000:01:00.0 --offset 0x20 --value 0x4e564d65   resets the NVM subsystem

`upcie info ADDR` shows registers with their fields. Registers have 4 bytes; CAP, ASQ, ACQ and
CMBMSC have 8. A program that opens a controller has reset it, so that CC has this program's value.
The driver writes the registers itself: only NSSR (0x20) can be set, with 4E564D65h.";

/// Registers of 8 bytes.
const WIDE: [usize; 4] = [offset::CAP, offset::ASQ, offset::ACQ, offset::CMBMSC];

/// Arguments of `upcie property`.
#[derive(Debug, Args)]
pub struct PropertyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the value of a register
    Get {
        #[command(flatten)]
        which: Which,
    },
    /// Set a register
    Set {
        #[command(flatten)]
        which: Which,
        /// Value
        #[arg(long, short = 'V', value_name = "N", value_parser = names::parse::<u32>)]
        value: u32,
    },
}

/// The device and its register.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    target: Target,
    /// Offset in bytes
    #[arg(long, short = 'O', value_name = "N", value_parser = names::parse::<u32>)]
    offset: u32,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Give up if the device does not answer for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

/// Runs `upcie property`.
pub fn run(args: &PropertyArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Get { which } => get(which),
        Verb::Set { which, value } => set(which, *value),
    }
}

fn get(which: &Which) -> anyhow::Result<Outcome> {
    let controller = which.open(true)?;
    let at = which.offset as usize;
    ensure!(at.is_multiple_of(4), "--offset {at:#x}: registers begin at multiples of 4");
    let low = controller.register(at)?;
    let value = match WIDE.contains(&at) {
        true => u64::from(controller.register(at + 4)?) << 32 | u64::from(low),
        false => low.into(),
    };
    which.print(controller.name(), value)
}

fn set(which: &Which, value: u32) -> anyhow::Result<Outcome> {
    let at = which.offset as usize;
    if at != offset::NSSR {
        bail!(
            "{}: the register at {at:#x} is the driver's own, and nothing was written: `upcie reset` resets the controller, \
             `upcie feature set` sets what a controller lets a host choose",
            which.target.address
        );
    }
    ensure!(
        value == NSSR_SIGNATURE,
        "{}: NSSR takes {NSSR_SIGNATURE:#x} alone, which resets the NVM subsystem; nothing was written",
        which.target.address
    );
    Consent::default().check_use(&which.target)?;
    let controller = which.open(false)?;
    controller.reset_by(ResetKind::Subsystem)?;
    which.print(controller.name(), value.into())
}

impl Which {
    fn open(&self, reads: bool) -> anyhow::Result<Controller> {
        let uses = Use::media(&self.target, !reads).into_iter();
        files::check_distinct(&uses.chain([Use::writes("stdout", Place::Stdout)]).collect::<Vec<_>>())?;
        files::check_stream_unlocked(Place::Stdout)?;
        signal::install()?;
        let options = Controller::builder().timeout(self.timeout);
        if reads { self.target.open_to_read(options) } else { self.target.open(options) }
    }

    fn print(&self, device: &str, value: u64) -> anyhow::Result<Outcome> {
        let mut text = Vec::new();
        if self.json {
            let shown = json!({ "device": device, "offset": self.offset, "value": value });
            serde_json::to_writer_pretty(&mut text, &shown)?;
            writeln!(text)?;
        } else {
            writeln!(text, "{device}: property {:#x}: {value:#x}", self.offset)?;
        }
        cli::print(&text)?;
        Ok(Outcome::Done)
    }
}
