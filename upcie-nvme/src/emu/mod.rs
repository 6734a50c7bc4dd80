//! An NVMe controller in software, behind a vfio-user socket: for every machine without one, for tests and benches.
//!
//! [`spawn`] runs one in this process; the `nvme-emu` program serves one on a socket path, to any vfio-user
//! client. [`Options`], the `key=value,…` of an address, configure it:
//!
//! ```no_run
//! let controller = upcie_nvme::Controller::open("emu:size=64M,lba=4096,namespaces=2")?;
//! # Ok::<(), upcie_nvme::Error>(())
//! ```
//!
//! The controller is a separate party even in the driver's process: it maps the driver's memory a second
//! time, by file descriptor, accesses it by raw pointer, and copies each entry once before it checks it.
//!
//! # Speed
//! Doorbells are memory that one thread polls. No command allocates, locks or reads the clock; completions
//! are posted by the cache line. After 200 µs without work the thread naps, at first for 10 µs, then for up
//! to 100 µs: the first doorbell after a pause may wait that long. With `null=true` no data is moved, and a
//! command's data pointer is checked only as far as that needs no read of a PRP list.
//!
//! A step of the controller processes 4 MiB over all queues, and one command more at most; the next step goes on with the queue
//! behind. Commands that may name more than that (Verify, Write Zeroes, Dataset Management, Copy, Zone Management Send, transfers
//! with a large `mdts=`) are carried out in pieces, and the queue's next commands wait for the last one. The rest of such a command
//! is kept in memory that it allocates. Format NVM, the deletion of a namespace and Sanitize erase the medium piece by piece beside
//! all queues; Identify Namespace (FPI) and the Sanitize Status log (SPROG) have the progress. A reset in the middle of a Format
//! leaves a namespace that is not ready until it is formatted again or deleted; the others go on.
//!
//! # Features
//! NVMe 1.4, or 2.1 (`version=2.1`); the NVM command set with Read, Write, Flush, Write Zeroes, Dataset Management, Compare, Verify, Write Uncorrectable
//! and Copy; the zoned command set (`zoned=true`); flexible data placement (`fdp=true`); the key value command set (`kv=true`),
//! whose pairs are in memory, each counted as 64 bytes and its value; all mandatory admin commands and features; PRPs, and SGLs
//! with bit buckets; MSI-X; MSI and INTx on request (they cost a check of every queue in each round). Optional admin commands:
//! Format NVM (512 and 4096 bytes, with metadata or without), namespace management and attachment within the medium and `nn=`,
//! Sanitize, Device Self-test, firmware slots (an image is data that begins with a revision of 8 ASCII characters), boot
//! partitions on request (whose image is any data; both are locked at first), Keep Alive. A Sanitize takes 200 ms at least and a
//! short self-test 300 ms, for progress to be seen; namespaces and formats that a host has made last as long as the controller,
//! also with a file. Compare and Write as a fused operation. Write protection of namespaces (feature 84h). With `ana=` the
//! controller reports the state of its path to the namespaces (Asymmetric Namespace Access), which its command C0h changes.
//!
//! # Identity
//! The NQN of the NVM subsystem and the identifiers of the namespaces (EUI64, NGUID, UUID) are the same each time for a file of one
//! path and one serial number; files with the same `serial=` are of one NVM subsystem. Memory is a new subsystem each time; its
//! namespaces have the same identifiers each time with a `serial=`, and new ones without. A namespace that a host makes has its own. The OUI in them is locally administered.
//!
//! # Controller memory buffer
//! With `cmb=` BAR 2 is memory that a host maps, for submission and completion queues, PRP and scatter gather lists, and data
//! (CMBSZ has all five). A host gives it an address (CMBMSC), at which the controller then finds it in place of the host's memory.
//! A queue, or the data of a command and its metadata, that is in both gets Invalid Use of Controller Memory Buffer; lists may be
//! anywhere. Contents and address outlast a controller reset and a function level reset; each other reset takes the address away,
//! and a loss of power zeroes the contents. Each client of a server gets memory of its own.
//!
//! # Persistent memory region
//! With `pmr=` BAR 5 is memory that a host maps, for data (PMRCAP.RDS and WDS) at the address that PMRMSCL and PMRMSCU
//! give it while it is enabled (PMRCTL.EN); it is ready at once. Data that is partly in it gets Invalid Use of
//! Controller Memory Buffer, too. Contents and registers outlast a controller reset and a function level reset; each
//! other reset clears the registers. The contents outlast everything but a Sanitize, which is refused while the region
//! is enabled. They are in memory, also with `file=`: they last as long as the controller. Each client of a server gets
//! memory of its own, with the contents that the last one left.
//!
//! # Doorbell buffers
//! With `dbbuf=true` the controller takes tails and heads from a shadow doorbell buffer (Doorbell Buffer Config), for all queues
//! that there are and those created later. It polls that buffer while it has work, and a while longer; then it sets the event
//! indices so that the host rings. A queue whose shadow doorbell the host leaves alone is served by its doorbell.
//!
//! # Reservations
//! All six types, on each namespace. A host is its Host Identifier (feature 81h), which it sets once after a reset; with
//! another one it is another host. Registrations outlast resets, and in memory a loss of power (PTPL); that of a host without
//! an identifier ends with the next reset. Preempt and Abort finds no command to abort: each is carried out as it is fetched, and
//! one in pieces is checked again before each piece.
//!
//! # Several controllers
//! [`spawn_subsystem`], [`Emulator::subsystem`] and `nvme-emu` with several sockets make controllers of one NVM subsystem, which
//! share its namespaces with their zones, keys and reservations, the flexible data placement of its endurance group, and its boot
//! partitions. These have neither Format NVM, namespace management, Sanitize nor NVM subsystem reset (CAP.NSSRS is 0), which the
//! hosts of the other controllers would not expect. They take turns, in the order in which they ask, and none waits for a host in
//! its turn: memory that a client maps without a descriptor, which is accessed by messages, is refused.
//!
//! # Virtual functions
//! With `vfs=N` the first of N+1 such controllers is a primary one, and the others are its secondary ones: offline, until Virtualization
//! Management gives them queue pairs and vectors and turns them on. Each reset of the primary controller turns them off (Base,
//! "Secondary Controller States and Resource Configuration"). [`spawn`] opens secondary controller K by `vf=K` and the `serial=` of
//! a primary one that is open. An offline controller's registers are 0 but for CSTS.CFS. There is no SR-IOV capability.
//!
//! # Metadata
//! Formats have 8, 16 or 64 bytes of metadata per block, at the end of each block or in a buffer of its own, and protection
//! information of types 1 to 3 with 16-, 32- and 64-bit guards and storage tags (`ms=`, `pi=`, …, or Format NVM). Metadata is
//! kept behind the data of its namespace, so the same bytes of `size=` have fewer blocks; a file keeps it, too. Blocks that
//! were never written or were deallocated have protection information that is not checked (all bits set).
//!
//! A file is read and written in place. Data that was not flushed is in the system's cache: a crash of the
//! process loses nothing, a crash of the machine may lose data that was not flushed. Once a flush has failed, each later one and
//! each write that has to be durable fails, too, until the file is opened again: the system reports lost data once.
//!
//! # Driving it
//! [`Machine`] is the controller as a state machine: [`Machine::step`] serves its queues over the host's memory
//! ([`HostMemory`]) and a medium ([`Media`]), at a time that the caller gives. It has no thread, clock or socket.
//! [`Emulator`] drives one for a vfio-user server, by the system's clock; [`Lockstep`] is one as a device in the
//! caller's own thread, for tests and simulations.

