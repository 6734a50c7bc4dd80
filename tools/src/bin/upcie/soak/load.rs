//! The load of a run: threads, and commands in flight, as many as the controller has room for.

use super::SoakArgs;
use crate::units;
use std::fmt;
use upcie_nvme::Controller;

/// Threads, and commands in flight of each, if the arguments name none and the controller has as many.
const WISHED: Load = Load { threads: 2, depth: 32 };

/// Threads, each with a queue pair, and the most commands in flight of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub threads: usize,
    pub depth: u32,
}

/// The reason why a controller can't have the load. Opening it again changes nothing.
#[derive(Debug)]
pub struct Unfit(String);

impl std::error::Error for Unfit {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Load {
    /// Returns what the arguments wish, whatever the controller.
    pub fn of(args: &SoakArgs) -> Self {
        Self { threads: args.threads.unwrap_or(WISHED.threads), depth: args.depth.unwrap_or(WISHED.depth) }
    }

    /// Returns the load for a controller that takes I/O: what the arguments don't name is fitted to it.
    ///
    /// # Errors
    /// It has less than the arguments name.
    pub fn fit(args: &SoakArgs, controller: &Controller) -> Result<Self, Unfit> {
        let (pairs, most) = limits(controller);
        let load = Self {
            threads: args.threads.unwrap_or(WISHED.threads.min(pairs)),
            depth: args.depth.unwrap_or(WISHED.depth.min(most)),
        };
        load.check(controller).map(|()| load)
    }

    /// Checks that a controller can have this load.
    pub fn check(self, controller: &Controller) -> Result<(), Unfit> {
        let (Self { threads, depth }, (pairs, most)) = (self, limits(controller));
        let name = controller.name();
        if threads > pairs {
            return Err(Unfit(format!(
                "{name}: --threads {threads}: each needs a queue pair, and the device granted {pairs}"
            )));
        }
        if depth > most {
            return Err(Unfit(format!(
                "{name}: --depth {depth}: the device takes at most {} in a queue",
                units::number(most.into(), "command")
            )));
        }
        Ok(())
    }
}

/// Returns the queue pairs of a controller, and the most commands in flight of each.
fn limits(controller: &Controller) -> (usize, u32) {
    (controller.max_queue_pairs().into(), controller.max_depth() - 1)
}
