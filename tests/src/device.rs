//! The devices under test.

use crate::{data::Pattern, in_guest, is_ci, leaks::Held, process::Server};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use upcie_core::device;
use upcie_nvme::{Address, Controller, ControllerBuilder, Namespace, queue::QueuePairBuilder};

/// The embedded controller as the suites want it: two formats, all kinds of interrupts, and room.
const EMU: &str = "size=256M,namespaces=2,lba=512+4096,msi=4,intx=true";
/// The same as a process of its own, with tighter limits: fewer vectors than queues above all.
const NVME_EMU: &str =
    "size=256M,namespaces=2,lba=4096+512,mdts=128K,queues=12,depth=1024,vectors=5,msi=2,intx=true,wrr=true";

/// A device under test, for one test: nobody else in this process uses it meanwhile.
#[derive(Debug)]
pub struct Device {
    address: Address,
    server: Option<Server>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Device {
    /// Its address, for [`Controller::open`] or another process.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The process behind it, if it was started for the test.
    pub fn server(&mut self) -> Option<&mut Server> {
        self.server.as_mut()
    }

    /// Brings it up.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn open(&self) -> Controller {
        self.open_with(Controller::builder())
    }

    /// Brings it up with options.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn open_with(&self, options: ControllerBuilder) -> Controller {
        options
            .open(&self.address)
            .unwrap_or_else(|error| panic!("it does not open: {}", crate::chain(&error)))
    }

    /// Opens it without bringing it up.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn transport(&self) -> Arc<dyn device::Device> {
        match &self.address {
            Address::Emulated(text) => {
                upcie_nvme::emu::spawn(&text.parse().expect("options")).expect("it starts")
            }
            other => upcie_core::open(other)
                .unwrap_or_else(|error| panic!("it does not open: {}", crate::chain(&error))),
        }
    }

    /// Notes that the way in lacks `what`, with the error that asking for it gave, for the matrix.
    pub fn lacks(&self, what: &str, refusal: &dyn Error) {
        // The controller's name differs from run to run, and the matrix says which way in it is.
        let reason = crate::chain(refusal).replace(&format!("{}: ", self.address), "");
        // Not by a macro: the harness would keep it to itself when the test passes.
        let line = format!("\nupcie-test: lacks: {what}: {reason}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).expect("standard output");
    }

    /// Returns the number of interrupt vectors for queues. If there is none, or only one, it checks that the
    /// next one is refused, and notes the lack.
    ///
    /// # Panics
    /// Panics if a vector that is not there is given.
    #[track_caller]
    pub fn vectors(&self, controller: &Controller) -> u16 {
        let count = controller.vectors().unwrap_or_else(|error| panic!("{}", crate::chain(&error)));
        if count < 2 {
            let refusal = controller.queue_pair().interrupt(count).create::<()>();
            let refusal = refusal.expect_err("a vector that is not there");
            let what = if count == 0 { "interrupts" } else { "a vector per queue" };
            self.lacks(what, &refusal);
        }
        count
    }

    /// A builder for a queue pair with an interrupt: vector `vector`, or the last one where there are fewer. Without,
    /// where there are none.
    ///
    /// # Panics
    /// Panics like [`vectors`](Self::vectors).
    #[track_caller]
    pub fn queue_pair<'c>(&self, controller: &'c Controller, vector: u16) -> QueuePairBuilder<'c> {
        match self.vectors(controller) {
            0 => controller.queue_pair(),
            count => controller.queue_pair().interrupt(vector.min(count - 1)),
        }
    }
}

/// An embedded controller beside the device under test: somebody else's.
///
/// # Panics
/// Panics if it does not come up.
pub fn another() -> Controller {
    Controller::open("emu:size=16M,serial=OTHER").expect("the embedded controller")
}

/// All namespaces of a controller, with the data that goes into them.
///
/// # Panics
/// Panics if there is none, or one can't be used.
pub fn namespaces(controller: &Controller) -> Vec<(Namespace, Pattern)> {
    let ids = controller.namespaces().expect("a list of namespaces");
    assert!(!ids.is_empty(), "no namespace");
    let all = ids.into_iter().map(|id| {
        let namespace = controller.namespace(id).expect("an active namespace");
        namespace.usable().expect("a namespace for I/O");
        (namespace.clone(), Pattern::of(&namespace))
    });
    all.collect()
}

/// Runs `test` on each device under test, one after the other.
///
/// # Panics
/// Panics if the test does, or a device can't be started.
pub fn on_each_device(test: impl Fn(&mut Device)) {
    for name in names() {
        // Shown if the test fails.
        println!("device under test: {name}");
        let mut device = start(&name);
        // Elsewhere tests run side by side, and each has its own.
        let before = in_guest().then(Held::now);
        test(&mut device);
        assert_eq!(before, in_guest().then(Held::now), "left behind on {name}");
    }
}

fn names() -> Vec<String> {
    let Ok(list) = env::var("UPCIE_TEST_DEVICES") else {
        let mut names = vec!["emu".to_owned()];
        if is_ci() || Server::is_built() {
            names.push("nvme-emu".into());
        } else {
            println!("left out: nvme-emu is not built (cargo build --package upcie-tools)");
        }
        return names;
    };
    let mut names: Vec<String> = Vec::new();
    for piece in list.split(',').filter(|piece| !piece.is_empty()) {
        match names.last_mut() {
            // An address's further options: `emu:size=1G,lba=4096`.
            Some(last) if piece.contains('=') && !piece.contains(':') => *last += &format!(",{piece}"),
            _ => names.push(piece.into()),
        }
    }
    assert!(!names.is_empty(), "UPCIE_TEST_DEVICES names no device");
    names
}

fn start(name: &str) -> Device {
    let parse = |text: &str| text.parse::<Address>().unwrap_or_else(|error| panic!("{error}"));
    match name {
        "emu" => Device { address: parse(&format!("emu:{EMU}")), server: None, _turn: None },
        "nvme-emu" => {
            let server = Server::start(NVME_EMU);
            Device { address: server.address(), server: Some(server), _turn: None }
        }
        other => {
            assert!(!in_guest() || !other.starts_with("emu"), "the guest is for what only it has");
            Device { address: parse(other), server: None, _turn: Some(turn(other)) }
        }
    }
}

/// Locks a resource that exists once.
fn turn(name: &str) -> MutexGuard<'static, ()> {
    static USERS: Mutex<BTreeMap<String, &'static Mutex<()>>> = Mutex::new(BTreeMap::new());
    let user = {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        *users.entry(name.to_owned()).or_insert_with(|| Box::leak(Box::default()))
    };
    user.lock().unwrap_or_else(PoisonError::into_inner)
}
