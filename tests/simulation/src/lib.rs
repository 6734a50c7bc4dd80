//! Simulation: the driver, the embedded controller and time in one thread. A seed decides the order in which each side gets
//! to run, how long things take, which faults come, and when the power goes.
//!
//! [`Case::generate`] makes a case from a seed, [`run`] plays it and checks its properties after every step, and
//! [`shrink`] makes a failing case small. docs/simulation.md has the properties and how to replay a seed.
#![deny(unsafe_code)]

mod case;
mod ledger;
mod model;
mod run;
mod shrink;
mod stamp;
mod world;

pub use case::{Case, Class, GENERATOR, Op};
pub use run::{Outcome, run};
pub use shrink::shrink;
