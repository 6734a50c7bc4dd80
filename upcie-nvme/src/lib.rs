//! A fast, minimal, memory-safe user-space NVMe driver, with an embedded controller to test against.

pub mod spec;
