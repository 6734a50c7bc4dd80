//! The suites of `cargo xtask test`: which of them run where, and the tables of their results.

pub mod boot;
pub mod linux;
pub mod matrix;
pub mod modes;
pub mod row;
