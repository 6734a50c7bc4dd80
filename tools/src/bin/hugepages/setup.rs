//! `hugepages setup`: sets the number of huge pages.

use crate::{
    Size,
    cli::print,
    persist::{DropIn, Persistence},
    units,
};
use anyhow::bail;
use clap::Args;
use std::{
    fmt::Write,
    fs,
    sync::atomic::{AtomicBool, Ordering},
};
use upcie_core::hugetlb::{Pool, pool};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hugepages setup --count 64                         64 pages of 2 MiB or more, until the next boot
  hugepages setup --count 64 --persist               and at each boot
  hugepages setup --count 2 --size 1G --node 0       two of 1 GiB on NUMA node 0
  hugepages setup --count 8 --shrink                 keep 8; pages in use follow when freed";

/// Arguments of `hugepages setup`.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// Least number of pages in the pool; a larger pool stays as it is
    #[arg(long, short, visible_alias = "at-least", value_name = "N")]
    count: u64,
    /// Remove the pages above --count, even if another program asked for them
    #[arg(long)]
    shrink: bool,
    /// Keep the pages that could be reserved if there are too few, instead of restoring the old number
    #[arg(long)]
    best_effort: bool,
    /// Size of the pages
    #[arg(long, short, value_enum, ignore_case = true, default_value = "2M")]
    size: Size,
    /// Reserve the pages on this NUMA node
    #[arg(long, value_name = "NODE")]
    node: Option<u32>,
    #[command(flatten)]
    persistence: Persistence,
}

