//! Asynchronous queues: commands as futures, for any runtime.
//!
//! An [`AsyncQueue`] owns a [queue pair](crate::QueuePair). Its commands are futures of a result and a buffer:
//! `queue.read(&namespace, slba, buffer).await`. Any number of tasks of one thread use clones of the queue, without a lock;
//! tasks of other threads use an [`AsyncHandle`].
//!
//! The library knows no runtime. A *driver* keeps the queue going, as one more task: it reaps completions, wakes the tasks that
//! wait for them, and submits what they have asked for meanwhile, with one doorbell for all. Each queue needs one:
//!
//! | driver | waits by | costs |
//! |---|---|---|
//! | [`drive`](AsyncQueue::drive) | the queue's interrupt, through any reactor | some system calls for each sleep |
//! | [`drive_polled`](AsyncQueue::drive_polled) | polling, between the other tasks | a whole core while commands are in flight |
//! | [`progress`](AsyncQueue::progress), with [`hold`](AsyncQueue::hold) | the program's own hook or loop | what the program makes of it |
//!
//! Without a driver each task polls for itself, which works and is slow.
//!
//! ```
//! # use upcie_nvme::Controller;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let controller = Controller::open("emu:size=1M")?;
//! let namespace = controller.namespace(1)?;
//! let queue = controller.queue_pair().depth(32).create_async()?;
//! let tasks = async {
//!     let (result, buffer) = queue.write(&namespace, 8, controller.alloc(4096)?).await;
//!     result?;
//!     let (first, second) = tokio::join!(
//!         queue.read(&namespace, 8, buffer),
//!         queue.read(&namespace, 16, controller.alloc(4096)?),
//!     );
//!     first.0.and(second.0)?;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! };
//! tokio::select! {
//!     done = tasks => done?,
//!     ended = queue.drive_polled() => ended?,
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Reactors
//! [`drive`](AsyncQueue::drive) gives its closure an owned descriptor. With tokio:
//! ```
//! # use std::task::Context;
//! # use tokio::io::unix::AsyncFd;
//! # use upcie_nvme::Controller;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let controller = Controller::open("emu:size=1M")?;
//! # let namespace = controller.namespace(1)?;
//! let queue = controller.queue_pair().interrupt(1).create_async()?;
//! let driver = queue.drive(|fd| {
//!     // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and the closure keeps it.
//!     let fd = unsafe { AsyncFd::register(fd) }?;
//!     Ok(move |cx: &mut Context<'_>| fd.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready()))
//! })?;
//! # tokio::select! { done = queue.flush(&namespace) => done.0?, ended = driver => ended? }
//! # Ok(())
//! # }
//! ```
//! With async-io, and so with smol:
//! ```
//! # use smol::Async;
//! # use std::task::Context;
//! # use upcie_nvme::Controller;
//! # let controller = Controller::open("emu:size=1M")?;
//! # let namespace = controller.namespace(1)?;
//! # let queue = controller.queue_pair().interrupt(1).create_async()?;
//! let driver = queue.drive(|fd| {
//!     let fd = Async::new_nonblocking(fd)?;
//!     Ok(move |cx: &mut Context<'_>| fd.poll_readable(cx))
//! })?;
//! # let flush = async { queue.flush(&namespace).await.0 };
//! # smol::block_on(smol::future::or(flush, driver))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Commands
//! Besides reads, writes, [Flush](AsyncQueue::flush), [Write Zeroes](AsyncQueue::write_zeroes) and
//! [deallocation](AsyncQueue::deallocate):
//! [`submit`](AsyncQueue::submit) takes options, placement and protection of an [`Io`](crate::Io),
//! [`submit_with_metadata`](AsyncQueue::submit_with_metadata) metadata apart from the data,
//! [`append`](AsyncQueue::append) returns the block that a zone has written,
//! [`submit_key`](AsyncQueue::submit_key) has the commands of keys and values,
//! [`compare`](AsyncQueue::compare), [`verify`](AsyncQueue::verify), [`write_uncorrectable`](AsyncQueue::write_uncorrectable) and
//! [`copy`](AsyncQueue::copy) ([placed](AsyncQueue::copy_placed), [checked](AsyncQueue::copy_protected)) are the optional commands
//! of blocks, and [`compare_and_write`](AsyncQueue::compare_and_write) is two commands as one future.
//!
//! [`manage_zones`](AsyncQueue::manage_zones) and [`report_zones`](AsyncQueue::report_zones) are for zones,
//! [`submit_reservation`](AsyncQueue::submit_reservation) has the commands of reservations,
//! [`handle_status`](AsyncQueue::handle_status) and [`update_handles`](AsyncQueue::update_handles) are for reclaim units, and
//! [`cancel`](AsyncQueue::cancel) ends what is in flight.
//!
//! # Order, room and memory
//! Commands are submitted in the order of their futures' first polls. As many are in flight as the queue pair has room for; the
//! others wait. The memory that a program has in flight is that of its futures, so a bound on them is its back-pressure.
//! Nothing is allocated for a command: the table of commands grows only when more wait at once than ever before.
//!
//! # Cancellation
//! A future may be dropped at any time, by a timeout, say. A command that was not sent yet is not sent, and its buffer is freed at
//! once. One that is in flight may still be executed; its slot and its buffer stay with the queue until the device is done with
//! them. The buffer is freed then. Dropping the last clone of the queue and its last future closes the queue pair.
//!
//! # Failures
//! Each future gets an error of its own:
//! - The controller's status, or the [refusal](crate::Refusal) of a command that does not fit.
//! - [`Failure::Reset`](crate::Failure::Reset) for a command that was in flight when the controller was
//!   [reset](crate::Controller::reset): it is not known whether it was executed. The queue recovers by itself; commands that
//!   waited are submitted then.
//! - [`Failure::Overdue`](crate::Failure::Overdue) with [`OnTimeout::Report`](crate::queue::OnTimeout::Report); the buffer stays
//!   with the queue as after a cancellation.
//! - The reason why the controller is gone, down or at fault: for all commands, and all later ones. The driver ends with it.

#![forbid(unsafe_code)]

mod command;
mod copies;
mod describe;
mod descriptor;
mod drive;
#[cfg(test)]
mod fork_tests;
mod handle;
mod inner;
mod management;
mod optional;
mod outcome;
mod pair;
mod queue;
mod remote;
mod seat;
mod shared;
mod submission;
mod table;

pub use drive::{Drive, DrivePolled};
pub use handle::{AsyncHandle, RemoteSubmission};
pub use queue::{AsyncQueue, Hold};
pub use submission::Submission;
