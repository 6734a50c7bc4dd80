//! The code of the libraries that crosses threads, under [loom](https://docs.rs/loom): it plays every order of the threads, within a bound
//! of preemptions, and every value that the memory model lets a load return.
//!
//! `build.rs` copies the sources, and breaks some of the copies: the models must find that. The unit tests here are the models. Where
//! a source has too much of a device to be copied, a model writes its steps out, names them, and takes them in a wrong order as well.
#![cfg(test)]
#![allow(missing_docs, missing_debug_implementations, dead_code, unused_imports)]
#![allow(clippy::new_without_default, clippy::arc_with_non_send_sync)]

mod change_models;
mod connection_models;
mod epoch_models;
mod gate_models;
mod heap_models;
mod lane_models;
mod per_process_models;
mod remote_models;
mod reset_models;
mod shim;
mod slot_models;
mod wake_models;

use std::{any::type_name, env, marker::PhantomData, process, time::Duration};

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
copies!(gate, gate_released_silently, gate_left_silently);
copies!(live, live_revived, live_forgetful, live_relaxed, resets, queue_ids);
copies!(
    subsystem,
    subsystem_never_stale,
    subsystem_stale_late,
    subsystem_looks_once,
    subsystem_ends_silently
);
copies!(remote, remote_asleep_late, remote_closed_late);
copies!(remote_left_silently, remote_slot_lost, remote_slot_doubled);

/// Stands for the process that calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner;

impl Owner {
    fn current() -> Self {
        Self
    }

    fn is_current(self) -> bool {
        true
    }

    fn check(self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

/// Stands for upcie-nvme's errors.
#[derive(Debug)]
struct Error;
type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    fn down(_: &str, _: impl Into<String>, _: String) -> Self {
        Self
    }

    fn in_use(_: &str, _: &str, _: String) -> Self {
        Self
    }

    fn pci_error(_: &str, _: impl Into<String>) -> Self {
        Self
    }

    fn argument(_: &str, _: String) -> Self {
        Self
    }
}

/// Stands for the deadline of a call: no time passes in a model.
#[derive(Debug)]
struct Limit<'c>(Duration, PhantomData<&'c ()>);

impl Limit<'_> {
    fn new(whole: Duration) -> Self {
        Self(whole, PhantomData)
    }

    fn whole(&self) -> Duration {
        self.0
    }
}

/// Stands for the windows of a controller's own memory.
#[derive(Debug, Default)]
struct Windows;

/// Stands for the limits of a controller's commands.
#[derive(Debug, Clone, Copy)]
struct CommandLimits;

impl CommandLimits {
    const NONE: Self = Self;
}

/// Locks as `controller/lock.rs` does.
fn lock<T>(mutex: &loom::sync::Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Stands for `upcie_core::events`.
mod events {
    #[derive(Debug)]
    pub struct Hold;

    impl Hold {
        pub fn new() -> Self {
            Self
        }
    }
}

/// Stands for `upcie_nvme::engine`.
mod engine {
    pub(crate) use crate::live::{Epoch, Live, unique};

    /// Memory, by a number.
    #[derive(Debug)]
    pub struct Retired(pub u32);
}

/// Stands for `upcie_nvme::spec`.
mod spec {
    #[derive(Debug)]
    pub struct IdentifyController {
        pub vid: u16,
        pub sn: [u8; 20],
        pub mn: [u8; 40],
        pub subnqn: [u8; 256],
    }

    #[derive(Debug)]
    pub struct IdentifyNamespace {
        pub nsze: u64,
        pub flbas: u8,
        pub dps: u8,
        pub nguid: [u8; 16],
        pub eui64: [u8; 8],
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Csi(u8);

    impl Csi {
        pub const KEY_VALUE: Self = Self(1);
    }

    impl IdentifyNamespace {
        pub fn lba_format(&self) -> Option<LbaFormat> {
            None
        }
    }

    #[derive(Debug)]
    pub struct LbaFormat;

    impl LbaFormat {
        pub fn lbads(&self) -> u8 {
            0
        }

        pub fn ms(&self) -> u16 {
            0
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Status(u16);

    impl Status {
        pub const INVALID_QUEUE_ID: Self = Self(0x101);
    }
}

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

/// Set in the process that plays the model of a broken copy.
const PLAYS: &str = "UPCIE_LOOM_PLAYS";

/// Asserts that a model of a broken copy, a closure of the calling test, fails. That test alone runs again, in a process of its own:
/// loom tells of a deadlock by a panic, and a destructor that needs loom ends the process then.
fn fails<M: Fn() + Send + Sync + 'static>(preemptions: usize, model: M) {
    if env::var_os(PLAYS).is_some() {
        return play(preemptions, model);
    }
    // The crate, the modules, the test, and the closure.
    let name = type_name::<M>();
    let test = name.split_once("::").map_or(name, |(_, path)| path.trim_end_matches("::{{closure}}"));
    let mut again = process::Command::new(env::current_exe().expect("a program has a path"));
    let output = again.args(["--exact", test]).env(PLAYS, "1").output().expect("a program starts twice");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test\n"), "{test} is not the test's name: {text}");
    assert!(!output.status.success(), "the broken copy passes");
}