mod actions;
mod admin;
mod allocation;
mod arbitration;
mod boot;
mod boot_feature;
mod cancel;
mod changed_zones;
mod changes;
mod checks;
mod collect;
mod config;
mod data;
mod data_features;
mod doorbell_buffers;
mod emulator;
mod erasing;
mod erasure;
mod error;
mod events;
mod failing;
mod faults;
mod features;
mod firmware;
mod flight;
mod flipped;
mod formats;
mod fused;
mod guard;
mod host;
mod host_buffer;
mod host_data;
mod identify;
mod identity;
mod io;
mod key_value;
mod keys;
mod layout;
mod limits;
mod lines;
mod lockstep;
mod log_pages;
mod logs;
mod machine;
mod manage;
mod marks;
mod media;
mod metadata;
mod msix;
mod namespace;
mod optional;
mod options;
mod own_memory;
mod paths;
mod pieces;
mod placement;
mod power;
mod prp;
mod queue;
mod queue_commands;
mod queues;
mod region;
mod registers;
mod reservations;
mod rest;
mod sanitize;
mod self_test;
mod serve;
mod service;
mod sgl;
mod shared;
mod staged;
mod state;
mod subsystem;
mod telemetry;
mod turns;
mod uncommon;
pub mod units;
mod vendor;
mod virtualization;
mod write_protection;
mod zones;

#[cfg(test)]
mod tests;

pub use actions::Action;
pub use data::Sgls;
pub use emulator::Emulator;
pub use error::Error;
pub use faults::{Fault, FaultPlan, FaultRule, Strike, Watched};
pub use host::{Host, HostMemory, Interrupts};
pub use keys::KEYS;
pub use lockstep::Lockstep;
pub use machine::Machine;
pub use media::{Cached, Media, Storage};
pub(crate) use options::name;
pub use options::{AtomicOptions, FunctionOptions, KeyOptions, Options, PlacementOptions, ZoneOptions};
pub use region::Region;
pub use serve::{spawn, spawn_subsystem, spawn_with_faults};
