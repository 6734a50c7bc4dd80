//! `hugepages clear`: returns a pool of huge pages to the system.

use crate::{Size, cli::print, setup, units, users};
use anyhow::{Context, bail};
use clap::Args;
use std::{fmt::Write, path::Path};
use upcie_core::hugetlb::{leftovers, pool};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hugepages clear                    return all pages of 2 MiB to the system
  hugepages clear --size 1G --node 0 those of 1 GiB on NUMA node 0

A pool of which pages are in use or reserved stays as it is, unless --shrink says otherwise.";

/// Arguments of `hugepages clear`.
#[derive(Debug, Args)]
pub struct ClearArgs {
    /// Size of the pages
    #[arg(long, short, value_enum, ignore_case = true, default_value = "2M")]
    size: Size,
    /// Return the pages of this NUMA node only
    #[arg(long, value_name = "NODE")]
    node: Option<u32>,
    /// Return the unused pages of a pool in use, too; the used ones follow when they are freed
    #[arg(long)]
    shrink: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs `hugepages clear`.
pub fn run(args: &ClearArgs) -> anyhow::Result<()> {
    let mut pool = pool(args.size.page(), args.node)?;
    let (before, used) = (pool.total, pool.total.saturating_sub(pool.available()));
    let size = units::bytes(pool.page_bytes);
    let place = args.node.map(|node| format!(" on node {node}")).unwrap_or_default();
    if used > 0 && !args.shrink {
        bail!(
            "{used} of {before} pages of {size}{place} are in use or reserved{}: end their users first, or --shrink \
             returns the other {} now, and these when they are freed",
            holders()?,
            before - used
        );
    }
    let mut text = String::new();
    if before == 0 {
        let _ = writeln!(text, "nothing to clear: there are no pages of {size}{place}");
    } else if args.dry_run {
        let _ = writeln!(text, "would write 0 to {} (there are {before})", pool.file().display());
    } else {
        let there = pool.set(0)?;
        let returned = before.saturating_sub(there);
        let _ = writeln!(text, "{} of {size}{place} returned to the system", units::number(returned, "page"));
        if there > 0 {
            let _ = writeln!(text, "{there} in use (`hugepages info` lists the users): returned after use");
        }
    }
    let setting = setup::drop_in(args.size, args.node, 0, &pool, setup::default_size()).path;
    if setting.exists() {
        let _ = writeln!(
            text,
            "{} sets the pool again at each boot: remove it to prevent that",
            setting.display()
        );
    }
    print(text.as_bytes())
}

/// Names the processes with huge pages, of any size, and the files of ended ones.
fn holders() -> anyhow::Result<String> {
    let users = users::scan(Path::new("/proc")).context("listing /proc")?;
    let mut all: Vec<_> =
        users.seen.iter().map(|user| format!("process {} ({})", user.pid, user.name)).collect();
    if users.hidden > 0 {
        all.push(format!("{} that this user may not inspect", users.hidden));
    }
    let ended = leftovers()?.into_iter().filter(|file| !users::is_running(file.pid));
    all.extend(ended.map(|file| format!("{} (`hugepages release`)", file.path.display())));
    Ok(if all.is_empty() { String::new() } else { format!(" (users of huge pages: {})", all.join(", ")) })
}
