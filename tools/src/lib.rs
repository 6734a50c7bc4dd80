//! Modules that several tools use.
//!
//! Each program has its own folder in `bin/`: `upcie`, `devbind`, `hugepages`, `nvme-emu`. Modules of a
//! single program are there.
#![deny(unsafe_code)]

pub mod cli;
pub mod input;
pub mod log;
#[expect(unsafe_code, reason = "it runs before Rust's own code")]
pub mod stdio;
pub mod units;
pub mod usage;
pub mod user;
