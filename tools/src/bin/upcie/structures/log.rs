//! `upcie log`: reads a log page.

use super::{
    names,
    nvme_cli::Source,
    output::{Output, Page},
};
use crate::{outcome::Outcome, signal, target::Target};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use upcie_nvme::{
    Controller, LogQuery,
    spec::{ALL_NAMESPACES, CommandsSupportedLog, Csi, IdentifyController, LogPage, LogPageId, LogPageInfo},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie log emu                               the log pages that the controller has
  upcie log 0000:01:00.0 smart-log            health, as text; `upcie log smart ADDR` works, too
  upcie log 0000:01:00.0 error-log --json     the errors, for programs
  upcie smart-log 0000:01:00.0 -o json        as nvme-cli prints it
  upcie get-log 0000:01:00.0 -i 2 -l 512 -b   the same bytes, with nvme-cli's options
  upcie log 0000:01:00.0 0xc0 --raw page.bin --length 512
  upcie log 0000:01:00.0 telemetry-host-initiated --lsp 1 --raw telemetry.bin

Pages: a number, the specification's name (the beginning is enough), or a name of nvme-cli's:
  supported-log-pages, error-log, smart-log, fw-log, changed-ns-list-log, effects-log,
  self-test-log, telemetry-log, endurance-log, predictable-lat-log, pred-lat-event-agg-log, ana-log,
  persistent-event-log, lba-status-log, endurance-event-agg-log, media-unit-stat-log,
  supported-cap-config-log, fid-support-effects-log, mi-cmd-support-effects-log, lockdown-log,
  boot-part-log, rotational-media-info-log, dispersed-ns-log, mgmt-addr-list-log, phy-rx-eom-log,
  reachability-groups-log, reachability-associations-log, fdp-configs, fdp-usage, fdp-stats,
  fdp-events, power-measurement-log, discover, host-discovery-log, ave-discovery-log,
  pull-model-ddc-req-log, resv-notif-log, sanitize-log, changed-zone-list
Reading a page keeps the asynchronous event that it belongs to (RAE).";

/// nvme-cli's names.
const ALIASES: &[(&str, u8)] = &[
    ("supported-log-pages", 0x00),
    ("error-log", 0x01),
    ("smart-log", 0x02),
    ("fw-log", 0x03),
    ("changed-ns-list-log", 0x04),
    ("effects-log", 0x05),
    ("self-test-log", 0x06),
    ("telemetry-log", 0x07),
    ("endurance-log", 0x09),
    ("predictable-lat-log", 0x0a),
    ("pred-lat-event-agg-log", 0x0b),
    ("ana-log", 0x0c),
    ("persistent-event-log", 0x0d),
    ("lba-status-log", 0x0e),
    ("endurance-event-agg-log", 0x0f),
    ("media-unit-stat-log", 0x10),
    ("supported-cap-config-log", 0x11),
    ("fid-support-effects-log", 0x12),
    ("mi-cmd-support-effects-log", 0x13),
    ("lockdown-log", 0x14),
    ("boot-part-log", 0x15),
    ("rotational-media-info-log", 0x16),
    ("dispersed-ns-log", 0x17),
    ("mgmt-addr-list-log", 0x18),
    ("phy-rx-eom-log", 0x19),
    ("reachability-groups-log", 0x1a),
    ("reachability-associations-log", 0x1b),
    ("fdp-configs", 0x20),
    ("fdp-usage", 0x21),
    ("fdp-stats", 0x22),
    ("fdp-events", 0x23),
    ("power-measurement-log", 0x25),
    ("discover", 0x70),
    ("host-discovery-log", 0x71),
    ("ave-discovery-log", 0x72),
    ("pull-model-ddc-req-log", 0x73),
    ("resv-notif-log", 0x80),
    ("sanitize-log", 0x81),
    ("changed-zone-list", 0xbf),
];

/// Arguments of `upcie log`.
#[derive(Debug, Args)]
pub struct LogPageArgs {
    #[command(flatten)]
    target: Target,
    /// Log page, by number or name
    #[arg(value_parser = parse_page, default_value = "supported-log-pages")]
    page: LogPageId,
    #[command(flatten)]
    output: Output,
    /// Namespace; without it the log page of the controller
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = names::parse::<u32>)]
    namespace: Option<u32>,
    /// Log-specific parameter, 7 bits: telemetry 1 collects data, persistent events 1 begins a context, 4
    /// to 6 begin an eye opening measurement
    #[arg(long, short = 's', value_name = "N", value_parser = names::parse::<u8>, default_value = "0")]
    lsp: u8,
    /// Log-specific identifier: an NVM set, an endurance group, a domain
    #[arg(long, short = 'S', value_name = "N", value_parser = names::parse::<u16>, default_value = "0")]
    lsi: u16,
    /// Command set: 0 NVM, 1 key value, 2 zoned
    #[arg(long, short = 'y', short_alias = 'c', value_name = "N", value_parser = names::parse::<u8>, default_value = "0")]
    csi: u8,
    /// UUID index, 7 bits
    #[arg(long, short = 'U', value_name = "N", value_parser = names::parse::<u8>, default_value = "0")]
    uuid_index: u8,
    /// Read this many bytes, whatever the length of the page
    #[arg(long, short = 'l', alias = "log-len", value_name = "BYTES", value_parser = names::parse::<u32>)]
    length: Option<u32>,
    /// Let the controller report the page's asynchronous event again
    #[arg(long)]
    clear_event: bool,
}

