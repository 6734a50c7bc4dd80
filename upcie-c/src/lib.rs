//! `libupcie`: the C interface of the driver. `include/upcie.h` has the calls and their rules; the functions here are
//! that header's, in the same order.
//!
//! # Shape
//! - [`handles`]: a handle is a tagged number. One load and one compare find NULL, closed and foreign ones, and,
//!   since the table's pages are not inherited by a forked child, those of a parent process.
//! - [`heap`]: memory files, mapped once for the program and once for each address space of the heap's controllers.
//!   [`translation`] has a table by address for each space: a pointer's device address is three loads away.
//! - [`queue`]: a queue pair with a turn that stays open, so that submissions and completions touch no more than the
//!   rings, a slot and a record of the command's memory.

// The interface is documented in the header, and a C caller owes the same for all calls: valid pointers.
#![allow(clippy::missing_safety_doc)]

mod abi;
mod blocks;
mod controller;
mod errors;
mod files;
mod flight;
mod guard;
mod handles;
mod heap;
mod held;
mod lists;
mod pieces;
mod queue;
mod station;
mod translation;

mod calls;

pub use abi::{Completion, QueueOpts, Request};
pub use calls::*;
