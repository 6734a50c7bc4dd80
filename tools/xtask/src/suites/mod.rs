//! The suites of `cargo xtask test`: which of them run where, and the tables of their results.
//!
//! Imports run down this list: `host`, `boot`, `linux` → `run` → `matrix` → `row`; `modes` is data.

pub mod boot;
pub mod host;
pub mod linux;
pub mod matrix;
pub mod modes;
pub mod row;
pub mod run;
