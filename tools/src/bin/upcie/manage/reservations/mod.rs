//! `upcie resv`: registrations and reservations of a namespace.

mod args;

pub use args::ResvArgs;

use super::common::Effect;
use crate::{guard::Consent, outcome::Outcome};
use anyhow::{Context, ensure};
use args::{
    AcquireAction, AcquireArgs, Persistence, RegisterAction, RegisterArgs, ReleaseAction, ReleaseArgs,
    ReportArgs, Verb, Which,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use upcie_nvme::{
    Controller, HostId, Registrant, Reservations,
    spec::{
        ExtendedHostIdentifier, ExtendedHostIdentifierData, HostIdentifier, HostIdentifierData,
        PersistenceChange, ReservationType,
    },
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie resv register vfio-user:/run/nvme.sock --host-id 1 --nrkey 0xabc
  upcie resv acquire vfio-user:/run/nvme.sock --host-id 1 --crkey 0xabc --rtype exclusive-access
  upcie resv report 0000:01:00.0 --namespace 2 --json
  upcie resv acquire 0000:01:00.0 --host-id 2 --crkey 2 --prkey 0xabc --racqa preempt --rtype 1
  upcie resv release 0000:01:00.0 --host-id 1 --crkey 0xabc --rtype exclusive-access

A host is its identifier. This program resets the controller at the start, which clears that. So
without --host-id a registration ends with the next command of this program.";

impl Which {
    fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<(Controller, Reservations)> {
        let controller = self.common.open(effect, consent)?;
        match self.host_id {
            None => {}
            Some(HostId::Short(identifier)) => {
                controller.set_feature(&HostIdentifier { data: HostIdentifierData { identifier } })?;
            }
            Some(HostId::Extended(identifier)) => {
                let data = ExtendedHostIdentifierData { identifier };
                controller.set_feature(&ExtendedHostIdentifier { data })?;
            }
        }
        let reservations = controller.namespace(self.namespace)?.reservations()?;
        Ok((controller, reservations))
    }

    /// Prints what was done to the namespace.
    fn print(
        &self,
        controller: &Controller,
        done: &str,
        fields: &[(&'static str, Value)],
    ) -> anyhow::Result<Outcome> {
        let text = format!("namespace {}: {done}", self.namespace);
        let mut all = vec![("namespace", self.namespace.into())];
        all.extend(fields.iter().cloned());
        self.common.print(controller.name(), &text, &all)
    }
}

/// Runs `upcie resv`.
pub fn run(args: &ResvArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Register(args) => register(args),
        Verb::Acquire(args) => acquire(args),
        Verb::Release(args) => release(args),
        Verb::Report(args) => report(args),
    }
}

fn register(args: &RegisterArgs) -> anyhow::Result<Outcome> {
    ensure!(
        args.cptpl == Persistence::None || args.rrega == RegisterAction::Register,
        "--cptpl goes with --rrega register; `upcie feature {} set reservation-persistence` sets it, too",
        args.which.common.target.address
    );
    let (controller, reservations) = args.which.open(Effect::Changes, args.consent)?;
    let current = (!args.iekey).then_some(args.crkey);
    let new = args.nrkey.unwrap_or(0);
    let persistence = match args.cptpl {
        Persistence::None => PersistenceChange::NONE,
        Persistence::Clear => PersistenceChange::CLEAR,
        Persistence::Set => PersistenceChange::SET,
    };
    let (done, key) = match args.rrega {
        RegisterAction::Register => {
            reservations.register_with(new, persistence)?;
            ("registered", Some(new))
        }
        RegisterAction::Replace => {
            reservations.replace(current, new)?;
            ("replaced the key", Some(new))
        }
        RegisterAction::Unregister => {
            reservations.unregister(current)?;
            ("ended the registration", None)
        }
    };
    let mut text = match key {
        Some(key) => format!("{done}: this host is a registrant with the key {key:#x}"),
        None => format!("{done}: this host is no registrant any more"),
    };
    if args.which.host_id.is_none() && key.is_some() {
        text += " until the next reset (--host-id keeps it)";
    }
    args.which.print(&controller, &text, &[("key", key.into())])
}

fn acquire(args: &AcquireArgs) -> anyhow::Result<Outcome> {
    let (controller, reservations) = args.which.open(Effect::Changes, args.consent)?;
    let (key, kind) = (args.crkey, ReservationType::from(args.rtype));
    match args.racqa {
        AcquireAction::Acquire => reservations.acquire(key, kind),
        AcquireAction::Preempt => reservations.preempt(key, args.prkey, kind),
        AcquireAction::PreemptAndAbort => reservations.preempt_and_abort(key, args.prkey, kind),
    }?;
    let held = reservations.report()?.kind;
    let done = match args.racqa {
        AcquireAction::Acquire => "acquired".into(),
        _ => format!("preempted the key {:#x}", args.prkey),
    };
    args.which.print(&controller, &format!("{done}: {}", reservation(held)), &[("rtype", number(held))])
}

fn release(args: &ReleaseArgs) -> anyhow::Result<Outcome> {
    let (controller, reservations) = args.which.open(Effect::Changes, args.consent)?;
    let done = match args.rrela {
        ReleaseAction::Release => {
            let kind = args.rtype.context("--rtype is missing: the type of the reservation to release")?;
            reservations.release(args.crkey, kind.into())?;
            "released"
        }
        ReleaseAction::Clear => {
            reservations.clear(args.crkey)?;
            "cleared, with all registrations"
        }
    };
    let held = reservations.report()?.kind;
    args.which.print(&controller, &format!("{done}: {}", reservation(held)), &[("rtype", number(held))])
}

/// Names the reservation that is held.
fn reservation(held: Option<ReservationType>) -> String {
    match held {
        None => "there is no reservation".into(),
        Some(kind) => format!("the reservation is {}", kind.name().unwrap_or("of an unknown type")),
    }
}

/// Returns RTYPE.
fn number(held: Option<ReservationType>) -> Value {
    held.map_or(0, |kind| kind.0).into()
}

fn report(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let (controller, reservations) = args.which.open(Effect::Reads, Consent::default())?;
    let report = reservations.report()?;
    let all = &report.registrants;
    let mut text = format!(
        "namespace {}: {}; generation {}, {} after a loss of power; registered: {}",
        args.which.namespace,
        reservation(report.kind),
        report.generation,
        if report.persists { "kept" } else { "lost" },
        all.len()
    );
    for one in all {
        let controller =
            one.controller.map_or("no controller now".into(), |id| format!("controller {id:#x}"));
        write!(text, "\n  host {} on {controller}, key {:#x}", one.host, one.key)?;
        text += if one.holds { ", holds the reservation" } else { "" };
    }
    let is_extended = all.iter().any(|one| matches!(one.host, HostId::Extended(_)));
    let list: Vec<Value> = all.iter().map(listed).collect();
    let fields = [
        ("namespace", args.which.namespace.into()),
        ("gen", report.generation.into()),
        ("rtype", number(report.kind)),
        ("regctl", all.len().into()),
        ("ptpls", u8::from(report.persists).into()),
        (if is_extended { "regctlext" } else { "regctls" }, list.into()),
    ];
    args.which.common.print(controller.name(), &text, &fields)
}

/// Describes a registrant by nvme-cli's names.
fn listed(one: &Registrant) -> Value {
    let host = match one.host {
        HostId::Short(id) => Value::from(id),
        HostId::Extended(_) => one.host.to_string().into(),
    };
    json!({
        "cntlid": one.controller.unwrap_or(u16::MAX),
        "rcsts": u8::from(one.holds),
        "hostid": host,
        "rkey": one.key,
    })
}
