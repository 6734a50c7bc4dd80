//! Starts controllers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Guard};
use crate::suites::linux::cases::Server;

/// Starts a controller, with its data in a file if there is one, and waits until it listens.
pub fn serve(emulator: &Path, server: &Server, file: Option<&Path>, socket: &Path) -> Result<Guard> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(emulator).arg("--socket").arg(socket);
    command.args(["--serial", server.serial]).args(server.options);
    if !server.plan.is_empty() {
        let plan = socket.with_extension("toml");
        fs::write(&plan, server.plan).with_context(|| plan.display().to_string())?;
        command.arg("--faults").arg(plan);
    }
    if let Some(file) = file {
        command.arg("--file").arg(file);
    }
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
