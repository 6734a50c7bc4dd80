//! PCI functions: their addresses, and what sysfs and configuration space say of them.

mod bdf;

pub use bdf::Bdf;
