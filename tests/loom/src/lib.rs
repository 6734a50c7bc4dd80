//! The code of the libraries that crosses threads, under [loom](https://docs.rs/loom): it plays every order of the threads, within a bound
//! of preemptions, and every value that the memory model lets a load return.
//!
//! `build.rs` copies the sources, and breaks some of the copies: the models must find that. The unit tests here are the models.
#![cfg(test)]
#![allow(missing_docs, missing_debug_implementations, dead_code, unused_imports)]
#![allow(clippy::new_without_default, clippy::arc_with_non_send_sync)]

mod per_process_models;
mod remote_models;
mod shim;
mod slot_models;

/// Includes a copy as a module.
macro_rules! copies {
    ($($name:ident),*) => {
        $(
            #[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
            mod $name {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
        )*
    };
}
copies!(slots, slots_without_fence, slots_taken_twice, per_process, per_process_lost);
copies!(remote, remote_asleep_late, remote_closed_late);

/// Stands for the process that calls.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner;

impl Owner {
    fn current() -> Self {
        Self
    }
}

/// Stands for upcie-nvme's errors.
#[derive(Debug)]
struct Error;
type Result<T> = core::result::Result<T, Error>;

/// Stands for `upcie_nvme::async_queue::command`.
mod command {
    use crate::{Error, Result, shim::upcie_core::dma::DmaBuf};

    #[derive(Debug)]
    pub struct Command;

    #[derive(Debug)]
    pub enum Ended {
        Completed,
        Failed(Error),
    }

    impl Ended {
        pub fn into_result(self, _: &str, _: &Command, _: &DmaBuf) -> Result<u64> {
            match self {
                Self::Completed => Ok(0),
                Self::Failed(error) => Err(error),
            }
        }
    }

    pub fn closed_before(_: &str, _: &Command, _: &DmaBuf) -> Error {
        Error
    }
}

/// Plays a model with at most so many preemptions: few suffice for the known faults of orders, and more take hours.
fn play(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Asserts that a model of a broken copy fails.
fn fails(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(preemptions, model)));
    assert!(played.is_err(), "the broken copy passes");
}
