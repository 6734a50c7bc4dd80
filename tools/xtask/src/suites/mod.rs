//! The suites of `cargo xtask test`: where each runs, and the tables of results.
//!
//! Imports run down this list: `host`, `boot`, `linux`, `nightly` → `run` → `matrix` → `row`; `modes` is data.

pub mod boot;
pub mod host;
pub mod linux;
pub mod matrix;
pub mod modes;
pub mod nightly;
pub mod row;
pub mod run;
