//! Modules that several of the tools use.
//!
//! Each program has a folder of its own in `bin/`: `upcie`, `devbind`, `hugepages`, `nvme-emu`. A module that one program
//! uses stands there.
#![forbid(unsafe_code)]

pub mod cli;
pub mod log;
pub mod units;
pub mod usage;
pub mod user;
