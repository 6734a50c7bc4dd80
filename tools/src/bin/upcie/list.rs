//! `upcie list`: the PCI functions of this machine.

use crate::{cli, outcome::Outcome, transports, units};
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};
use upcie_core::{
    mmio::Caching,
    pci::{BarInfo, BarKind, Function, functions},
};
use upcie_tools::usage::Host;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie list               NVMe controllers: driver, IOMMU group, NUMA node, the transports that
                           work now, with the reason why others don't, and, while the kernel's
                           driver has the device, model, serial number and firmware
  upcie list -v            the same with base address registers (BARs)
  upcie list --all --json  all PCI functions, for programs";

/// Arguments of `upcie list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Also show base address registers (BARs) and the other members of the IOMMU group
    #[arg(long, short)]
    verbose: bool,
    /// List all PCI functions instead of NVMe controllers only
    #[arg(long, short)]
    all: bool,
    /// Print a JSON array on stdout
    #[arg(long)]
    json: bool,
}

/// Runs `upcie list`.
pub fn run(args: &ListArgs) -> anyhow::Result<Outcome> {
    let all = functions()?;
    let total = all.len();
    let shown: Vec<_> = all.into_iter().filter(|function| args.all || function.is_nvme()).collect();
    let mut text = Vec::new();
    let host = Host::now().context("reading what is mounted")?;
    if args.json {
        let items = shown.iter().map(|it| to_json(it, &host)).collect::<anyhow::Result<Vec<_>>>()?;
        serde_json::to_writer_pretty(&mut text, &items)?;
        writeln!(text)?;
    } else if shown.is_empty() {
        print_nothing(total)?;
    } else {
        print_table(&shown, args.verbose, &host, &mut text)?;
    }
    cli::print(&text)?;
    Ok(Outcome::Done)
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
        "If one is missing: echo 1 > /sys/bus/pci/rescan, as root. The embedded controller needs none: `upcie perf emu`."
    )?;
    Ok(())
}

fn print_table(shown: &[Function], verbose: bool, host: &Host, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:<13} {:<10} {:<7} {:<16} {:>6} {:>5}",
        "ADDRESS", "ID", "CLASS", "DRIVER", "GROUP", "NUMA"
    )?;
    for function in shown {
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
        )?;
        if let Some(identity) = Identity::of(&function.path) {
            let Identity { model, serial, firmware } = identity;
            writeln!(out, "    {model}, serial number {serial}, firmware {firmware}")?;
        }
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
    }
    let noiommu = |function: &Function| function.iommu_group.as_ref().is_some_and(|group| group.is_noiommu);
    if shown.iter().any(noiommu) {
        writeln!(out, "!: no IOMMU translates for this group")?;
    }
    Ok(())
}

/// Identity of a controller, as the kernel's driver read it. Asking a device without that driver would reset it, so
/// `upcie list` does not.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    model: String,
    serial: String,
    firmware: String,
}

impl Identity {
    /// Reads the attributes of the controller of the function at `path` in sysfs; `None` if the kernel has none.
    fn of(path: &Path) -> Option<Self> {
        let controller = fs::read_dir(path.join("nvme")).ok()?.flatten().next()?.path();
        // The device wrote them: nothing that a terminal obeys is printed.
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let read = |name: &str| {
            let text = fs::read_to_string(controller.join(name)).ok()?;
            Some(text.trim().chars().map(shown).collect())
        };
        Some(Self { model: read("model")?, serial: read("serial")?, firmware: read("firmware_rev")? })
    }
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
    let identity = Identity::of(&function.path).map(|Identity { model, serial, firmware }| {
        json!({ "model": model, "serial": serial, "firmware": firmware })
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
        "controller": identity,
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
    fn the_kernels_attributes_name_the_controller() {
        let path = std::env::temp_dir().join(format!("upcie-list-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        assert_eq!(Identity::of(&path), None);
        let controller = path.join("nvme/nvme0");
        fs::create_dir_all(&controller).unwrap();
        for (name, text) in [("model", "Disk \u{1b}[1m \n"), ("serial", "S1   \n"), ("firmware_rev", "1.0\n")]
        {
            fs::write(controller.join(name), text).unwrap();
        }
        let found = Identity::of(&path);
        fs::remove_dir_all(&path).unwrap();
        let expected =
            Identity { model: "Disk \u{fffd}[1m".into(), serial: "S1".into(), firmware: "1.0".into() };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn all_functions_of_the_machine_can_be_shown() {
        let all = functions().unwrap();
        let mut text = Vec::new();
        let host = Host::now().unwrap();
        print_table(&all, true, &host, &mut text).unwrap();
        assert_eq!(
            all.iter().map(|it| to_json(it, &host)).collect::<anyhow::Result<Vec<_>>>().unwrap().len(),
            all.len()
        );
    }
}
