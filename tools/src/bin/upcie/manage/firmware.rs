//! `upcie fw`: firmware images and slots.

use super::common::{Common, Effect};
use crate::{
    guard::Consent,
    input::{self, Limit},
    outcome::Outcome,
    signal,
};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{ops::ControlFlow, path::PathBuf};
use upcie_nvme::{
    Controller,
    spec::{CommitAction, FirmwareCommit, FirmwareSlotLog, IdentifyController, Status},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie fw log 0000:01:00.0
  upcie fw download 0000:01:00.0 image.bin --slot 2 --destructive
  upcie fw commit 0000:01:00.0 --slot 2 --action activate --destructive

`download` commits the image in the same session: a controller forgets a downloaded image when it is
reset, as each program does that opens it. `commit` activates an image that is in a slot.";

/// Arguments of `upcie fw`.
#[derive(Debug, Args)]
pub struct FirmwareArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the slots, and the image in use
    Log {
        #[command(flatten)]
        common: Common,
    },
    /// Download an image, and commit it to a slot
    Download {
        #[command(flatten)]
        common: Common,
        /// Image
        #[arg(value_name = "FILE")]
        image: PathBuf,
        #[command(flatten)]
        commit: CommitArgs,
    },
    /// Activate the image of a slot
    Commit {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        commit: CommitArgs,
    },
}

#[derive(Debug, Clone, Copy, Args)]
struct CommitArgs {
    /// Slot, 1 to 7; the controller chooses one by default
    #[arg(long, short, value_name = "N", default_value = "0", value_parser = clap::value_parser!(u8).range(0..=7))]
    slot: u8,
    /// Action to take with it
    #[arg(long, short, value_enum)]
    action: Option<Action>,
    /// Boot partition of the actions that are about one
    #[arg(long, short, alias = "bpid", value_name = "N", default_value = "0", value_parser = clap::value_parser!(u8).range(0..=1))]
    boot_partition: u8,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Store the downloaded image in the slot
    #[value(alias = "0")]
    Store,
    /// Store it, and activate it by the next reset; the default of `download`
    #[value(alias = "1")]
    StoreAndActivate,
    /// Activate the slot's image by the next reset; the default of `commit`
    #[value(alias = "2")]
    Activate,
    /// Activate it at once
    #[value(alias = "3")]
    ActivateNow,
    /// Replace the boot partition by the downloaded image
    #[value(alias = "6")]
    ReplaceBootPartition,
    /// Boot from the boot partition
    #[value(alias = "7")]
    ActivateBootPartition,
}

impl Action {
    fn code(self) -> CommitAction {
        match self {
            Self::Store => CommitAction::STORE,
            Self::StoreAndActivate => CommitAction::STORE_AND_ACTIVATE,
            Self::Activate => CommitAction::ACTIVATE,
            Self::ActivateNow => CommitAction::ACTIVATE_NOW,
            Self::ReplaceBootPartition => CommitAction::REPLACE_BOOT_PARTITION,
            Self::ActivateBootPartition => CommitAction::ACTIVATE_BOOT_PARTITION,
        }
    }
}

/// An image of firmware: far beyond those that there are.
const IMAGE: Limit<'static> =
    Limit { bytes: 256 << 20, reason: "the most of a firmware image here: check that it is the image" };
/// An image of a boot partition: BPSZ has 15 bits, and counts 128 KiB.
const BOOT_IMAGE: Limit<'static> =
    Limit { bytes: 0x7fff << 17, reason: "the most of a boot partition: check that it is the image" };

/// Runs `upcie fw`.
pub fn run(args: &FirmwareArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Log { common } => {
            let controller = common.open(Effect::Reads, Consent::default())?;
            let log = controller.log::<FirmwareSlotLog>()?;
            common.print(controller.name(), &describe(&log), &fields(&log, controller.identify()))
        }
        Verb::Download { common, image, commit } => {
            // Read before anything is opened: a wrong name must not cost a reset.
            let is_for_boot = commit.action == Some(Action::ReplaceBootPartition);
            let image = input::read(image, if is_for_boot { BOOT_IMAGE } else { IMAGE })?;
            let effect = Effect::Loses("fw download replaces firmware of");
            let controller = common.open(effect, commit.consent)?;
            let bar = ProgressBar::new(image.len() as u64).with_prefix("download");
            let style = "{prefix:>9} [{bar:30}] {percent:>3} %  {binary_bytes}/{binary_total_bytes}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            let ended = controller.download_firmware(&image, |bytes| {
                bar.set_position(bytes as u64);
                if signal::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            bar.finish_and_clear();
            // It was ended by a signal, if at all.
            let _ = ended?;
            signal::check("the controller has a part of the image, and nothing was committed")?;
            run_commit(common, &controller, *commit, Action::StoreAndActivate)
        }
        Verb::Commit { common, commit } => {
            let effect = Effect::Loses("fw commit changes the firmware in use of");
            let controller = common.open(effect, commit.consent)?;
            run_commit(common, &controller, *commit, Action::Activate)
        }
    }
}

/// Statuses of a commit that has succeeded, and what activates the image.
const RESETS: [(Status, &str); 3] = [
    (Status::FIRMWARE_NEEDS_CONTROLLER_RESET, "; the next reset of the controller activates it"),
    (Status::FIRMWARE_NEEDS_SUBSYSTEM_RESET, "; a reset of the NVM subsystem or a power cycle activates it"),
    (Status::FIRMWARE_NEEDS_CONVENTIONAL_RESET, "; a conventional reset or a power cycle activates it"),
];

fn run_commit(
    common: &Common,
    controller: &Controller,
    args: CommitArgs,
    default: Action,
) -> anyhow::Result<Outcome> {
    let action = args.action.unwrap_or(default).code();
    let command = FirmwareCommit { slot: args.slot, action, boot_partition: args.boot_partition };
    signal::say_that_it_waits();
    let note = match controller.execute(&command) {
        Ok(_) if matches!(action, CommitAction::STORE_AND_ACTIVATE | CommitAction::ACTIVATE) => {
            "; the next reset activates it"
        }
        Ok(_) => "",
        // The commit has succeeded: these statuses say how the image becomes active.
        Err(error) => match RESETS.iter().find(|reset| error.status() == Some(reset.0)) {
            Some(reset) => reset.1,
            None => return Err(error.into()),
        },
    };
    let log = controller.log::<FirmwareSlotLog>()?;
    let text = format!("{}{note}\n  {}", action.name().unwrap_or("done"), describe(&log));
    common.print(controller.name(), &text, &fields(&log, controller.identify()))
}

fn describe(log: &FirmwareSlotLog) -> String {
    let slots = (1..=7).filter_map(|slot| log.revision(slot).map(|revision| (slot, revision)));
    let slots = slots.map(|(slot, revision)| {
        let state = match slot {
            slot if slot == log.active_slot() => " (active)",
            slot if Some(slot) == log.next_slot() => " (active after the next reset)",
            _ => "",
        };
        format!("slot {slot}: {revision}{state}")
    });
    slots.collect::<Vec<_>>().join(", ")
}

fn fields(log: &FirmwareSlotLog, identify: &IdentifyController) -> [(&'static str, Value); 4] {
    let slots = (1..=7).map(|slot| log.revision(slot));
    [
        ("active_slot", log.active_slot().into()),
        ("next_slot", json!(log.next_slot())),
        ("revisions", slots.map(Value::from).collect()),
        ("slots", (identify.frmw >> 1 & 7).into()),
    ]
}
