//! A long run of `upcie soak`: a worker and an `nvme-emu` with faults are killed all the time, and no block may be wrong.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::process;

/// Name of the step.
pub const NAME: &str = "long_soak";

/// Faults that a driver gets over, and a write cache that is lost when the server is killed.
const PLAN: &str = "\
seed = 5
cache = \"1M\"

[[fault]]
kind = \"reorder\"
time = \"300us\"
probability = 0.02

[[fault]]
kind = \"status\"
status = 0x006
probability = 0.001

[[fault]]
kind = \"half-written\"
time = \"100us\"
probability = 0.001

[[fault]]
kind = \"lost-interrupt\"
probability = 0.001

[[fault]]
kind = \"drop\"
opcode = \"write\"
probability = 0.0001
";

/// Runs it for so many seconds.
pub fn check(workspace: &Workspace, seconds: u64) -> Result<()> {
    let directory = workspace.target.join("xtask/soak");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let (plan, disk, log) = (directory.join("plan.toml"), directory.join("disk.img"), directory.join("log"));
    fs::write(&plan, PLAN)?;
    let server = format!("file={},size=256M", disk.display());
    let mut command = Command::new(workspace.bin(false).join("upcie"));
    command.args(["soak", "--server", &server, "--faults"]).arg(&plan).args(["--kill", "2", "--verify"]);
    // Many workers live long enough to reset the controller for a command that is late.
    command.args(["--time", &seconds.to_string(), "--timeout", "2"]);
    command.args(["--length", "64M", "--destructive", "--log=off"]);
    // The last kill may come while a busy machine still starts the worker.
    let limit = Duration::from_secs(2 * seconds + 300);
    let (status, text) = process::captured(&mut command, &log, limit, false)?;
    let last = process::last_lines(&text, 20);
    match status {
        None => bail!("it did not end within {} s:\n{last}", limit.as_secs()),
        Some(status) if !status.success() => bail!("{status}:\n{last}"),
        Some(_) if !text.contains("no block is wrong") => {
            bail!("it does not say that no block is wrong:\n{last}")
        }
        Some(_) => process::log!("soak: {}", text.trim().replace('\n', "; ")),
    }
    fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))
}
