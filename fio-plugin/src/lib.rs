//! An ioengine for fio over [`upcie_nvme`].
//!
//! fio loads this library by its path, `--ioengine=external:/…/libupcie_fio.so`, and asks `get_ioengine` for its table of
//! hooks. The table, and every access to a field of fio's structures, is in `shim.c`, compiled against the headers
//! of the fio that will load it; here are the controllers, the queues and the memory. The two share `shim.h`, which
//! `ffi.rs` has too.
//!
//! # Who runs what
//! fio sets all jobs up in its main thread (`entry.rs`: `upcie_job_new`, `upcie_open`), then each job's thread starts
//! it, does I/O and frees it. A job is used by one thread at a time. Jobs share controllers (`controllers.rs`), and nothing
//! else.
//!
//! # The hot path
//! `queue` notes an I/O unit in its slot, `commit` sends all that were noted in one turn for each queue, `getevents` reaps
//! in one turn (`hot.rs`). Neither allocates, locks, or has a panic in it; no panic of the rest crosses into C.

mod address;
mod controllers;
mod entry;
mod errors;
mod ffi;
mod hot;
mod job;
mod memory;
mod target;
mod waiting;
mod workload;
