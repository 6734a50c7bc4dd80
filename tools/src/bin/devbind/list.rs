//! `devbind list`: lists PCI functions.

use crate::{
    cli::{self, print},
    describe::{Described, HEADER},
    pci_ids::PciIds,
    state::State,
    usage::Host,
};
use anyhow::Context;
use clap::Args;
use std::{io::Write, path::Path, str::FromStr};
use upcie_core::pci::{Function, functions};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  devbind list                     NVMe controllers
  devbind list --class 02          network controllers: a class code or its first digits
  devbind list --class all --json  all PCI functions, for programs

SIZE is known only while a kernel driver is bound. Without root, IN USE may be incomplete.";

/// Arguments of `devbind list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Class of functions to list: nvme, all, or a class code in hexadecimal (0108) or its first digits
    #[arg(long, short_alias = 'c', default_value = "nvme")]
    class: Class,
    /// Print one JSON array on stdout
    #[arg(long)]
    json: bool,
}

/// Class of functions to list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Nvme,
    All,
    /// First hexadecimal digits of the class code.
    Code(String),
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        match text {
            "nvme" => Ok(Self::Nvme),
            "all" => Ok(Self::All),
            _ if matches!(digits.len(), 1..=6) && digits.bytes().all(|c| c.is_ascii_hexdigit()) => {
                Ok(Self::Code(digits.to_ascii_lowercase()))
            }
            _ => Err("use nvme, all, or a class code like 02, 0108 or 010802".into()),
        }
    }
}

impl Class {
    fn has(&self, function: &Function) -> bool {
        match self {
            Self::Nvme => function.is_nvme(),
            Self::All => true,
            Self::Code(digits) => format!("{:06x}", function.class).starts_with(digits),
        }
    }
}

/// Runs `devbind list`.
pub fn run(args: &ListArgs, verbose: bool, state: &Path) -> anyhow::Result<bool> {
    let (host, ids) = (Host::now().context("reading what is mounted")?, PciIds::load());
    let state = State::open(state, true)?;
    let all = functions()?;
    let total = all.len();
    let shown = all.into_iter().filter(|function| args.class.has(function));
    let shown: Vec<_> =
        shown.map(|function| Described::new(function, &host, &ids, &state)).collect::<anyhow::Result<_>>()?;
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer_pretty(&mut text, &shown.iter().map(Described::to_json).collect::<Vec<_>>())?;
        writeln!(text)?;
    } else if shown.is_empty() {
        cli::message(&format!(
            "None of the {total} PCI functions of this machine has this class (--class all lists them)."
        ));
    } else {
        table(&shown, verbose, &mut text)?;
    }
    print(&text)?;
    Ok(true)
}

fn table(shown: &[Described], verbose: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let rows: Vec<_> = shown.iter().map(Described::row).collect();
    let header = HEADER.map(str::to_owned);
    let all = || rows.iter().chain([&header]);
    let widths: Vec<_> = (0..HEADER.len())
        .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    writeln!(out, "{}", line(&header).trim_end())?;
    for (row, described) in rows.iter().zip(shown) {
        writeln!(out, "{}", line(row).trim_end())?;
        for detail in described.details().iter().filter(|_| verbose) {
            writeln!(out, "    {detail}")?;
        }
    }
    let noiommu = |it: &Described| it.function.iommu_group.as_ref().is_some_and(|group| group.is_noiommu);
    if shown.iter().any(noiommu) {
        writeln!(out, "!: no IOMMU translates for this group")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_names_or_codes() {
        assert_eq!("nvme".parse(), Ok(Class::Nvme));
        assert_eq!("all".parse(), Ok(Class::All));
        assert_eq!("0x0C03".parse(), Ok(Class::Code("0c03".into())));
        for text in ["", "0x", "NVME", "0108021", "net"] {
            assert!(text.parse::<Class>().is_err(), "{text}");
        }
    }
}
