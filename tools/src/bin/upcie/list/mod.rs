//! `upcie list`: the PCI functions of this machine.

mod known;

use crate::{
    cli,
    files::{self, Place, Use},
    outcome::{self, Outcome},
    signal,
    target::{self, Target},
    transports, units,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use known::Known;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    time::Duration,
};
use upcie_core::{
    device,
    mmio::Caching,
    pci::{BarInfo, BarKind, Function, functions},
    probe,
};
use upcie_nvme::Address;
use upcie_tools::usage::Host;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie list               NVMe controllers: driver, IOMMU group, NUMA node, the transports that
                           work now, with the reason why others don't; while the kernel's driver
                           has the device, model, serial number, firmware, namespaces, size and
                           temperature
  upcie list --open        the same of controllers that are free: each is reset and brought up
  upcie list -v            the same with base address registers (BARs)
  upcie list --all --json  all PCI functions, for programs
  upcie list emu           the embedded controller";

/// Arguments of `upcie list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Devices to list instead: PCI addresses; emu and vfio-user:SOCKET, which are opened as by --open (see below)
    #[arg(value_name = "ADDR", value_parser = target::parse_address)]
    addresses: Vec<Address>,
    /// Also show base address registers (BARs) and the other members of the IOMMU group
    #[arg(long, short)]
    verbose: bool,
    /// List all PCI functions instead of NVMe controllers only
    #[arg(long, short, conflicts_with = "addresses")]
    all: bool,
    /// Ask the controllers themselves that vfio-pci or uio_pci_generic has and that nobody uses: opens each, which resets
    /// it and brings it up
    #[arg(long)]
    open: bool,
    /// Print a JSON array on stdout
    #[arg(long, conflicts_with = "output_format")]
    json: bool,
    /// Print as `nvme list` does (-o): `json` has the namespaces, by its names
    #[arg(long, value_enum, value_name = "FORMAT")]
    output_format: Option<Format>,
    /// Give up a device that does not answer for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

/// Output formats, by nvme-cli's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, as without this option
    Normal,
    /// One JSON object on stdout
    Json,
}

/// A device in the list.
struct Row {
    address: Address,
    /// The PCI function; `None` for a device that is none.
    function: Option<Function>,
    known: Option<Known>,
    /// Reason why the device that was to be opened is not known.
    problem: Option<String>,
}

/// Runs `upcie list`.
pub fn run(args: &ListArgs) -> anyhow::Result<Outcome> {
    let targets: Vec<_> = args.addresses.iter().map(|address| Target { address: address.clone() }).collect();
    let media = targets.iter().filter_map(|target| Use::media(target, false));
    files::check_distinct(&media.chain([Use::writes("stdout", Place::Stdout)]).collect::<Vec<_>>())?;
    files::check_stream_unlocked(Place::Stdout)?;
    let all = functions()?;
    let total = all.len();
    let mut rows: Vec<Row> = match &args.addresses[..] {
        [] => all.into_iter().filter(|function| args.all || function.is_nvme()).map(Row::of).collect(),
        named => named.iter().map(Row::named).collect::<anyhow::Result<_>>()?,
    };
    let host = Host::now().context("reading what is mounted")?;
    if args.open || rows.iter().any(|row| row.function.is_none()) {
        signal::install()?;
    }
    let mut outcome = Outcome::Done;
    for row in &mut rows {
        if !row.learn(args, &host) {
            outcome = Outcome::Lost;
        }
    }
    let mut text = Vec::new();
    if args.json {
        let items = rows.iter().map(|row| row.to_json(&host)).collect::<anyhow::Result<Vec<_>>>()?;
        serde_json::to_writer_pretty(&mut text, &items)?;
        writeln!(text)?;
    } else if args.output_format == Some(Format::Json) {
        let known = |row: &Row| row.known.as_ref().map(|known| known.devices(&row.address.to_string()));
        let devices: Vec<Value> = rows.iter().filter_map(known).flatten().collect();
        serde_json::to_writer_pretty(&mut text, &json!({ "Devices": devices }))?;
        writeln!(text)?;
    } else if rows.is_empty() {
        print_nothing(total)?;
    } else {
        print_table(&rows, args.verbose, &host, &mut text)?;
    }
    cli::print(&text)?;
    Ok(if signal::interrupted() { Outcome::Interrupted } else { outcome })
}

