//! A simulated clock that drives an embedded controller in the caller's thread.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::clock::Clock;
use upcie_nvme::{Controller, ControllerBuilder, emu::Lockstep};

/// Code of a test that runs in the thread that waits. By default it does nothing.
pub trait Hooks: Send + Sync + 'static {
    /// Runs before the driver reads the time.
    fn before_now(&self, device: &Lockstep) {
        let _ = device;
    }

    /// Runs before time passes in a sleep.
    fn before_sleep(&self) {}

    /// Runs after the controller's step in a sleep.
    fn after_step(&self) {}
}

impl Hooks for () {}

/// Time that passes only in `sleep`, where the controller takes its steps.
pub struct Stepping<H = ()> {
    /// The controller.
    pub device: Arc<Lockstep>,
    /// The test's hooks.
    pub hooks: H,
    now: AtomicU64,
}

impl<H: Hooks> Stepping<H> {
    /// Makes a controller of these options with a clock of its own.
    ///
    /// # Panics
    /// Panics if the controller can't be made.
    pub fn new(options: &str, hooks: H) -> Arc<Self> {
        let device = Lockstep::new(&options.parse().expect("options")).expect("a controller");
        Arc::new(Self { device, hooks, now: AtomicU64::new(0) })
    }

    /// Brings the controller up by its clock.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn open(self: &Arc<Self>, builder: ControllerBuilder) -> Controller {
        builder.clock(self.clone()).from_device(self.device.clone()).expect("a controller that comes up")
    }
}

impl<H> Stepping<H> {
    fn time(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }
}

impl<H> fmt::Debug for Stepping<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated time {:?}", self.time())
    }
}

impl<H: Hooks> Clock for Stepping<H> {
    fn now(&self) -> Duration {
        self.hooks.before_now(&self.device);
        self.time()
    }

    fn sleep(&self, time: Duration) {
        self.hooks.before_sleep();
        self.now.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        self.device.step(self.time());
        self.hooks.after_step();
    }

    fn runs(&self) -> bool {
        false
    }
}
