//! What these verbs have in common: the device, consent, and how the result is printed.

use crate::{
    cli,
    files::{self, Place, Use},
    guard::Consent,
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::{io::Write as _, time::Duration};
use upcie_nvme::{Controller, ControllerBuilder, Namespace, spec::Csi};

/// Arguments of all verbs of this kind.
#[derive(Debug, Args)]
pub struct Common {
    #[command(flatten)]
    pub target: Target,
    /// Print one JSON object on stdout
    #[arg(long, conflicts_with = "output_format")]
    json: bool,
    /// Print as nvme-cli does (-o): its names in JSON, where it has them
    #[arg(long, value_enum, value_name = "FORMAT")]
    output_format: Option<Format>,
    /// Give up if a command is not answered for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    pub timeout: Duration,
}

/// Output formats, by nvme-cli's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, as without this option
    Normal,
    /// One JSON value on stdout, with nvme-cli's names
    Json,
}

/// The effect of a command on a device.
pub enum Effect<'a> {
    /// The command only reads.
    Reads,
    /// The command changes settings or unallocated capacity, and no data is lost.
    Changes,
    /// The command erases the data of a namespace: the first one without a number, each one with `ALL_NAMESPACES`.
    Erases(Option<u32>, &'a str),
    /// The command deletes a namespace.
    Deletes(u32),
    /// The command erases the named thing, which is no namespace's data.
    Loses(&'a str),
}

/// Returns the namespace that is named, or the first one of a command set, whose namespaces have `what`.
///
/// # Errors
/// There is none.
pub fn namespace_of(
    controller: &Controller,
    named: Option<u32>,
    set: Csi,
    what: &str,
) -> anyhow::Result<Namespace> {
    if let Some(nsid) = named {
        return Ok(controller.namespace(nsid)?);
    }
    let first = controller.namespaces()?.into_iter().find(|namespace| namespace.command_set() == set);
    first.with_context(|| format!("{}: no namespace of it has {what}", controller.name()))
}

impl Common {
    /// Checks what the effect needs, and opens the controller.
    ///
    /// # Errors
    /// See [`Consent::check`]; the device does not open.
    pub fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<Controller> {
        self.open_with(effect, consent, Controller::builder())
    }

    /// Opens the controller like [`open`](Self::open), with options; the timeout is that of the command line.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(
        &self,
        effect: Effect<'_>,
        consent: Consent,
        options: ControllerBuilder,
    ) -> anyhow::Result<Controller> {
        self.check(&effect, consent)?;
        let options = options.timeout(self.timeout);
        if matches!(effect, Effect::Reads) {
            self.target.open_to_read(options)
        } else {
            self.target.open(options)
        }
    }

    /// Checks what the effect needs, before a verb opens the device by itself.
    ///
    /// # Errors
    /// See [`Consent::check`].
    pub fn check(&self, effect: &Effect<'_>, consent: Consent) -> anyhow::Result<()> {
        let reads = matches!(effect, Effect::Reads);
        let uses = Use::media(&self.target, !reads).into_iter();
        files::check_distinct(&uses.chain([Use::writes("stdout", Place::Stdout)]).collect::<Vec<_>>())?;
        files::check_stream_unlocked(Place::Stdout)?;
        signal::install()?;
        match effect {
            Effect::Reads => {}
            Effect::Changes => consent.check_use(&self.target)?,
            Effect::Erases(nsid, what) => consent.check(&self.target, *nsid, what)?,
            Effect::Deletes(nsid) => consent.check_deletion(&self.target, *nsid, &name(*nsid))?,
            Effect::Loses(what) => consent.check_settings(&self.target, what)?,
        }
        Ok(())
    }

    /// Returns the namespace that an effect is about, for [`Effect::Erases`]: the one that is named, or the `first` one that
    /// the verb is for. Where no consent is needed nobody asks for it.
    pub fn erased(
        &self,
        named: Option<u32>,
        consent: Consent,
        first: impl FnOnce(&Controller) -> anyhow::Result<u32>,
    ) -> anyhow::Result<Option<u32>> {
        if named.is_some() || consent.destructive || self.target.is_ephemeral() {
            return Ok(named);
        }
        first(&self.target.open_to_read(Controller::builder())?).map(Some)
    }

    /// Returns `true` if JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json || self.is_of_nvme_cli()
    }

    /// Returns `true` if JSON with nvme-cli's names is wanted.
    pub fn is_of_nvme_cli(&self) -> bool {
        self.output_format == Some(Format::Json)
    }

    /// Prints what was done: a line of text, or one JSON object with `fields`.
    pub fn print(&self, device: &str, text: &str, fields: &[(&str, Value)]) -> anyhow::Result<Outcome> {
        if self.is_json() {
            let mut object = Map::new();
            object.insert("device".into(), device.into());
            for (name, value) in fields {
                object.insert((*name).into(), value.clone());
            }
            print_json(&Value::Object(object))?;
        } else {
            cli::print(format!("{device}: {text}\n").as_bytes())?;
        }
        Ok(Outcome::Done)
    }
}

/// Prints a JSON value.
pub fn print_json(json: &Value) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(json)?;
    writeln!(text)?;
    cli::print(&text)
}

/// Parses a namespace: a number, or `all`.
pub fn parse_namespace(text: &str) -> Result<u32, String> {
    if text == "all" { Ok(upcie_nvme::spec::ALL_NAMESPACES) } else { crate::structures::parse(text) }
}

/// Names a namespace, or all of them.
pub fn name(nsid: u32) -> String {
    match nsid {
        upcie_nvme::spec::ALL_NAMESPACES => "all namespaces".into(),
        nsid => format!("namespace {nsid}"),
    }
}