/// Returns `true` for nvme-cli's name of a log page.
pub fn is_log(name: &str) -> bool {
    ALIASES.iter().any(|alias| alias.0 == name)
}

/// Returns `true` for the name or the number of a log page.
pub fn is_page(text: &str) -> bool {
    parse_page(text).is_ok()
}

fn parse_page(text: &str) -> Result<LogPageId, String> {
    let typed = LogPageInfo::ALL.iter().map(|page| (page.id.0, page.title));
    // Pages that are shown as bytes have names, too.
    let others = (0..=u8::MAX).map(LogPageId).filter(|id| LogPageInfo::of(*id).is_none());
    let all: Vec<_> = typed.chain(others.filter_map(|id| Some((id.0, id.name()?)))).collect();
    names::find(text, "log page", ALIASES, &all).map(LogPageId)
}

/// The size in bytes from which on the reading of a page is shown.
const LONG: u64 = 64 << 10;

/// Reads the page, and shows how far that is on stderr if it is a long one. `len` returns the length by what was read.
fn read(
    args: &LogPageArgs,
    controller: &Controller,
    query: &LogQuery,
    len: impl Fn(&[u8], &IdentifyController) -> u64,
) -> anyhow::Result<Vec<u8>> {
    let bar = ProgressBar::new(0).with_prefix("reading");
    let style = "{prefix:>9} [{bar:30}] {percent:>3} %  {binary_bytes}/{binary_total_bytes}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    let page = controller.log_bytes(args.page, query, |have, identify| {
        let (done, wanted) = (have.len() as u64, len(have, identify));
        if signal::interrupted() {
            return done;
        }
        if wanted >= LONG {
            bar.set_length(wanted);
            bar.set_position(done);
        }
        wanted
    });
    bar.finish_and_clear();
    let page = page?;
    signal::check(&format!("{} bytes of the log page were read", page.len()))?;
    Ok(page)
}

/// Runs `upcie log`.
pub fn run(args: &LogPageArgs) -> anyhow::Result<Outcome> {
    let controller = args.output.open(&args.target)?;
    let query = LogQuery {
        nsid: args.namespace.unwrap_or(ALL_NAMESPACES),
        parameter: args.lsp,
        identifier: args.lsi,
        csi: Csi(args.csi),
        uuid_index: args.uuid_index,
        retain_event: !args.clear_event,
    };
    let known = LogPageInfo::of(args.page);
    let page = read(args, &controller, &query, |have, identify| match (args.length, known) {
        (Some(length), _) => length.into(),
        (None, Some(known)) => (known.len)(have, identify),
        // The length of an unknown page isn't known either.
        (None, None) => 512,
    })?;
    let fields = match args.page {
        // The opcodes have other names in another command set.
        LogPageId::COMMANDS_SUPPORTED => {
            CommandsSupportedLog::from_page(&page).map(|log| log.fields_of(query.csi))
        }
        _ => known.and_then(|known| (known.fields)(&page)),
    };
    args.output.print(Page {
        device: controller.name(),
        title: &args.page.to_string(),
        source: Source::Log(args.page, Csi(args.csi)),
        fields,
        bytes: &page,
    })
}
