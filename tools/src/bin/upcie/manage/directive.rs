//! `upcie directive`: directives, such as streams.

use super::common::{Common, Effect};
use crate::{
    guard::Consent,
    outcome::Outcome,
    structures::{dump, hex, parse},
};
use clap::{Args, Subcommand, ValueEnum};
use upcie_nvme::spec::{DirectiveReceive, DirectiveSend, DirectiveType, EnableDirective};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie directive receive emu --length 4096                 which directives there are, and are on
  upcie directive enable 0000:01:00.0 streams --namespace 1
  upcie directive receive 0000:01:00.0 --type streams --operation 1 --length 32
  upcie directive send 0000:01:00.0 --type streams --operation 2";

/// Arguments of `upcie directive`.
#[derive(Debug, Args)]
pub struct DirectiveArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read the parameters or the status of a directive
    Receive {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        operation: Operation,
        /// Bytes to read
        #[arg(long, value_name = "BYTES", value_parser = parse::<u32>, default_value = "0")]
        length: u32,
    },
    /// Run an operation of a directive
    Send {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        operation: Operation,
    },
    /// Turn a directive on for a namespace
    Enable(EnableArgs),
    /// Turn a directive off
    Disable(EnableArgs),
}

#[derive(Debug, Args)]
struct EnableArgs {
    #[command(flatten)]
    common: Common,
    /// Directive
    #[arg(value_enum)]
    kind: Kind,
    /// Namespace
    #[arg(long, alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "1")]
    namespace: u32,
}

#[derive(Debug, Clone, Copy, Args)]
struct Operation {
    /// Directive
    #[arg(long = "type", alias = "dir-type", value_enum, default_value = "identify")]
    kind: Kind,
    /// Operation
    #[arg(long, alias = "dir-oper", value_name = "N", value_parser = parse::<u8>, default_value = "1")]
    operation: u8,
    /// Subject of the directive: a stream
    #[arg(long, alias = "dir-spec", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    specific: u16,
    /// Command dword 12
    #[arg(long, value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    dword12: u32,
    /// Namespace
    #[arg(long, alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "1")]
    namespace: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The directives themselves
    #[value(alias = "0")]
    Identify,
    /// Streams
    #[value(alias = "1")]
    Streams,
    /// Flexible data placement
    #[value(alias = "2")]
    DataPlacement,
}

impl Kind {
    fn code(self) -> DirectiveType {
        match self {
            Self::Identify => DirectiveType::IDENTIFY,
            Self::Streams => DirectiveType::STREAMS,
            Self::DataPlacement => DirectiveType::DATA_PLACEMENT,
        }
    }
}

/// Runs `upcie directive`.
pub fn run(args: &DirectiveArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Receive { common, operation, length } => {
            let controller = common.open(Effect::Reads, Consent::default())?;
            let (dword0, data) = controller.execute(&DirectiveReceive {
                nsid: operation.namespace,
                kind: operation.kind.code(),
                operation: operation.operation,
                specific: operation.specific,
                dword12: operation.dword12,
                len: *length as usize,
            })?;
            let text = format!("dword 0 of the completion: {dword0:#010x}\n{}", dump(&data));
            let fields = [("dword0", dword0.into()), ("data", hex(&data).into())];
            common.print(controller.name(), text.trim_end(), &fields)
        }
        Verb::Send { common, operation } => {
            let controller = common.open(Effect::Changes, Consent::default())?;
            let dword0 = controller.execute(&DirectiveSend {
                nsid: operation.namespace,
                kind: operation.kind.code(),
                operation: operation.operation,
                specific: operation.specific,
                dword12: operation.dword12,
                data: Vec::new(),
            })?;
            let text = format!("done: dword 0 of the completion: {dword0:#010x}");
            common.print(controller.name(), &text, &[("dword0", dword0.into())])
        }
        Verb::Enable(args) => enable(args, true),
        Verb::Disable(args) => enable(args, false),
    }
}

fn enable(args: &EnableArgs, enable: bool) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Changes, Consent::default())?;
    let kind = args.kind.code();
    controller.execute(&DirectiveSend::from(EnableDirective { nsid: args.namespace, kind, enable }))?;
    let state = if enable { "on" } else { "off" };
    let text = format!("{kind} is {state} for namespace {}", args.namespace);
    args.common.print(controller.name(), &text, &[("enabled", enable.into())])
}
