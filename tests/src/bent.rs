//! The embedded controller behind a socket, with faults that a test turns on and off.

use crate::{deadline, process::Directory};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};
use upcie_core::{
    device::Address,
    vfio_user::server::{Backend, Client, Layout, Listener, Server},
};
use upcie_nvme::emu::{Emulator, FaultPlan};

/// The offset of CSTS. A test sets bits of it.
const CSTS: u64 = 0x1c;
/// CSTS.CFS.
pub const FATAL: u32 = 1 << 1;

/// The faults of a [`Bent`] controller.
#[derive(Debug, Default)]
pub struct Faults {
    hangs: AtomicBool,
    /// The controller's thread has seen the request to hang.
    hung: AtomicBool,
    /// Bits that are set in CSTS beside the real ones.
    status: AtomicU32,
    /// The number of reads of CSTS.
    looks: AtomicU32,
    resets: AtomicBool,
    closes: AtomicBool,
}

/// A fault of a controller: its name, the call that causes it, and a part of the expected error.
pub type Fault = (&'static str, fn(&Bent), &'static str);

/// The faults that end a controller's use.
pub const FAULTS: [Fault; 4] = [
    ("fatal status", |bent| bent.faults.set_status(FATAL), "CSTS.CFS"),
    ("removal", |bent| bent.faults.set_status(u32::MAX), "all ones"),
    ("reset by another", |bent| bent.faults.reset(), "CSTS.RDY is 0"),
    ("closed connection", |bent| bent.faults.close(), "gone"),
];

impl Faults {
    /// Makes the controller ignore its doorbells while `hangs` is `true`: it answers commands late, once
    /// `hangs` is `false`. Its registers still work. The controller must have a client.
    ///
    /// # Panics
    /// Panics if the controller's thread does not notice within the deadline.
    pub fn hang(&self, hangs: bool) {
        self.hung.store(false, Ordering::Relaxed);
        self.hangs.store(hangs, Ordering::Release);
        let end = Instant::now() + deadline();
        // The round of polling that is under way still serves commands: wait for the next one.
        while hangs && !self.hung.load(Ordering::Acquire) {
            assert!(Instant::now() < end, "the controller's thread does not run, or it has no client");
            thread::yield_now();
        }
    }

    /// Sets these bits in each read of CSTS: [`FATAL`], or all of them, as if the device were gone.
    pub fn set_status(&self, bits: u32) {
        self.status.store(bits, Ordering::Relaxed);
    }

    /// Returns the number of reads of CSTS so far.
    pub fn looks(&self) -> u32 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Resets the controller, as another host would: CSTS.RDY is 0, and its queues are gone.
    pub fn reset(&self) {
        self.resets.store(true, Ordering::Relaxed);
    }

    /// Closes the connection.
    pub fn close(&self) {
        self.closes.store(true, Ordering::Release);
    }
}

/// A controller with faults, in a thread of this process, behind a socket.
#[derive(Debug)]
pub struct Bent {
    /// The faults of this controller.
    pub faults: Arc<Faults>,
    directory: Directory,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bent {
    /// Starts a controller with the embedded controller's options, and without faults.
    ///
    /// # Panics
    /// Panics if it can't be started.
    pub fn start(options: &str) -> Self {
        Self::planned(options, &FaultPlan::default())
    }

    /// Starts a controller that also has the faults of a plan.
    ///
    /// # Panics
    /// Panics if it can't be started.
    pub fn planned(options: &str, plan: &FaultPlan) -> Self {
        let directory = Directory::new();
        let listener = Listener::bind(directory.path().join("socket")).expect("a socket");
        let mut emulator = Emulator::new(&options.parse().expect("options")).expect("an emulator");
        if *plan != FaultPlan::default() {
            emulator.inject(plan).expect("a plan that fits");
        }
        let (faults, stop) = (Arc::new(Faults::default()), Arc::new(AtomicBool::new(false)));
        let mut device = Device { emulator, faults: faults.clone() };
        let (serving, ended) = (faults.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                // Serves one client after the other; `closes` ends the session of one.
                if let Err(error) = Server::new().serve_one(&listener, &mut device, &serving.closes) {
                    println!("bent controller: {error}");
                }
                serving.closes.swap(false, Ordering::AcqRel);
            }
        });
        Self { faults, directory, stop, thread: Some(thread) }
    }

    /// Returns the controller's address.
    pub fn address(&self) -> Address {
        Address::VfioUser(self.directory.path().join("socket"))
    }
}

impl Drop for Bent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.faults.close();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the controller's thread panicked");
        }
    }
}

struct Device {
    emulator: Emulator,
    faults: Arc<Faults>,
}

impl Backend for Device {
    fn layout(&self) -> &Layout {
        self.emulator.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        self.emulator.read(client, region, offset, data)?;
        if (region, offset, data.len()) == (0, CSTS, 4) {
            self.faults.looks.fetch_add(1, Ordering::Relaxed);
            let bits = self.faults.status.load(Ordering::Relaxed).to_le_bytes();
            data.iter_mut().zip(bits).for_each(|(byte, set)| *byte |= set);
        }
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.emulator.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        if self.faults.resets.swap(false, Ordering::Relaxed) {
            self.emulator.reset();
        }
        if self.faults.hangs.load(Ordering::Acquire) {
            self.faults.hung.store(true, Ordering::Release);
            return 0;
        }
        self.emulator.poll(client)
    }

    fn reset(&mut self) {
        self.emulator.reset();
    }
}