impl Row {
    /// Makes the row of a PCI function.
    fn of(function: Function) -> Self {
        let address = Address::Device(device::Address::Pci(function.bdf));
        Self { address, function: Some(function), known: None, problem: None }
    }

    /// Makes the row of a device that the user has named.
    fn named(address: &Address) -> anyhow::Result<Self> {
        let function = address.bdf().map(Function::at).transpose()?;
        Ok(Self { address: address.clone(), function, known: None, problem: None })
    }

    /// Finds out what there is to know of the device; returns `false` if it was to be opened, and does not open.
    fn learn(&mut self, args: &ListArgs, host: &Host) -> bool {
        if let Some(function) = &self.function {
            self.known = Known::of_kernel(&function.path, host);
            if self.known.is_some() || !args.open || !is_for_user_space(function) {
                return true;
            }
            let users = function.users();
            if !users.is_empty() {
                self.problem = Some(format!("not opened: in use by process {}", outcome::list(&users)));
                return true;
            }
        }
        if signal::interrupted() {
            self.problem = Some("not opened: interrupted".into());
            return true;
        }
        match Known::ask(&self.address, args.timeout) {
            Ok(known) => self.known = Some(known),
            Err(error) => self.problem = Some(format!("not opened: {error:#}")),
        }
        self.known.is_some()
    }

    fn to_json(&self, host: &Host) -> anyhow::Result<Value> {
        let mut object = match &self.function {
            Some(function) => to_json(function, host)?,
            None => json!({ "address": self.address.to_string() }),
        };
        object["controller"] = self.known.as_ref().map_or(Value::Null, Known::to_json);
        object["controller_unknown"] = self.problem.clone().into();
        Ok(object)
    }
}

/// Returns `true` for an NVMe controller that a driver hands to user space, and that a transport can open now.
fn is_for_user_space(function: &Function) -> bool {
    let is_handed = |address: &device::Address| !matches!(address, device::Address::Sysfs(_));
    function.is_nvme()
        && function.check_not_being_unbound().is_ok()
        && probe(function).iter().any(|one| one.missing.is_none() && is_handed(&one.address))
}

fn print_nothing(total: usize) -> anyhow::Result<()> {
    let mut err = io::stderr().lock();
    match total {
        0 => writeln!(err, "This machine shows no PCI functions (a container, or a machine without PCI?).")?,
        _ => {
            writeln!(err, "There is no NVMe controller among the {total} PCI functions (--all lists them).")?
        }
    }
    writeln!(
        err,
        "If one is missing: echo 1 > /sys/bus/pci/rescan, as root. The embedded controller needs none: `upcie list emu`, \
         `upcie perf emu`."
    )?;
    Ok(())
}

fn print_table(rows: &[Row], verbose: bool, host: &Host, out: &mut impl Write) -> anyhow::Result<()> {
    let functions = || rows.iter().filter_map(|row| row.function.as_ref());
    if functions().next().is_some() {
        writeln!(
            out,
            "{:<13} {:<10} {:<7} {:<16} {:>6} {:>5}",
            "ADDRESS", "ID", "CLASS", "DRIVER", "GROUP", "NUMA"
        )?;
    }
    for row in rows {
        match &row.function {
            Some(function) => print_function(function, out)?,
            None => writeln!(out, "{}", row.address)?,
        }
        let problem = row.problem.as_deref().map(transports::wrap);
        for line in row.known.iter().flat_map(Known::lines).chain(problem.into_iter().flatten()) {
            writeln!(out, "    {line}")?;
        }
        if let Some(function) = &row.function {
            print_details(function, verbose, host, out)?;
        }
    }
    let noiommu = |function: &Function| function.iommu_group.as_ref().is_some_and(|group| group.is_noiommu);
    if functions().any(noiommu) {
        writeln!(out, "!: no IOMMU translates for this group")?;
    }
    Ok(())
}

/// Prints the columns of a function.
fn print_function(function: &Function, out: &mut impl Write) -> io::Result<()> {
    let id = format!("{:04x}:{:04x}", function.vendor, function.device);
    let group = function.iommu_group.as_ref().map_or_else(dash, |group| {
        let mark = if group.is_noiommu { "!" } else { "" };
        format!("{}{mark}", group.number)
    });
    let numa = function.numa_node.map_or_else(dash, |node| node.to_string());
    let driver = function.driver.as_deref().unwrap_or("-");
    writeln!(
        out,
        "{:<13} {id:<10} {:06x}  {driver:<16} {group:>6} {numa:>5}",
        function.bdf.to_string(),
        function.class
    )
}

