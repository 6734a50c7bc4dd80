//! The guest lab: a Debian kernel, QEMU with NVMe controllers, and jobs that run in them (tests/guest/README.md).

pub mod debian;
pub mod fio;
pub mod guest;
mod initrd;
pub mod install;
pub mod kernel;
pub mod qemu;
mod shell;
pub mod vmm;
