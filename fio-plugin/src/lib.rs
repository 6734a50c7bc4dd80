//! An ioengine for fio over [`upcie_nvme`].
//!
//! fio loads this library by its path, `--ioengine=external:/…/libupcie_fio.so`, and calls `get_ioengine` for its table
//! of hooks. `shim.c` contains the table and the hot path, `setup.c` the other hooks, `options.c` the options: every access
//! to a field of fio's structures. They are compiled against the headers of the fio that will load the library. The
//! controllers, the queues and the memory are in Rust. Both sides share `shim.h`, whose contents `ffi.rs` repeats.
//!
//! # Threads
//! fio sets all jobs up in its main thread (`entry.rs`: `upcie_job_new`, `upcie_open`). Then each job's thread starts the
//! job, does its I/O and frees it. One thread at a time uses a job. Jobs share only controllers (`controllers.rs`).
//!
//! # The hot path
//! `queue` records an I/O unit in its slot, `commit` submits all recorded units in one turn for each queue, and
//! `getevents` reaps in one turn (`hot.rs`). None of them allocates, locks, or has a panic; panics of other code are
//! caught before they reach C.
//!
//! Jobs with metadata, protection information or other commands have no plain queue, and their units take another path
//! (`custom.rs`), which the hot one looks for only where it finds no queue. So do jobs whose writes have a directive.

mod address;
mod controllers;
mod custom;
mod entry;
mod errors;
mod ffi;
mod form;
mod hot;
mod job;
mod memory;
mod metadata;
mod options;
mod placement;
mod reports;
mod target;
mod timeouts;
mod waiting;
mod workload;
mod zones;
