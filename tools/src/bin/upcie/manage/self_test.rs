//! `upcie selftest`: lets a device test itself.

use super::{
    common::{Common, Effect, parse_namespace},
    progress::follow,
};
use crate::{cli, guard::Consent, outcome::Outcome};
use clap::{Args, ValueEnum};
use serde_json::Value;
use upcie_nvme::{
    Controller,
    spec::{SelfTest, SelfTestCode, SelfTestLog, SelfTestResult, Structure},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie selftest emu short
  upcie selftest 0000:01:00.0 extended --namespace all
  upcie selftest 0000:01:00.0 show            the test in progress, and the last result
  upcie selftest 0000:01:00.0 abort

A test keeps all data. A short one takes minutes at most, and a reset ends it, also the one by which
another program opens the device. The exit code is 3 if the test has found a fault.";

/// Arguments of `upcie selftest`.
#[derive(Debug, Args)]
pub struct SelfTestArgs {
    #[command(flatten)]
    common: Common,
    /// Action to take
    #[arg(value_enum, default_value = "show")]
    action: Action,
    /// Namespace to test, or `all`; the controller alone by default
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse_namespace, default_value = "0")]
    namespace: u32,
    /// Return once it has begun
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show the test in progress and the last result
    #[value(alias = "0")]
    Show,
    /// Run a short test
    #[value(alias = "1")]
    Short,
    /// Run an extended test
    #[value(alias = "2")]
    Extended,
    /// End the test in progress
    #[value(aliases = ["0xf", "15"])]
    Abort,
}

/// Runs `upcie selftest`.
pub fn run(args: &SelfTestArgs) -> anyhow::Result<Outcome> {
    let effect = if args.action == Action::Show { Effect::Reads } else { Effect::Changes };
    let controller = args.common.open(effect, Consent::default())?;
    let code = match args.action {
        Action::Show => None,
        Action::Short => Some(SelfTestCode::SHORT),
        Action::Extended => Some(SelfTestCode::EXTENDED),
        Action::Abort => Some(SelfTestCode::ABORT),
    };
    if let Some(code) = code {
        controller.execute(&SelfTest { nsid: args.namespace, code })?;
    }
    let log = || controller.log::<SelfTestLog>();
    let waits = matches!(args.action, Action::Short | Action::Extended) && !args.no_wait;
    let mut ended = true;
    if waits {
        ended = follow("self-test", || {
            let log = log()?;
            Ok((log.current_operation & 0xf != 0).then(|| f64::from(log.current_completion & 0x7f)))
        })?;
    }
    if !ended {
        cli::message("upcie: the self-test goes on: `upcie selftest ADDR abort` ends it");
    }
    let log = log()?;
    report(args, &controller, &log)?;
    let failed = waits && log.results().first().is_some_and(|result| is_fault(result.status.result()));
    Ok(match ended {
        false => Outcome::Interrupted,
        true if failed => Outcome::Faults,
        true => Outcome::Done,
    })
}

/// Returns `true` for a result that is a fault of the device; other tests were aborted.
fn is_fault(result: u8) -> bool {
    matches!(result, 5..=7)
}

fn describe(result: &SelfTestResult) -> String {
    let fields = result.status.fields();
    let of = |name: &str| {
        fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.value.to_string())
            .unwrap_or_default()
    };
    format!("{}: {}", of("test"), of("result"))
}

fn report(args: &SelfTestArgs, controller: &Controller, log: &SelfTestLog) -> anyhow::Result<()> {
    let running = log.current_operation & 0xf != 0;
    let percent = log.current_completion & 0x7f;
    let last = log.results().first();
    let mut text = if running { format!("a self-test is in progress: {percent} %") } else { String::new() };
    match last {
        Some(result) if running => text += &format!("\n  last result: {}", describe(result)),
        Some(result) => text = describe(result),
        None if !running => text = "no self-test was run".into(),
        None => {}
    }
    let fields = [
        ("in_progress", running.into()),
        ("percent", if running { percent.into() } else { Value::Null }),
        ("result", last.map_or(Value::Null, |result| result.status.result().into())),
        ("test", last.map_or(Value::Null, |result| result.status.test().into())),
        ("results", log.results().len().into()),
    ];
    args.common.print(controller.name(), &text, &fields).map(drop)
}
