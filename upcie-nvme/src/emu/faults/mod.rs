//! Faults on purpose: a controller that fails as a plan says, reproducibly. docs/faults.md has the format of a plan's file and
//! a table of the effects.

mod check;
mod injector;
mod plan;
#[cfg(all(test, feature = "fault-files"))]
mod tests;
#[cfg(feature = "fault-files")]
mod text;

pub use injector::Strike;
pub use plan::{Fault, FaultPlan, FaultRule, Watched};

pub(super) use check::{Place, check};
pub(super) use injector::{Effects, Id, Injector, random};
#[cfg(feature = "fault-files")]
pub(super) use text::{load, located};
