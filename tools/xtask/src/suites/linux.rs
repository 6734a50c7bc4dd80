//! Linux's own NVMe driver in a guest, on controllers of an `nvme-emu` on this machine. It shows whether the
//! emulator follows the rules of interrupts, one controller for each kind of interrupt.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::cache::Scratch;
use crate::lab::fio::which;
use crate::lab::guest::{self, Job};
use crate::lab::kernel::Lab;
use crate::lab::payload::{BIN, Payload};
use crate::lab::qemu::{Iommu, Options, VfioUser};
use crate::lab::{install, vmm};
use crate::process::{self, Guard, log};
use crate::suites::modes::{self, LINUX};
use crate::suites::row::Row;
use crate::suites::run::Run;

const SCRIPT: &str = include_str!("../../../../tests/guest/linux-driver.sh");
/// Deadline of the boot and of each kind. MSI-X takes 10 s on an idle machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// A kind of interrupts.
struct Kind {
    /// Row in the matrix.
    name: &'static str,
    /// Serial number of the controller.
    serial: &'static str,
    /// Options of `nvme-emu` for this kind only.
    options: &'static [&'static str],
    /// Name of the kind in /proc/interrupts.
    word: &'static str,
    /// Least and largest number of interrupts per 100 I/Os. Several completions may share one interrupt. QEMU
    /// takes any register access of the guest for the end of a pin's interrupt, which then repeats while
    /// completions wait: at most once for each of an I/O's two doorbells.
    counts: (u32, u32),
}

const KINDS: &[Kind] = &[
    Kind {
        name: "linux_msix",
        serial: "MSIX",
        options: &["--vectors", "9"],
        word: "PCI-MSIX",
        counts: (5, 150),
    },
    Kind {
        name: "linux_msi",
        serial: "MSI",
        options: &["--vectors", "0", "--msi", "8"],
        word: "PCI-MSI-",
        counts: (5, 250),
    },
    Kind {
        name: "linux_intx",
        serial: "INTX",
        options: &["--vectors", "0", "--intx"],
        word: "IO-APIC",
        counts: (5, 200),
    },
];

/// Runs the wanted kinds; does nothing if there are none.
pub fn run(run: &mut Run<'_>, lab: &Lab) -> Result<()> {
    let kinds: Vec<_> = KINDS.iter().filter(|kind| run.choice.wants(kind.name)).collect();
    if kinds.is_empty() || !modes::wanted(LINUX, &run.choice.mode) {
        return Ok(());
    }
    let started = Instant::now();
    let prepared = vmm::prepare().and_then(|qemu| Ok((qemu, fio()?)));
    let (qemu, fio) = match prepared {
        Ok(found) => found,
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
    let emulator = run.workspace.bin(false).join("nvme-emu");
    let directory = std::env::temp_dir().join(format!("upcie-linux-{}", std::process::id()));
    let scratch = Scratch::create(directory)?;
    let mut servers = Vec::new();
    let mut sockets = Vec::new();
    for kind in &kinds {
        let socket = scratch.path().join(kind.serial);
        servers.push(serve(&emulator, kind, &socket)?);
        sockets.push(socket);
    }
    let mut payload = Payload::plain();
    payload.add_program(&fio)?;
    payload.add(&format!("{BIN}/linux-driver.sh"), SCRIPT);
    let vfio_user = Some(VfioUser { qemu, sockets });
    let options = Options { memory: 1024, iommu: Iommu::Off, stock: true, vfio_user, ..Options::default() };
    let jobs: Vec<_> = kinds.iter().map(|kind| job(kind)).collect();
    log!("booting the guest for Linux's driver on {} controllers of nvme-emu", kinds.len());
    let (mut rows, verbose) = (Vec::new(), run.choice.verbose);
    let result = guest::run(lab, &options, payload, &jobs, DEADLINE, verbose, &mut |job, result| {
        let problem = (result.code != 0).then(|| format!("exit code {}", result.code));
        if problem.is_some() && !verbose {
            println!("{}{}", result.stdout, result.stderr);
        }
        let mut row = Row::step(&job.name, "linux", result.time, problem);
        row.mode = Some(LINUX);
        log!("{}: {}", row.line(24), result.stdout.trim());
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

/// Starts a controller, and waits until it listens.
fn serve(emulator: &Path, kind: &Kind, socket: &Path) -> Result<Guard> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(emulator).arg("--socket").arg(socket);
    command.args(["--size", "64M", "--serial", kind.serial]).args(kind.options);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut guard = Guard(child.with_context(|| format!("cannot start {}", emulator.display()))?);
    let started = Instant::now();
    while !socket.exists() {
        if let Some(status) = guard.0.try_wait()? {
            bail!("nvme-emu exited before it listened: {status}");
        }
        if started.elapsed() > Duration::from_secs(60) {
            bail!("nvme-emu did not listen on {} within 60 s", socket.display());
        }
        process::check_interrupt()?;
        std::thread::sleep(process::POLL);
    }
    Ok(guard)
}

fn job(kind: &Kind) -> Job {
    let (least, most) = kind.counts;
    let seconds = DEADLINE.as_secs() - 30;
    Job::new(
        kind.name,
        format!(
            "exec timeout -s KILL {seconds} sh {BIN}/linux-driver.sh {} {} {least} {most}",
            kind.serial, kind.word
        ),
    )
}
