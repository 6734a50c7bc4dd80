//! A controller in the caller's thread.

mod local;
mod wiring;

use super::{
    Action, FaultPlan, Machine, Media, Options, Region, Storage,
    faults::{Place, Strike},
    layout::REGISTER_BAR,
    msix::MSIX_BAR,
    name,
    own_memory::{CMB_BAR, PMR_BAR},
};
use local::Local;
use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use upcie_core::{
    Error, Result,
    device::Device,
    dma::{DmaSpace, Mapper},
    irq::IrqKind,
    memory::Memory,
    mmio::{Area, Bar, Caching, Mapping, RegionIo},
};

/// The device addresses: page 0 stays free.
const ADDRESSES: std::ops::RangeInclusive<u64> = 0x1000..=(1 << 47) - 1;
const PAGE: u64 = 4096;

/// An embedded controller as a device in the caller's own thread, without a server: it makes progress in
/// [`step`](Self::step) only, at the time that the caller gives.
///
/// A register access is a call into the controller, which answers at once; doorbells are plain memory, which the next step
/// looks at; data is copied from and to the driver's own memory. With one thread and a simulated clock
/// ([`ControllerBuilder::clock`](crate::ControllerBuilder::clock)), whose `sleep` takes the steps, two runs are the same.
///
/// # Examples
/// ```
/// use std::{
///     sync::{Arc, atomic::{AtomicU64, Ordering}},
///     time::Duration,
/// };
/// use upcie_nvme::{Controller, emu::Lockstep, upcie_core::clock::Clock};
///
/// /// Time that passes only in `sleep`, where the controller takes its steps.
/// #[derive(Debug)]
/// struct Simulated(AtomicU64, Arc<Lockstep>);
///
/// impl Clock for Simulated {
///     fn now(&self) -> Duration {
///         Duration::from_nanos(self.0.load(Ordering::Relaxed))
///     }
///     fn sleep(&self, time: Duration) {
///         self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
///         self.1.step(self.now());
///     }
///     fn runs(&self) -> bool {
///         false
///     }
/// }
///
/// let device = Lockstep::new(&"size=1M".parse()?)?;
/// let clock = Arc::new(Simulated(AtomicU64::new(0), device.clone()));
/// let controller = Controller::builder().clock(clock).from_device(device)?;
/// let namespace = controller.namespace(1)?;
/// namespace.write_at(0, b"deterministic")?;
/// let mut back = [0; 13];
/// namespace.read_at(0, &mut back)?;
/// assert_eq!(&back, b"deterministic");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lockstep<M: Media + 'static = Storage> {
    name: String,
    state: Arc<Mutex<State<M>>>,
    dma: Arc<DmaSpace>,
}

/// The controller and its view of the host.
#[derive(Debug)]
struct State<M> {
    machine: Machine<M>,
    host: Local,
}

impl Lockstep {
    /// Makes a controller with the medium that the options describe.
    ///
    /// # Errors
    /// There is not enough memory, or the file can't be used; the error gives the reason.
    pub fn new(options: &Options) -> crate::Result<Arc<Self>> {
        let mut machine = Machine::new(options)?;
        machine.inject_file(options, Place::Lockstep)?;
        Ok(Self::over(machine, name(options))?)
    }
}

impl<M: Media + 'static> Lockstep<M> {
    /// Makes a device of a controller; `name` is for messages.
    ///
    /// # Errors
    /// The system's errors.
    pub fn over(machine: Machine<M>, name: impl Into<String>) -> Result<Arc<Self>> {
        let name = name.into();
        let host = Local::new(&machine.layout().irqs);
        let state = Arc::new(Mutex::new(State { machine, host }));
        let dma = DmaSpace::new(name.clone(), [ADDRESSES], PAGE, Box::new(Ranges(state.clone())));
        if lock(&state).machine.writes_late() {
            dma.distrust();
        }
        lock(&state).turn_on();
        Ok(Arc::new(Self { name, state, dma }))
    }

    /// Lets the controller serve its queues once, at `now`, the time since its power-on; returns the amount of work
    /// done, as [`Machine::step`] counts it.
    pub fn step(&self, now: Duration) -> usize {
        let State { machine, host } = &mut *self.state();
        machine.step(host, || now)
    }

    /// Returns the actions that the controller could take next, at `now`: for a caller that decides their order by
    /// [`act`](Self::act), in place of [`step`](Self::step).
    pub fn actions(&self, now: Duration) -> Vec<Action> {
        let State { machine, host } = &mut *self.state();
        machine.look_at_shadow_doorbells(host);
        machine.actions(now)
    }

    /// Takes one of the [actions](Self::actions). Nothing happens if it is not possible any more.
    pub fn act(&self, action: Action, now: Duration) {
        let State { machine, host } = &mut *self.state();
        machine.act_once(host, action, now);
    }

    /// Returns the faults of the plan that have struck since the last call, in order: the last 64 of them.
    pub fn take_strikes(&self) -> Vec<Strike> {
        self.state().machine.take_strikes()
    }

    /// Returns the number of memory ranges that are mapped for the controller.
    pub fn mapped_ranges(&self) -> usize {
        self.state().host.mapped()
    }

    /// Lets the controller fail as `plan` says, from now on. A plan that [writes late](super::Fault::writes_late) has to be there before
    /// the driver: [`Machine::with_faults`].
    ///
    /// # Errors
    /// A rule can't work here, or the medium can't have the plan's cache; the error gives the reason.
    pub fn inject(&self, plan: &FaultPlan) -> crate::Result<()> {
        Ok(self.state().machine.inject(plan, Place::Driven)?)
    }

    /// Cuts the power: the medium loses what it had not flushed, as `random` decides, and the controller is in the state
    /// after power-on.
    pub fn lose_power(&self, random: &mut dyn FnMut() -> u64) {
        let mut state = self.state();
        state.machine.lose_power(random);
        state.turn_on();
    }

    /// Returns the time at which the next completion that `latency=` holds back is due, if there is one.
    pub fn next_due(&self) -> Option<Duration> {
        self.state().machine.next_due()
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        lock(&self.state)
    }
}

