//! The transitions of CC and CSTS, each within the time that the controller states for it (Base, "Controller
//! Configuration", "Controller Status" and "Memory-based Controller Shutdown").
//!
//! - CC.EN 1 → 0 while CSTS.RDY is 0 is undefined: RDY = 1 or CFS is waited for first, as long as becoming ready may take.
//! - CC.EN 0 → 1 while CSTS.RDY is 1 is undefined: RDY = 0 is waited for first, within CAP.TO.
//! - Clearing CC.EN while CSTS.SHST is 1 (shutdown processing) aborts or prolongs the shutdown: its end is waited for.
//! - CC.SHN is set only while CSTS.RDY is 1 and neither CFS nor SHST is: elsewhere there is nothing to shut down, or it
//!   has no defined effect. After a shutdown only a reset (CC.EN 1 → 0) brings the controller back, and after one of the
//!   whole subsystem (CSTS.ST) not even that.
//! - CC.CSS, MPS and AMS change only with CC.EN 0 → 1; AQA, ASQ and ACQ are written while CC.EN and CSTS.RDY are 0.
//! - Becoming ready takes CRTO.CRWMT at most where CAP.CRMS bit 0 is 1 (CC.CRIME is never set), CAP.TO elsewhere; stopping
//!   takes CAP.TO; a shutdown takes RTD3E. Each is given 5 s at least (10 s for a shutdown), 300 s at most.
//! - CSTS.NSSRO is left as it is: clearing it takes from others what it tells.
//!
//! A transition that takes too long is logged where the driver can go on: it tries a late reset all the same.

use super::{Link, Properties, Registers};
use crate::{
    Error, Failure, Result,
    spec::{ArbitrationMechanism, Configuration, ShutdownNotification, ShutdownStatus},
};
use std::time::Duration;
use upcie_core::{
    clock::Clock,
    deadline::{Backoff, Stopwatch},
    events::emit,
};

/// A shutdown may take longer than becoming ready: caches are written back.
const SHUTDOWN_MIN: Duration = Duration::from_secs(10);
/// RTD3E can state more than an hour.
const SHUTDOWN_MAX: Duration = Duration::from_secs(300);

/// Waits until CC.EN can be changed, clears it, and waits until the controller has stopped.
pub(super) fn disable(registers: &Registers, name: &str) -> Result<()> {
    let cc = registers.configuration()?;
    settle(registers, name, cc.en())?;
    reset(registers, name, cc)
}

/// Returns the longest time that [`disable`] takes, and the wait after a reset of the function.
pub(super) fn disable_patience(registers: &Registers) -> Result<Duration> {
    Ok(settle_patience(registers)? + 2 * (registers.quirks().ready_delay + registers.patience()))
}

/// Waits until the last step of a former user has had its effect: it may have been killed between any two of
/// its steps.
fn settle(registers: &Registers, name: &str, enabled: bool) -> Result<()> {
    let operation = "waiting for an enable or a shutdown of its last user (CSTS.RDY, CSTS.SHST)";
    let settled = wait(registers.clock(), settle_patience(registers)?, name, operation, || {
        let status = registers.status()?;
        Ok(status.cfs()
            || match status.shst() {
                ShutdownStatus::NORMAL => !enabled || status.rdy(),
                status => status != ShutdownStatus::OCCURRING,
            })
    });
    match settled {
        Err(error) if matches!(error.failure(), Failure::Timeout { .. }) => {
            tracing::warn!(device = name, %error, "resetting it anyway");
            Ok(())
        }
        other => other,
    }
}

fn settle_patience(registers: &Registers) -> Result<Duration> {
    Ok(registers.ready_patience()?.max(SHUTDOWN_MIN))
}

/// Clears CC.EN and waits for CSTS.RDY = 0.
fn reset(registers: &Registers, name: &str, cc: Configuration) -> Result<()> {
    if cc.en() {
        registers.configure(cc.with_en(false).with_shn(ShutdownNotification::NONE))?;
        rest(registers);
    }
    stopped(registers, name, "waiting for the controller to stop (CSTS.RDY = 0)")
}