/// Prints the transports of a function and, if `verbose`, its BARs and the other members of its group.
fn print_details(
    function: &Function,
    verbose: bool,
    host: &Host,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // Only NVMe controllers get advice; it would be wrong for a bridge or a network card.
    if function.is_nvme() {
        for line in transports::lines(function, host) {
            writeln!(out, "    {line}")?;
        }
    }
    if verbose {
        for bar in function.bars()? {
            writeln!(out, "    {}", describe(function, &bar))?;
        }
        let group = function.iommu_group.iter().flat_map(|group| &group.members);
        let others: Vec<_> = group.filter(|member| member.name != function.bdf.to_string()).collect();
        for member in others {
            let driver = member.driver.as_deref().unwrap_or("no driver");
            writeln!(out, "    shares its group with {} ({driver})", member.name)?;
        }
    }
    Ok(())
}

fn dash() -> String {
    "-".into()
}

fn describe(function: &Function, bar: &BarInfo) -> String {
    let kind = match bar.kind {
        BarKind::Io => "I/O ports".to_owned(),
        BarKind::Memory { is_64bit, prefetchable } => format!(
            "memory, {}-bit{}",
            if is_64bit { 64 } else { 32 },
            if prefetchable { ", prefetchable" } else { "" }
        ),
    };
    let cached = cachings(function, bar).map(|(caching, transports)| match transports {
        "" => caching.to_string(),
        _ => format!("{caching} ({transports})"),
    });
    let cached = cached.collect::<Vec<_>>().join(" or ");
    let caching = if cached.is_empty() { cached } else { format!(", mapped {cached}") };
    format!("BAR {}: {:#x}, {}, {kind}{caching}", bar.index, bar.base, units::bytes(bar.size))
}

/// Lists the caching modes of a BAR, each with the transports that offer it; an empty text means all. I/O
/// ports are never mapped.
fn cachings(function: &Function, bar: &BarInfo) -> impl Iterator<Item = (Caching, &'static str)> {
    let memory = bar.kind != BarKind::Io;
    // The kernel makes this file for prefetchable BARs, if the processor can combine writes.
    let combining = memory && function.path.join(format!("resource{}_wc", bar.index)).exists();
    let all = [(memory, Caching::Uncached, ""), (combining, Caching::WriteCombining, "uio:, sysfs:")];
    all.into_iter().filter_map(|(possible, caching, transports)| possible.then_some((caching, transports)))
}

fn to_json(function: &Function, host: &Host) -> anyhow::Result<Value> {
    let bars = function.bars()?.into_iter().map(|bar| {
        let (kind, is_64bit, prefetchable) = match bar.kind {
            BarKind::Io => ("io", false, false),
            BarKind::Memory { is_64bit, prefetchable } => ("memory", is_64bit, prefetchable),
        };
        json!({
            "index": bar.index, "base": bar.base, "size": bar.size,
            "kind": kind, "64bit": is_64bit, "prefetchable": prefetchable,
            "cachings": cachings(function, &bar).map(|(caching, _)| caching.to_string()).collect::<Vec<_>>(),
        })
    });
    let group = function.iommu_group.as_ref().map(|group| {
        let members =
            group.members.iter().map(|member| json!({ "name": member.name, "driver": member.driver }));
        json!({ "number": group.number, "noiommu": group.is_noiommu, "members": members.collect::<Vec<_>>() })
    });
    Ok(json!({
        "address": function.bdf.to_string(),
        "vendor": function.vendor,
        "device": function.device,
        "subsystem_vendor": function.subsystem_vendor,
        "subsystem_device": function.subsystem_device,
        "class": function.class,
        "revision": function.revision,
        "nvme": function.is_nvme(),
        "driver": function.driver,
        "iommu_group": group,
        "numa_node": function.numa_node,
        "bars": bars.collect::<Vec<_>>(),
        "transports": transports::to_json(function, host),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_functions_of_the_machine_can_be_shown() {
        let rows: Vec<_> = functions().unwrap().into_iter().map(Row::of).collect();
        let host = Host::now().unwrap();
        print_table(&rows, true, &host, &mut Vec::<u8>::new()).unwrap();
        for row in &rows {
            let json = row.to_json(&host).unwrap();
            assert_eq!(json["address"], row.address.to_string());
        }
    }
}