/// Locks `state` even if it is poisoned: a panic in a step leaves a controller that goes on.
fn lock<M>(state: &Mutex<State<M>>) -> MutexGuard<'_, State<M>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Media> fmt::Debug for Lockstep<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockstep").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The memory that the driver has mapped for the controller.
struct Ranges<M>(Arc<Mutex<State<M>>>);

impl<M> fmt::Debug for Ranges<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ranges")
    }
}

// SAFETY: the controller reaches at `iova` the bytes of `memory` and no others (`Local`); a step holds the lock, so once
// `unmap` has it and has removed the range, no step reaches them.
unsafe impl<M: Media> Mapper for Ranges<M> {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        // SAFETY: the address space keeps the memory until `unmap` has returned.
        unsafe { lock(&self.0).host.map(iova, memory) };
        Ok(())
    }

    fn unmap(&self, iova: u64, _len: u64) -> Result<()> {
        lock(&self.0).host.unmap(iova);
        Ok(())
    }
}

/// Access to a region by a call.
struct Call<M> {
    name: String,
    state: Arc<Mutex<State<M>>>,
    region: Region,
    size: u64,
}

impl<M> Call<M> {
    fn check(&self, operation: &str, offset: u64, len: usize) -> Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::out_of_range(&*self.name, operation, offset, len as u64, self.size)),
        }
    }
}

// SAFETY: a call reaches this region of the controller and no memory of this process except the data.
unsafe impl<M: Media> RegionIo for Call<M> {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        self.check("reading a region", offset, data.len())?;
        let State { machine, host } = &mut *lock(&self.state);
        machine.read(host, self.region, offset, data);
        Ok(())
    }

    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check("writing a region", offset, data.len())?;
        let State { machine, host } = &mut *lock(&self.state);
        machine.write(host, self.region, offset, data);
        Ok(())
    }
}

impl<M: Media + 'static> Lockstep<M> {
    fn call(&self, region: Region, size: u64) -> Call<M> {
        Call { name: self.name.clone(), state: self.state.clone(), region, size }
    }

    fn config(&self) -> Call<M> {
        self.call(Region::Config, super::config::SIZE as u64)
    }
}

// SAFETY: the controller reaches memory through `Local`, which has what `Ranges` was given; a BAR's areas are the memory of
// its doorbells, or its own memory. It acts in calls of this value only, so a reset is complete when the call returns,
// and after the last handle is dropped nothing acts. Each value is a device of its own.
unsafe impl<M: Media + 'static> Device for Lockstep<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.dma
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.config().read(offset.into(), data)
    }

    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        // SAFETY: the caller of `config_write` owes what a write of the region requires.
        unsafe { self.config().write(offset.into(), data) }
    }

    fn bar(&self, index: u8) -> Result<Bar> {
        let layout = match index {
            0..6 => self.state().machine.layout().regions[usize::from(index)].clone(),
            _ => Default::default(),
        };
        let region = match u32::from(index) {
            REGISTER_BAR => Region::Registers,
            bar if bar == CMB_BAR.into() && layout.size > 0 => Region::ControllerMemory,
            bar if bar == MSIX_BAR.into() && layout.size > 0 => Region::MsixTable,
            bar if bar == PMR_BAR.into() && layout.size > 0 => Region::PersistentMemory,
            _ => {
                return Err(Error::not_found(&*self.name, format!("there is no BAR {index}")));
            }
        };
        let mut areas = Vec::new();
        if let Some(mappable) = &layout.mappable {
            for &(offset, len) in &mappable.areas {
                let Some(file) = mappable.memory.shared_file() else { continue };
                let mapping = Mapping::new(file, offset, len as usize, &self.name)?;
                areas.push(Area { offset, mapping: Arc::new(mapping) });
            }
        }
        let call = Arc::new(self.call(region, layout.size));
        let bar = Bar::new(format!("{} BAR {index}", self.name), layout.size, areas, call);
        Ok(bar.with_caching(Caching::WriteBack))
    }

    fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        Ok(self.state().host.irqs.count(kind))
    }

    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.state().set_irqs(&self.name, kind, fds)
    }

    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()> {
        let State { machine, host } = &mut *self.state();
        machine.update_interrupts(host);
        let done = host.irqs.mask(kind, index, masked);
        done.map_err(|errno| Error::os(&*self.name, format!("masking {kind} interrupts"), errno))
    }

    unsafe fn reset(&self) -> Result<()> {
        let mut state = self.state();
        state.machine.reset();
        state.turn_on();
        Ok(())
    }
}