/// Leaves the controller alone for the time that some need before their registers are read.
pub(super) fn rest(registers: &Registers) {
    let (clock, delay) = (registers.clock(), registers.quirks().ready_delay);
    let start = clock.now();
    // A sleep may end early.
    loop {
        let left = delay.saturating_sub(clock.now().saturating_sub(start));
        if left.is_zero() {
            return;
        }
        clock.sleep(left);
    }
}

/// Waits for CSTS.RDY = 0.
pub(super) fn stopped(registers: &Registers, name: &str, operation: &str) -> Result<()> {
    wait(registers.clock(), registers.patience(), name, operation, || Ok(!registers.status()?.rdy()))
}

/// Waits until `done`, which reads registers, is true.
pub(super) fn wait(
    clock: &dyn Clock,
    after: Duration,
    device: &str,
    operation: &str,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = clock.now();
    let mut backoff = Backoff::new(Stopwatch::of(clock), after);
    loop {
        if done()? {
            let (device, operation, took) =
                (device.to_owned(), operation.to_owned(), clock.now().saturating_sub(start));
            emit(move || tracing::debug!(device, after = ?took, limit = ?after, "{operation}: done"));
            return Ok(());
        }
        if !backoff.pause() {
            return Err(Error::timeout(device, operation, after));
        }
    }
}

/// Enables the controller and waits until it is ready.
pub(super) fn enable(link: &Link, properties: &Properties) -> Result<()> {
    let registers = &link.registers;
    let status = registers.status()?;
    if registers.capabilities().nsss() && status.st() && status.shst() != ShutdownStatus::NORMAL {
        return Err(Error::unsupported(
            link.name.to_string(),
            "its NVM subsystem was shut down (CSTS.ST = 1): only a subsystem reset or a power cycle brings it back",
        ));
    }
    let arbitration = match link.options.arbitration {
        Some(_) => ArbitrationMechanism::WEIGHTED,
        None => ArbitrationMechanism::ROUND_ROBIN,
    };
    let cc = Configuration::new()
        .with_css(properties.command_set)
        .with_mps((properties.page_shift - 12) as u8)
        .with_ams(arbitration)
        .with_shn(ShutdownNotification::NONE)
        // Entries of 2^6 and 2^4 bytes.
        .with_iosqes(6)
        .with_iocqes(4)
        .with_en(true);
    registers.configure(cc)?;
    let operation = "waiting for the controller to become ready (CSTS.RDY = 1)";
    wait(link.clock(), registers.ready_patience()?, &link.name, operation, || {
        let status = registers.status()?;
        if status.cfs() {
            return Err(Error::fatal(link.name.to_string(), operation));
        }
        Ok(status.rdy())
    })
}

/// Shuts the controller down, within `shutdown`, and disables it. `Ok` means that it touches memory no more.
pub(super) fn stop(registers: &Registers, name: &str, shutdown: Duration) -> Result<()> {
    let cc = registers.configuration()?;
    let status = registers.status()?;
    // `enable` has already waited for a controller that is not ready; it has nothing to write back.
    if cc.en() && status.rdy() && !status.cfs() {
        if status.shst() == ShutdownStatus::NORMAL {
            registers.configure(cc.with_shn(ShutdownNotification::NORMAL))?;
        }
        let operation = "waiting for the shutdown (CSTS.SHST)";
        let shut = wait(registers.clock(), shutdown, name, operation, || {
            let status = registers.status()?;
            Ok(status.cfs() || status.shst() == ShutdownStatus::COMPLETE)
        });
        match shut {
            Err(error) if matches!(error.failure(), Failure::Timeout { .. }) => {
                tracing::warn!(device = name, %error, "disabling it anyway");
            }
            shut => shut?,
        }
    }
    reset(registers, name, cc)
}

/// Returns the time that a shutdown may take: RTD3E, which is in microseconds.
pub(super) fn shutdown_patience(registers: &Registers, rtd3e: u32) -> Duration {
    let stated = Duration::from_micros(rtd3e.into());
    stated.min(SHUTDOWN_MAX).max(registers.patience()).max(SHUTDOWN_MIN)
}

/// Returns the longest time that [`stop`] takes, and the wait after a reset of the function.
pub(super) fn stop_patience(registers: &Registers, shutdown: Duration) -> Duration {
    shutdown + 2 * (registers.quirks().ready_delay + registers.patience())
}
