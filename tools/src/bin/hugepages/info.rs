//! `hugepages info`: shows pools, mounts, users and leftover files.

use crate::{
    cli::print,
    units,
    users::{self, Users},
};
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};
use upcie_core::hugetlb::{Leftover, Mount, Pool, mounts, pools};

/// Arguments of `hugepages info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

/// A mount, and its content as far as this user can see it.
struct Space {
    mount: Mount,
    /// Total and free bytes, if the mount is limited.
    limit: Option<(u64, u64)>,
    /// Number of files and their bytes.
    files: Result<(u64, u64), String>,
    leftovers: Vec<Leftover>,
}

/// Runs `hugepages info`.
pub fn run(args: &InfoArgs) -> anyhow::Result<()> {
    let pools = pools()?;
    let spaces = mounts()?.into_iter().map(inspect).collect::<anyhow::Result<Vec<_>>>()?;
    let users = users::scan(Path::new("/proc")).context("listing /proc")?;
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer_pretty(&mut text, &to_json(&pools, &spaces, &users))?;
        writeln!(text)?;
    } else {
        write_pools(&pools, &mut text)?;
        write_mounts(&spaces, &mut text)?;
        write_users(&users, nix::unistd::geteuid().is_root(), &mut text)?;
        write_leftovers(&spaces, &mut text)?;
    }
    print(&text)
}

fn inspect(mount: Mount) -> anyhow::Result<Space> {
    let limit = mount.limit()?;
    let files = sum(&mount.path).map_err(|e| e.to_string());
    // `files` has the error if the directory can't be listed.
    let leftovers = if files.is_ok() { mount.leftovers()? } else { Vec::new() };
    Ok(Space { mount, limit, files, leftovers })
}

/// Counts the files below a directory, and their bytes.
fn sum(directory: &Path) -> io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let data = match entry.metadata() {
            Ok(data) => data,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let (more, there) = match data.is_dir() {
            true => sum(&entry.path())?,
            false => (1, data.blocks() * 512),
        };
        (files, bytes) = (files + more, bytes + there);
    }
    Ok((files, bytes))
}

fn write_pools(pools: &[Pool], out: &mut impl Write) -> io::Result<()> {
    if pools.is_empty() {
        return writeln!(out, "This kernel has no huge pages.");
    }
    writeln!(
        out,
        "{:<8} {:<4} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "PAGES", "NODE", "TOTAL", "FREE", "RESERVED", "SURPLUS", "MEMORY"
    )?;
    for pool in pools {
        let node = pool.node.map_or("all".into(), |node| node.to_string());
        let reserved = pool.reserved.map_or("-".into(), |count| count.to_string());
        let (page, memory) = (units::bytes(pool.page_bytes), units::bytes(pool.total * pool.page_bytes));
        writeln!(
            out,
            "{page:<8} {node:<4} {:>8} {:>8} {reserved:>8} {:>8} {memory:>10}",
            pool.total, pool.free, pool.surplus
        )?;
    }
    Ok(())
}

fn write_mounts(spaces: &[Space], out: &mut impl Write) -> io::Result<()> {
    if spaces.is_empty() {
        return writeln!(
            out,
            "\nhugetlbfs is not mounted (`hugepages mount`; devices behind an IOMMU don't need it)."
        );
    }
    writeln!(out, "\n{:<8} {:<8} {:<24} MOUNT", "PAGES", "WRITABLE", "FILES")?;
    for space in spaces {
        let mount = &space.mount;
        let files = match &space.files {
            Ok((count, bytes)) => format!("{count} ({})", units::bytes(*bytes)),
            Err(error) => format!("can't be seen: {error}"),
        };
        let limit = space.limit.map_or("no limit but the pool".into(), |(total, free)| {
            format!("{} of {} free", units::bytes(free), units::bytes(total))
        });
        writeln!(
            out,
            "{:<8} {:<8} {files:<24} {} ({limit})",
            units::bytes(mount.page_bytes),
            if mount.is_writable { "yes" } else { "no" },
            mount.path.display()
        )?;
    }
    Ok(())
}