/// The user has asked for an end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Returns `true` if a signal has asked for an end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs `hugepages setup`.
pub fn run(args: &SetupArgs) -> anyhow::Result<()> {
    let mut pool = pool(args.size.page(), args.node)?;
    let before = pool.total;
    let count = if args.shrink { args.count } else { args.count.max(before) };
    check_memory(count, &pool)?;
    let drop_in = drop_in(args.size, args.node, count, &pool, default_size());
    let mut text = String::new();
    let file = pool.file();
    if args.persistence.dry_run {
        let _ = writeln!(text, "would write {count} to {} (there are {before})", file.display());
    } else if args.persistence.is_running_system() {
        ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
        let there = pool.set(count)?;
        // A signal cuts the kernel's work short.
        if interrupted() {
            let put_back = if args.best_effort { Ok(there) } else { pool.set(before) };
            bail!("interrupted{}", kept(pool.total, &put_back));
        }
        if there < count {
            let why = shortage(args, &pool, before);
            let put_back = if args.best_effort { Ok(there) } else { pool.set(before) };
            bail!("{why}{}", kept(pool.total, &put_back));
        }
        let pages = units::bytes(pool.page_bytes);
        let place = args.node.map(|node| format!(" on node {node}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{there} page{} of {pages}{place}, {} of them free (before: {before})",
            if there == 1 { "" } else { "s" },
            pool.free
        );
        if count > args.count {
            let more = count - args.count;
            let _ = writeln!(text, "{more} more than asked for were there before: --shrink removes them");
        }
        if there > count {
            let _ = writeln!(
                text,
                "{} more than asked for {} in use (`hugepages info` lists the users), and will be freed after use",
                there - count,
                if there - count == 1 { "is" } else { "are" }
            );
        }
    }
    text += &args.persistence.apply(&drop_in, || "the setting was not made permanent".into())?;
    print(text.as_bytes())
}

/// Refuses more pages than the machine has memory for, before anything is written.
fn check_memory(count: u64, pool: &Pool) -> anyhow::Result<()> {
    let (Some(memory), wanted) = (meminfo("MemTotal"), count.saturating_mul(pool.page_bytes)) else {
        return Ok(());
    };
    if count > pool.total && wanted > memory {
        let (wanted, memory) = (units::bytes(wanted), units::bytes(memory));
        bail!(
            "{count} pages of {} are {wanted}, and this machine has {memory} of memory",
            units::bytes(pool.page_bytes)
        );
    }
    Ok(())
}

/// Describes the pool after a shortage.
fn kept(there: u64, put_back: &upcie_core::Result<u64>) -> String {
    match put_back {
        Ok(_) if there == 0 => "\nThe pool is empty again".to_owned(),
        Ok(_) => format!("\nThere are {there} pages; `hugepages info` lists their users"),
        Err(error) => format!("\nRestoring the old number failed too: {error}"),
    }
}

/// Returns the page size of `vm.nr_hugepages`, in bytes.
pub fn default_size() -> Option<u64> {
    meminfo("Hugepagesize")
}

/// Reads a value of `/proc/meminfo` in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Makes the file that sets the pool at each boot.
pub fn drop_in(size: Size, node: Option<u32>, count: u64, pool: &Pool, default_size: Option<u64>) -> DropIn {
    if node.is_none() && default_size == Some(pool.page_bytes) {
        return DropIn {
            path: "/etc/sysctl.d/60-upcie-hugepages.conf".into(),
            text: format!("# Written by: hugepages setup --persist\nvm.nr_hugepages = {count}\n"),
            enable: None,
        };
    }
    let (size, file) = (size.name(), pool.file().display().to_string());
    let place = node.map(|node| format!(" on node {node}")).unwrap_or_default();
    let name = node.map(|node| format!("-node{node}")).unwrap_or_default();
    // The unit runs early, before memory is fragmented. It fails if there are too few pages.
    let text = format!(
        "# Written by: hugepages setup --persist\n\
         [Unit]\n\
         Description={count} huge pages of {size}{place}\n\
         DefaultDependencies=no\n\
         Before=basic.target\n\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/sh -c 'echo {count} > {file} && test \"$$(cat {file})\" -ge {count}'\n\n\
         [Install]\n\
         WantedBy=basic.target\n"
    );
    DropIn::unit(&format!("upcie-hugepages-{size}{name}.service"), text)
}

/// Explains a shortage of pages, and how to get more.
fn shortage(args: &SetupArgs, pool: &Pool, before: u64) -> String {
    let (count, size, there) = (args.count, args.size.name(), pool.total);
    let place = args.node.map(|node| format!(" on node {node}")).unwrap_or_default();
    let at_boot = match args.node {
        None => count.to_string(),
        Some(node) => format!("{node}:{count}"),
    };
    let again = match args.node {
        None => format!("hugepages setup --size {size} --count {count}"),
        Some(node) => format!("hugepages setup --size {size} --count {count} --node {node}"),
    };
    let cause = match args.size {
        Size::Huge2M => "the kernel found no more contiguous memory: it is used up or fragmented",
        Size::Huge1G => {
            "the kernel found no more contiguous memory: a running system rarely has 1 GiB in one piece, so such \
             pages are best reserved at boot"
        }
    };
    format!(
        "only {there} of {count} pages of {size}{place} could be reserved (before: {before}): {cause}. To get more:\n  \
         echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory; {again}\n  \
         or at boot, on the kernel's command line: hugepagesz={size} hugepages={at_boot}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use upcie_core::hugetlb::pools;

    fn args(size: Size, node: Option<u32>) -> SetupArgs {
        SetupArgs {
            count: 5,
            shrink: false,
            best_effort: false,
            size,
            node,
            persistence: Persistence::default(),
        }
    }

    #[test]
    fn the_default_pool_is_a_sysctl_and_others_are_units() {
        let Some(pool) = pools().unwrap().into_iter().find(|pool| pool.page_bytes == 2 << 20) else { return };
        let sysctl = drop_in(Size::Huge2M, None, 5, &pool, Some(2 << 20));
        assert!(sysctl.text.ends_with("vm.nr_hugepages = 5\n") && sysctl.enable.is_none(), "{sysctl:?}");
        // With default_hugepagesz=1G the sysctl sets pages of 1 GiB.
        for (node, default, name) in [(None, 1 << 30, "2M"), (Some(1), 2 << 20, "2M-node1")] {
            let unit = drop_in(Size::Huge2M, node, 5, &pool, Some(default));
            let name = format!("/etc/systemd/system/upcie-hugepages-{name}.service");
            assert_eq!(unit.path, Path::new(&name));
            assert!(unit.text.contains(&format!("echo 5 > {}", pool.file().display())), "{}", unit.text);
            assert!(unit.enable.is_some_and(|line| line.contains("systemctl enable")));
        }
    }

    #[test]
    fn too_few_pages_say_how_to_get_more() {
        let Some(pool) = pools().unwrap().into_iter().find(|pool| pool.page_bytes == 2 << 20) else { return };
        let text = shortage(&args(Size::Huge1G, Some(1)), &pool, 3);
        for part in [
            "of 5 pages of 1G on node 1",
            "compact_memory",
            "hugepagesz=1G hugepages=1:5",
            "best reserved at boot",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = shortage(&args(Size::Huge2M, None), &pool, 3);
        assert!(text.contains("hugepagesz=2M hugepages=5") && !text.contains("1 GiB"), "{text}");
    }
}
