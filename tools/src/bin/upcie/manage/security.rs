//! `upcie security`: data of security protocols.

use super::common::{Common, Effect};
use crate::{
    cli,
    files::{self, Place, Use},
    guard::Consent,
    input,
    outcome::Outcome,
    structures::{dump, hex, parse, write_file},
};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use upcie_nvme::spec::{SecurityReceive, SecuritySend};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie security receive 0000:01:00.0 --protocol 0 --length 512            the protocols
  upcie security receive 0000:01:00.0 --protocol 1 --specific 1 --length 2048 --raw level0.bin
  upcie security send 0000:01:00.0 --protocol 1 --specific 1 --data session.bin --destructive";

/// Arguments of `upcie security`.
#[derive(Debug, Args)]
pub struct SecurityArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read data of a protocol
    Receive {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        protocol: Protocol,
        /// Bytes to read
        #[arg(long, short_alias = 't', alias = "al", value_name = "BYTES", value_parser = parse::<u32>, default_value = "512")]
        length: u32,
        /// Write the bytes to FILE; `-` is stdout
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        raw: Option<PathBuf>,
    },
    /// Send data of a protocol, which may lock or erase the device
    Send {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        protocol: Protocol,
        /// Data
        #[arg(long, short_alias = 'f', alias = "file", value_name = "FILE")]
        data: PathBuf,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Clone, Copy, Args)]
struct Protocol {
    /// Protocol (SECP): 0 lists the protocols, 1 TCG, 0xea NVMe
    #[arg(long, short, alias = "secp", value_name = "N", value_parser = parse::<u8>)]
    protocol: u8,
    /// The protocol's own field (SPSP)
    #[arg(long, short, alias = "spsp", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    specific: u16,
    /// NVMe's own field (NSSF)
    #[arg(long, short = 'N', alias = "nssf", value_name = "N", value_parser = parse::<u8>, default_value = "0")]
    nvme_specific: u8,
    /// Namespace
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "0")]
    namespace: u32,
}

/// Runs `upcie security`.
pub fn run(args: &SecurityArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Receive {
            common,
            protocol: Protocol { protocol, specific, nvme_specific, namespace },
            length,
            raw,
        } => {
            let mut uses: Vec<_> = Use::media(&common.target, false).into_iter().collect();
            uses.extend(raw.as_ref().map(|path| Use::writes("--raw", Place::output(path))));
            files::check_distinct(&uses)?;
            let controller = common.open(Effect::Reads, Consent::default())?;
            let data = controller.execute(&SecurityReceive {
                nsid: *namespace,
                protocol: *protocol,
                specific: *specific,
                nvme_specific: *nvme_specific,
                len: *length,
            })?;
            match raw {
                Some(path) if path.as_os_str() == "-" => cli::print(&data).map(|()| Outcome::Done),
                Some(path) => write_file(path, &data).map(|()| Outcome::Done),
                None => {
                    let text = format!("protocol {protocol:#04x}\n{}", dump(&data).trim_end());
                    common.print(controller.name(), &text, &[("data", hex(&data).into())])
                }
            }
        }
        Verb::Send {
            common,
            protocol: Protocol { protocol, specific, nvme_specific, namespace },
            data,
            consent,
        } => {
            let data = input::read(data, input::COMMAND)?;
            let len = data.len();
            let effect = Effect::Loses("security send may lock or erase the data of");
            let controller = common.open(effect, *consent)?;
            controller.execute(&SecuritySend {
                nsid: *namespace,
                protocol: *protocol,
                specific: *specific,
                nvme_specific: *nvme_specific,
                data,
            })?;
            let text = format!("sent {len} bytes of protocol {protocol:#04x}");
            common.print(controller.name(), &text, &[("bytes", len.into())])
        }
    }
}