fn write_users(users: &Users, is_root: bool, out: &mut impl Write) -> io::Result<()> {
    match users.seen.is_empty() {
        true if users.hidden == 0 => writeln!(out, "\nNo process has huge pages.")?,
        true => writeln!(out, "\nNo process that this user may inspect has huge pages.")?,
        false => writeln!(out, "\n{:>8} {:<16} {:>10} FILES", "PID", "PROCESS", "MEMORY")?,
    }
    for user in &users.seen {
        let (bytes, files) = (units::bytes(user.bytes), user.files.join(", "));
        writeln!(out, "{:>8} {:<16} {bytes:>10} {files}", user.pid, user.name)?;
    }
    if users.hidden > 0 {
        let why = match is_root {
            true => "although this is root (a security module or a container's limits forbid it)",
            false => "for lack of permission (root can)",
        };
        writeln!(out, "Processes not inspected, {why}: {}", users.hidden)?;
    }
    Ok(())
}

fn write_leftovers(spaces: &[Space], out: &mut impl Write) -> io::Result<()> {
    let mut all = spaces.iter().flat_map(|space| &space.leftovers).peekable();
    if all.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\n{:<13} {:>8} {:<8} {:>10} DMA MEMORY", "DEVICE", "PID", "PROCESS", "BYTES")?;
    let mut left = false;
    for leftover in all {
        let running = users::is_running(leftover.pid);
        left |= !running;
        let (bdf, bytes) = (leftover.bdf.to_string(), units::bytes(leftover.bytes));
        let state = if running { "runs" } else { "ended" };
        writeln!(out, "{bdf:<13} {:>8} {state:<8} {bytes:>10} {}", leftover.pid, leftover.path.display())?;
    }
    if left {
        writeln!(out, "`hugepages release` removes the files of ended processes.")?;
    }
    Ok(())
}

fn to_json(pools: &[Pool], spaces: &[Space], users: &Users) -> Value {
    let pools = pools.iter().map(|pool| {
        json!({
            "page_bytes": pool.page_bytes, "node": pool.node, "total": pool.total, "free": pool.free,
            "reserved": pool.reserved, "surplus": pool.surplus,
        })
    });
    let mounts = spaces.iter().map(|space| {
        let files = space.files.as_ref();
        json!({
            "path": space.mount.path.to_string_lossy(), "page_bytes": space.mount.page_bytes,
            "writable": space.mount.is_writable,
            "limit_bytes": space.limit.map(|(total, _)| total),
            "limit_free_bytes": space.limit.map(|(_, free)| free),
            "files": files.ok().map(|(count, _)| count), "files_bytes": files.ok().map(|(_, bytes)| bytes),
            "files_error": files.err(),
        })
    });
    let processes = users
        .seen
        .iter()
        .map(|user| json!({ "pid": user.pid, "name": user.name, "bytes": user.bytes, "files": user.files }));
    let leftovers = spaces.iter().flat_map(|space| &space.leftovers).map(|leftover| {
        json!({
            "path": leftover.path.to_string_lossy(), "device": leftover.bdf.to_string(), "pid": leftover.pid,
            "running": users::is_running(leftover.pid), "bytes": leftover.bytes,
            "page_bytes": leftover.page_bytes,
        })
    });
    json!({
        "pools": pools.collect::<Vec<_>>(),
        "mounts": mounts.collect::<Vec<_>>(),
        "processes": processes.collect::<Vec<_>>(),
        "processes_hidden": users.hidden,
        "dma_files": leftovers.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root was told that root could.
    #[test]
    fn who_may_not_inspect_a_process_is_told_what_helps() {
        let shown = |is_root| {
            let (users, mut text) = (Users { seen: Vec::new(), hidden: 2 }, Vec::new());
            write_users(&users, is_root, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let user = shown(false);
        assert!(user.contains("not inspected, for lack of permission (root can): 2\n"), "{user}");
        let root = shown(true);
        assert!(root.contains("not inspected, although this is root (a security module"), "{root}");
        assert!(!root.contains("root can") && root.contains("): 2\n"), "{root}");
    }
}
