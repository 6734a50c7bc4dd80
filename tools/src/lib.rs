//! What the tools share.
#![forbid(unsafe_code)]

pub mod cli;
pub mod log;
pub mod units;
pub mod usage;
pub mod user;
