//! The guest lab: a Debian kernel, QEMU with NVMe controllers, and jobs that run in the guest
//! (tests/guest/README.md).
//!
//! Imports run down this list: `prepare`, `shell` → `guest` → `payload` → `qemu` → `run_directory`, `kernel` →
//! `devices`, `install`, `cache`, `initrd`, `debian`. `unpack` is above `install`, `vmm` above `unpack`, and `programs` above
//! `payload`; `vmm`, `fio` and `c_programs` are on a level with `kernel`.

pub mod c_programs;
pub mod cache;
pub mod debian;
pub mod devices;
pub mod fio;
pub mod guest;
mod initrd;
pub mod install;
pub mod kernel;
pub mod payload;
pub mod prepare;
pub mod programs;
pub mod qemu;
pub mod run_directory;
pub mod shell;
mod unpack;
pub mod vmm;
