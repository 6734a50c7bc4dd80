//! `hugepages release`: removes files of ended processes, once their devices can't write to them.

use crate::{
    cli::{self, print},
    units, users,
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{self, OpenOptions},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::Arc,
};
use upcie_core::{
    ErrorKind,
    hugetlb::{Leftover, leftovers},
    mmio::{Mapping, Register},
    pci::{Bdf, ConfigSpace, Function, FunctionLock, command},
};

/// Text below the options of `--help`.
pub const NOTES: &str = "\
A device goes on after its process was killed, and writes to the addresses that it was given.
Its memory is therefore released only if
  - the device is off the bus: its bus master bit is clear, or the kernel, asked to scan
    again, finds no such device, or
  - it is an NVMe controller without a driver, or with uio_pci_generic, that is disabled
    (CC.EN and CSTS.RDY are 0),
and no other process has the function locked. To get a device off the bus, use
`devbind unbind BDF` or `echo 1 > /sys/bus/pci/devices/BDF/reset`.

The pages return to the pool; `hugepages clear` frees the pool.";

/// Arguments of `hugepages release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Devices whose memory is released, such as 0000:01:00.0 [default: all]
    #[arg(value_name = "BDF", value_parser = cli::parse_bdf)]
    devices: Vec<Bdf>,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Release memory even if the device may still write to it, which corrupts the memory's next user
    #[arg(long)]
    force: bool,
}

/// Decision about a device's memory, with the reason.
enum Decision {
    /// May be released.
    Safe(String),
    /// May be released only with --force.
    Unsafe(String),
    /// Must not be released.
    Never(String),
}

/// Runs `hugepages release`.
pub fn run(args: &ReleaseArgs) -> anyhow::Result<()> {
    let mut by_device = BTreeMap::<Bdf, Vec<Leftover>>::new();
    for leftover in leftovers()? {
        if args.devices.is_empty() || args.devices.contains(&leftover.bdf) {
            by_device.entry(leftover.bdf).or_default().push(leftover);
        }
    }
    for device in args.devices.iter().filter(|device| !by_device.contains_key(device)) {
        cli::message(&format!("{device} has no leftover memory"));
    }
    if by_device.is_empty() {
        return print(b"nothing to release\n");
    }
    let (mut text, mut refused) = (String::new(), Vec::new());
    for (bdf, files) in by_device {
        // Hold the lock until the files are gone: no other process may start to use the device meanwhile.
        let (decision, _lock) = decide(bdf, args.dry_run);
        let why = match decision {
            Decision::Safe(why) => why,
            Decision::Unsafe(why) if args.force => format!("forced, although {why}"),
            Decision::Unsafe(why) => {
                refused.push(format!("{bdf}: {why}; --force releases its memory anyway"));
                continue;
            }
            Decision::Never(why) => {
                refused.push(format!("{bdf}: {why}"));
                continue;
            }
        };
        for file in files {
            if let Some(why) = still_used(&file).filter(|_| !args.force) {
                refused.push(format!("{bdf}: {why}"));
                continue;
            }
            let (path, bytes) = (file.path.display().to_string(), units::bytes(file.bytes));
            let what = if args.dry_run { "would remove" } else { "removed" };
            let names = fs::symlink_metadata(&file.path).map_or(1, |data| data.nlink());
            let stays = match names {
                0 | 1 => "",
                _ => "; its pages stay, because another device has a name for the file too",
            };
            if !args.dry_run {
                file.remove()?;
            }
            let _ = writeln!(text, "{what} {path} ({bytes}): {why}{stays}");
        }
    }
    print(text.as_bytes())?;
    if !refused.is_empty() {
        bail!("not released: {}", refused.join("\nnot released: "));
    }
    Ok(())
}

/// Returns the reason if the process that made the file still has it.
fn still_used(file: &Leftover) -> Option<String> {
    let data = fs::symlink_metadata(&file.path).ok()?;
    let (pid, path) = (file.pid, file.path.display());
    match users::has_mapped(pid, data.dev(), data.ino()) {
        Some(false) => None,
        Some(true) => Some(format!("process {pid} has {path} mapped: end it first")),
        None => Some(format!("can't tell whether process {pid} still has {path} mapped; root can")),
    }
}

