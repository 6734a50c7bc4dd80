//! The suites of `cargo xtask test`: where each runs, and the tables of results.
//!
//! Imports run down this list: `host`, `boot`, `linux` → `run` → `matrix` → `row`; `modes` is data.

pub mod boot;
pub mod host;
pub mod linux;
pub mod matrix;
pub mod modes;
pub mod row;
pub mod run;
