//! What the tools share.
#![forbid(unsafe_code)]

pub mod cli;
pub mod units;
pub mod usage;
