//! Linux's own NVMe driver in a guest, on controllers of an `nvme-emu` on this machine: a driver that is not ours shows whether the
//! emulator does as the specification says. It boots with interrupts of each kind, keeps file systems, takes nvme-cli's commands,
//! resets under load, recovers from faults, and loses nothing durable when the power goes.

mod cases;
mod power;
mod server;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::cache::Scratch;
use crate::lab::fio::which;
use crate::lab::guest::{self, Job};
use crate::lab::kernel::Lab;
use crate::lab::payload::{BIN, Payload};
use crate::lab::programs::Programs;
use crate::lab::qemu::{Iommu, Options, VfioUser};
use crate::lab::{install, vmm};
use crate::process::{self, log};
use crate::suites::modes::{self, LINUX};
use crate::suites::row::Row;
use crate::suites::run::Run;
use cases::{CASES, Case, SCRIPTS};
use server::serve;

/// Deadline of a boot and of each script. The longest takes 30 s on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// Needs of the guest beside the lab's files.
struct Needs {
    /// Words of the command that starts QEMU.
    qemu: Vec<OsString>,
    fio: PathBuf,
    programs: Programs,
}

/// Runs the wanted cases; does nothing if there are none.
pub fn run(run: &mut Run<'_>, lab: &Lab) -> Result<()> {
    let cases: Vec<_> = CASES.iter().filter(|case| run.choice.wants(case.name)).collect();
    let power = power::TYPES.iter().any(|system| run.choice.wants(system.name));
    if (cases.is_empty() && !power) || !modes::wanted(LINUX, &run.choice.mode) {
        return Ok(());
    }
    let started = Instant::now();
    let needs = match prepare() {
        Ok(needs) => needs,
        Err(error) => {
            process::check_interrupt()?;
            let reason = format!("{error:#}");
            log!("skipping Linux's driver: {}", reason.lines().next().unwrap_or_default());
            if run.strict {
                run.push(Row::step("linux", LINUX, started.elapsed(), Some(reason)));
            }
            return Ok(());
        }
    };
    if !cases.is_empty() {
        run_cases(run, lab, &needs, &cases)?;
    }
    if power { power::run(run, lab, &needs) } else { Ok(()) }
}

fn prepare() -> Result<Needs> {
    Ok(Needs { qemu: vmm::prepare()?, fio: fio()?, programs: Programs::prepare()? })
}

/// Runs scripts one after the other in one boot.
fn run_cases(run: &mut Run<'_>, lab: &Lab, needs: &Needs, cases: &[&'static Case]) -> Result<()> {
    let emulator = run.workspace.bin(false).join("nvme-emu");
    let scratch = scratch()?;
    let (mut servers, mut sockets) = (Vec::new(), Vec::new());
    for case in cases.iter().filter(|case| case.server.is_ours()) {
        let socket = scratch.path().join(case.server.serial);
        if !sockets.contains(&socket) {
            servers.push(serve(&emulator, case.server, None, &socket)?);
            sockets.push(socket);
        }
    }
    let mut payload = payload(needs)?;
    for tool in &run.tools {
        payload.add_program(tool)?;
    }
    let jobs: Vec<_> = cases
        .iter()
        .map(|case| job(case.name, &format!("{} {} {}", case.script, case.server.serial, case.arguments)))
        .collect();
    log!("booting the guest for Linux's driver on {} controllers of nvme-emu", sockets.len());
    boot(run, lab, &options(needs, sockets), payload, &jobs)
}

/// Boots the guest, runs the jobs, and adds a row for each.
fn boot(run: &mut Run<'_>, lab: &Lab, options: &Options, payload: Payload, jobs: &[Job]) -> Result<()> {
    let (mut rows, verbose) = (Vec::new(), run.choice.verbose);
    let result = guest::run(lab, options, payload, jobs, DEADLINE, verbose, &mut |job, result| {
        let problem = (result.code != 0).then(|| format!("exit code {}", result.code));
        if problem.is_some() && !verbose {
            println!("{}{}", result.stdout, result.stderr);
        }
        let mut row = Row::step(&job.name, "linux", result.time, problem);
        row.mode = Some(LINUX);
        log!("{}: {}", row.line(24), result.stdout.trim().replace('\n', "; "));
        rows.push(row);
    });
    if let Err(error) = result {
        process::check_interrupt()?;
        println!("{error:#}");
        for job in &jobs[rows.len()..] {
            let mut row =
                Row::step(&job.name, "linux", Duration::ZERO, Some("the guest went down".to_owned()));
            row.mode = Some(LINUX);
            rows.push(row);
        }
    }
    run.rows.append(&mut rows);
    Ok(())
}

/// Finds fio, or installs it.
fn fio() -> Result<PathBuf> {
    if which("fio").is_none() {
        install::packages(&["fio"], "the suite of Linux's driver needs")?;
    }
    which("fio").context("fio was installed but is not on the PATH")
}

/// Makes a directory for sockets and disks.
fn scratch() -> Result<Scratch> {
    Scratch::create(std::env::temp_dir().join(format!("upcie-linux-{}", std::process::id())))
}

/// Makes a payload with the scripts and their programs.
fn payload(needs: &Needs) -> Result<Payload> {
    let mut payload = Payload::plain();
    payload.add_program(&needs.fio)?;
    needs.programs.add_to(&mut payload)?;
    for (name, text) in SCRIPTS {
        payload.add(&format!("{BIN}/linux/{name}"), text);
    }
    Ok(payload)
}

fn options(needs: &Needs, sockets: Vec<PathBuf>) -> Options {
    let vfio_user = Some(VfioUser { qemu: needs.qemu.clone(), sockets });
    Options { memory: 1024, iommu: Iommu::Off, vfio_user, ..Options::default() }
}

/// Makes the job of a script with its arguments.
fn job(name: &str, words: &str) -> Job {
    let seconds = DEADLINE.as_secs() - 30;
    Job::new(name, format!("exec timeout -s KILL {seconds} sh {BIN}/linux/{words}"))
}
