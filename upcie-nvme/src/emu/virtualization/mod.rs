//! Primary and secondary controllers (Base, "Virtualization Enhancements"): the flexible resources that a primary controller gives
//! its secondary ones, which belong to virtual functions, and the states of these.
//!
//! The controllers of an NVM subsystem share this state. A secondary one compares its own part each time that it has the state
//! (`Machine::follow_primary`), so no controller reaches into another.

mod commands;
mod registry;
mod state;
#[cfg(test)]
mod tests;

pub(super) use registry::Opened;
pub(super) use state::{Granted, Virtualization};
