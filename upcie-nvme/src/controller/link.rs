//! The way to a controller: its name, its registers, and the process that drives it.

use super::{ControllerBuilder, Limit, Registers, shared_look::SharedLook};
use crate::{Error, Result, engine::Live};
use std::sync::Arc;
use upcie_core::{
    clock::Clock,
    gate::{Gate, Pass},
};

/// The name, registers, liveness and options of a controller, which all its parts use.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) name: Arc<str>,
    pub(super) registers: Registers,
    pub(super) live: Arc<Live>,
    pub(super) options: ControllerBuilder,
    pub(super) look: SharedLook,
}

impl Link {
    /// Returns `true` in a forked child: the controller is its parent's.
    pub(super) fn is_inherited(&self) -> bool {
        !self.live.owner().is_current()
    }

    /// Refuses `operation` in a forked child: before any lock is taken, which a thread that was not forked along
    /// may hold, and before anything reaches the device.
    pub(super) fn check_owner(&self, operation: &str) -> Result<()> {
        self.live.check_owner(&self.name, operation)
    }

    /// Returns the clock of all waits for the controller.
    pub(super) fn clock(&self) -> &dyn Clock {
        self.registers.clock()
    }

    /// Enters `gate` for `operation`, within `limit`. `whose` names what the thread inside does.
    pub(super) fn enter<'g, T>(
        &self,
        gate: &'g Gate<T>,
        limit: &Limit<'_>,
        operation: impl FnOnce() -> String,
        whose: &str,
    ) -> Result<Pass<'g, T>> {
        limit.enter(gate).ok_or_else(|| {
            Error::timeout(
                self.name.to_string(),
                format!("{}: waiting for {whose} of other threads", operation()),
                limit.whole(),
            )
        })
    }
}
