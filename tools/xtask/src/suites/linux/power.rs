//! A power cut: the guest and its controllers are killed while Linux writes files to them, and a second boot finds what was made
//! durable.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use crate::lab::guest::{self, Job};
use crate::lab::kernel::Lab;
use crate::lab::payload::BIN;
use crate::process::{self, log};
use crate::suites::linux::cases::Server;
use crate::suites::linux::{DEADLINE, Needs, boot, job, options, payload, scratch, serve};
use crate::suites::modes::LINUX;
use crate::suites::row::Row;
use crate::suites::run::Run;

/// A file system on a controller of its own.
pub struct System {
    /// Row in the matrix.
    pub name: &'static str,
    /// Type for mount.
    word: &'static str,
    server: Server,
}

/// Bytes of a write cache that are lost with the power: less than a file system writes meanwhile.
const CACHE: &str = "cache = '4M'";
const OPTIONS: &[&str] = &["--vectors", "9", "--size", "512M"];

pub const TYPES: &[System] = &[
    System {
        name: "linux_power_ext4",
        word: "ext4",
        server: Server { serial: "EXT4", options: OPTIONS, plan: CACHE },
    },
    System {
        name: "linux_power_xfs",
        word: "xfs",
        server: Server { serial: "XFS", options: OPTIONS, plan: CACHE },
    },
];

/// Files of each file system that are durable before the power goes. The script keeps the last 50.
const FILES: usize = 60;
const KEPT: usize = 49;

pub fn run(run: &mut Run<'_>, lab: &Lab, needs: &Needs) -> Result<()> {
    let started = Instant::now();
    let emulator = run.workspace.bin(false).join("nvme-emu");
    let scratch = scratch()?;
    let at = |system: &System, name: &str| scratch.path().join(format!("{}.{name}", system.word));
    let start = || {
        let server =
            |system: &System| serve(&emulator, &system.server, Some(&at(system, "img")), &at(system, "sock"));
        TYPES.iter().map(server).collect::<Result<Vec<_>>>()
    };
    let sockets: Vec<_> = TYPES.iter().map(|system| at(system, "sock")).collect();
    let options = options(needs, sockets.clone());

    log!("booting the guest for a power cut");
    let servers = start()?;
    let script = TYPES
        .iter()
        .map(|system| format!("sh {BIN}/linux/power.sh {} {} write &\n", system.server.serial, system.word));
    let script = format!("{}wait -n\nexit 1", script.collect::<String>());
    let count = |text: &str, system: &System| durable(text, system).count();
    let enough = |text: &str| TYPES.iter().all(|system| count(text, system) >= FILES);
    let cut = || drop(servers);
    let written =
        guest::run_until(lab, &options, payload(needs)?, Job::new("write", script), DEADLINE, &enough, cut);
    let text = match written {
        Ok(text) => text,
        Err(error) => {
            process::check_interrupt()?;
            println!("{error:#}");
            for system in TYPES {
                let problem = Some("it did not come to the power cut".to_owned());
                let mut row = Row::step(system.name, "linux", started.elapsed(), problem);
                row.mode = Some(LINUX);
                run.push(row);
            }
            return Ok(());
        }
    };

    for socket in &sockets {
        fs::remove_file(socket)?;
    }
    let _servers = start()?;
    let mut payload = payload(needs)?;
    let kept = TYPES.iter().map(|system| {
        let lines: Vec<_> = durable(&text, system).collect();
        lines[lines.len() - KEPT..].iter().map(|line| format!("{line}\n")).collect::<String>()
    });
    payload.add("payload/durable", &kept.collect::<String>());
    let jobs: Vec<_> = TYPES
        .iter()
        .map(|system| job(system.name, &format!("power.sh {} {} check", system.server.serial, system.word)))
        .collect();
    boot(run, lab, &options, payload, &jobs)
}

/// Returns the whole lines that say what was durable on a file system.
fn durable<'a>(text: &'a str, system: &System) -> impl Iterator<Item = &'a str> {
    let start = format!("durable {} ", system.word);
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .filter(move |line| line.starts_with(&start))
}