/// Judges the device, and locks it: the lock keeps other users away.
fn decide(bdf: Bdf, dry_run: bool) -> (Decision, Option<FunctionLock>) {
    let lock = match FunctionLock::take(bdf) {
        // The device may exist and still write: removal through sysfs leaves its bus master bit set.
        Err(error) if error.kind() == ErrorKind::NotFound && dry_run => {
            return (
                Decision::Safe("the kernel knows no such device; it would be looked for again".into()),
                None,
            );
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match rescan().map(|()| FunctionLock::take(bdf))
        {
            Err(error) => {
                return (
                    Decision::Unsafe(format!(
                        "the kernel knows no such device, and can't scan for it again: {error:#}"
                    )),
                    None,
                );
            }
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                return (Decision::Safe("there is no such device any more".into()), None);
            }
            Ok(other) => other,
        },
        other => other,
    };
    match lock {
        Err(error) => (Decision::Never(format!("{:#}", anyhow::Error::from(error))), None),
        Ok(lock) => {
            let decision = inspect(bdf).unwrap_or_else(|error| {
                Decision::Unsafe(format!("can't tell whether it is off the bus: {error:#}"))
            });
            (decision, Some(lock))
        }
    }
}

/// Makes the kernel scan for devices again.
fn rescan() -> anyhow::Result<()> {
    const FILE: &str = "/sys/bus/pci/rescan";
    fs::write(FILE, "1").with_context(|| format!("writing 1 to {FILE} (only root may)"))
}

/// Judges a device that exists.
fn inspect(bdf: Bdf) -> anyhow::Result<Decision> {
    let function = Function::at(bdf)?;
    let bits = function.config()?.command()?;
    if bits & command::BUS_MASTER == 0 {
        return Ok(Decision::Safe(format!("{bdf} is off the bus")));
    }
    let unbind = match function.driver {
        Some(_) => format!("`devbind unbind {bdf}`, or "),
        None => String::new(),
    };
    let way_out =
        format!("get it off the bus with {unbind}echo 1 > {}/reset, and try again", function.path.display());
    let on = match function.driver.as_deref() {
        // No driver uses the registers, and the lock keeps other processes of this project away.
        None | Some("uio_pci_generic") if function.is_nvme() => {
            if bits & command::MEMORY == 0 {
                "may write to memory (bus master), and its controller's state can't be read (memory decode is off)".to_owned()
            } else if controller_is_stopped(&function)? {
                return Ok(Decision::Safe(format!("the controller at {bdf} is disabled")));
            } else {
                "may write to memory: its controller is enabled".to_owned()
            }
        }
        None => "may write to memory (bus master)".to_owned(),
        Some(driver) => format!("may write to memory (bus master; driver {driver})"),
    };
    Ok(Decision::Unsafe(format!("it {on}; {way_out}")))
}

/// Returns true if an NVMe controller is disabled and has stopped: CC.EN and CSTS.RDY are 0 (NVM Express Base
/// 2.0, 3.1.3.5 and 3.1.3.6). The function must decode memory, and no driver may use its registers.
fn controller_is_stopped(function: &Function) -> anyhow::Result<bool> {
    const CC: usize = 0x14;
    const CSTS: usize = 0x1c;
    let path = function.path.join("resource0");
    let name = path.display().to_string();
    let file =
        OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("opening {name}"))?;
    let registers = Arc::new(Mapping::new(file.as_fd(), 0, 4096, &name)?);
    let read = |offset| Register::<u32>::new(&registers, offset).map(|register| register.read());
    let (cc, csts) = (read(CC), read(CSTS));
    if csts == Some(u32::MAX) {
        bail!("{name}: the controller does not answer");
    }
    // CC is read before CSTS. Reading it last would only notice a user who enables the controller now, and
    // the lock prevents that.
    Ok(cc.zip(csts).is_some_and(|(cc, csts)| (cc | csts) & 1 == 0))
}
