//! Modules that several tools use.
//!
//! Each program has its own folder in `bin/`: `upcie`, `devbind`, `hugepages`, `nvme-emu`. Modules of a
//! single program are there.
#![forbid(unsafe_code)]

pub mod cli;
pub mod input;
pub mod log;
pub mod units;
pub mod usage;
pub mod user;
