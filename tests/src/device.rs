//! The devices under test.

use crate::{data::Pattern, in_guest, is_ci, leaks::Held, process::Server};
use std::{
    collections::BTreeMap,
    env,
    error::Error,
    io::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use upcie_core::{Chain, device};
use upcie_nvme::{Address, Controller, ControllerBuilder, Namespace, queue::QueuePairBuilder};

/// Options of the embedded controller: two formats, all kinds of interrupts, and enough space.
const EMU: &str = "size=256M,namespaces=2,lba=512+4096,msi=4,intx=true,hmb=8M,cmb=16M,pmr=4M";
/// Options of `nvme-emu`: tighter limits, above all fewer vectors than queues.
const NVME_EMU: &str = "size=256M,namespaces=2,lba=4096+512,mdts=128K,queues=12,depth=1024,vectors=5,msi=2,intx=true,wrr=true,hmb=1M,cmb=1M,pmr=4M";

/// A device under test, for one test: no other test of this process uses it at the same time.
#[derive(Debug)]
pub struct Device {
    address: Address,
    server: Option<Server>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Device {
    /// Returns the address, for [`Controller::open`] or another process.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the process of the device, if it was started for the test.
    pub fn server(&mut self) -> Option<&mut Server> {
        self.server.as_mut()
    }

    /// Brings the controller up.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn open(&self) -> Controller {
        self.open_with(Controller::builder())
    }

    /// Brings the controller up with options.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn open_with(&self, options: ControllerBuilder) -> Controller {
        options.open(&self.address).expect("it does not open")
    }

    /// Opens the device without bringing the controller up.
    ///
    /// # Panics
    /// Panics if that fails.
    #[track_caller]
    pub fn transport(&self) -> Arc<dyn device::Device> {
        match &self.address {
            Address::Emulated(options) => upcie_nvme::emu::spawn(options).expect("it starts"),
            Address::Device(address) => upcie_core::open(address).expect("it does not open"),
            other => panic!("{other}"),
        }
    }

    /// Notes for the matrix that the transport lacks `what`, with the error of the attempt.
    pub fn lacks(&self, what: &str, refusal: &dyn Error) {
        // The address differs from run to run, and the matrix names the transport anyway.
        let reason = Chain(refusal).to_string().replace(&format!("{}: ", self.address), "");
        // Not by a macro: the harness would capture the line of a test that passes.
        let line = format!("\nupcie-test: lacks: {what}: {reason}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).expect("standard output");
    }

    /// Returns the number of interrupt vectors for queues. If the device has none or one, checks that the
    /// next one is refused, and notes the lack.
    ///
    /// # Panics
    /// Panics if a vector that the device does not have is given.
    #[track_caller]
    pub fn vectors(&self, controller: &Controller) -> u16 {
        let count = controller.vectors().unwrap();
        if count < 2 {
            let refusal = controller.queue_pair().interrupt(count).create::<()>();
            let refusal = refusal.expect_err("a vector that is not there");
            let what = if count == 0 { "interrupts" } else { "a vector per queue" };
            self.lacks(what, &refusal);
        }
        count
    }

    /// Makes a builder for a queue pair with the interrupt `vector`, or with the last vector if the device
    /// has fewer, or without an interrupt if it has none.
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

/// Opens an embedded controller beside the device under test, as another user's.
///
/// # Panics
/// Panics if it does not come up.
pub fn another() -> Controller {
    Controller::open("emu:size=16M,serial=OTHER").expect("the embedded controller")
}

/// Returns all namespaces of a controller, each with the pattern of its data.
///
/// # Panics
/// Panics if there is none, or one can't be used.
pub fn namespaces(controller: &Controller) -> Vec<(Namespace, Pattern)> {
    let ids = controller.namespace_ids().expect("a list of namespaces");
    assert!(!ids.is_empty(), "no namespace");
    let all = ids.into_iter().map(|id| {
        let namespace = controller.namespace(id).expect("an active namespace");
        namespace.check_usable().expect("a namespace for I/O");
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
        // The harness shows this line if the test fails.
        println!("device under test: {name}");
        let mut device = start(&name);
        // Outside of the guest, tests run side by side in one process, and a count would see the resources of
        // others.
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
            // A further option of the address before it, as in `emu:size=1G,lba=4096`.
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
            Device { address: server.address().into(), server: Some(server), _turn: None }
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
