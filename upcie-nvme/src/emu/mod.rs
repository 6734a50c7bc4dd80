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
//! # Features
//! NVMe 1.4; the NVM command set with Read, Write, Flush, Write Zeroes and Dataset Management; all mandatory
//! admin commands and features; PRPs; MSI-X; MSI and INTx on request (they cost a check of every queue in
//! each round). Not supported: SGLs, metadata, fused operations, Format NVM, namespace management.
//!
//! A file is read and written in place. Data that was not flushed is in the system's cache: a crash of the
//! process loses nothing, a crash of the machine may lose data that was not flushed.

mod admin;
mod arbitration;
mod config;
mod error;
mod features;
mod identify;
mod io;
mod layout;
mod lines;
mod logs;
mod media;
mod msix;
mod options;
mod prp;
mod queue;
mod registers;
mod serve;
mod shared;
pub mod units;

#[cfg(test)]
mod tests;

pub use error::Error;
pub(crate) use options::name;
pub use options::{KEYS, Options};
pub use serve::spawn;

use crate::spec::{ArbitrationMechanism, ShutdownStatus, Status, offset};
use admin::{Admin, Queues};
use arbitration::Arbiter;
use config::{Allowed, ConfigSpace};
use features::Features;
use io::Io;
use layout::{DOORBELLS, MSIX_BAR, REGISTER_BAR};
use lines::InterruptStatus;
use msix::MsixTable;
use nix::errno::Errno;
use queue::{BATCH, Cq, Fault, Sq};
use registers::{Action, Registers};
use shared::{Doorbell, Ring};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};
use upcie_core::{
    irq::IrqKind,
    memory::Memory,
    vfio_user::server::{Backend, CONFIG_REGION, Delivery, Guest, Layout},
};

/// Rounds, with or without work, between two checks of the doorbells of queues that don't exist.
const ROUNDS: u32 = 4096;
const IDLE_ROUNDS: u32 = 256;

/// An NVMe controller, to be served by [`Server`](upcie_core::vfio_user::server::Server).
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
/// use upcie_core::vfio_user::server::{Listener, Server};
/// use upcie_nvme::emu::Emulator;
///
/// let mut controller = Emulator::new(&"size=1G".parse()?)?;
/// let listener = Listener::bind("/run/nvme.sock")?;
/// Server::new().serve(&listener, &mut controller, &AtomicBool::new(false))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Emulator {
    layout: Layout,
    config: ConfigSpace,
    /// The actions that `config` allows.
    allowed: Allowed,
    msix: MsixTable,
    registers: Registers,
    lines: InterruptStatus,
    /// Present while the controller is ready and not shut down.
    queues: Option<Queues>,
    /// Present while the host has chosen weighted round robin.
    arbiter: Option<Arbiter>,
    /// Rounds until the next check of doorbells of queues that don't exist; a round without work counts as
    /// several.
    until_strays: u32,
    /// The causes that were logged of this client: it could repeat them forever.
    said: Vec<&'static str>,
    core: Core,
}

/// The state that commands work on, beside the queues.
#[derive(Debug)]
struct Core {
    options: Options,
    doorbells: Arc<Memory>,
    io: Io,
    features: Features,
    admin: Admin,
    takes_io_queues: bool,
    /// The number of interrupt vectors that a queue may name now.
    vectors: u16,
    /// The identity of the NVM subsystem.
    instance: [u8; 16],
    since: Instant,
}

impl Emulator {
    /// Makes a controller in the state after power-on.
    ///
    /// # Errors
    /// There is not enough memory, or the file can't be used; the error gives the reason.
    pub fn new(options: &Options) -> Result<Self, Error> {
        options.check()?;
        let options = options.clone();
        let (layout, doorbells) = layout::layout(&options)?;
        let core = Core {
            io: Io::new(&options)?,
            features: Features::new(options.namespaces, options.interrupts(), options.queues),
            admin: Admin::default(),
            takes_io_queues: false,
            vectors: 0,
            instance: identify::instance(),
            since: Instant::now(),
            doorbells,
            options,
        };
        let config = ConfigSpace::new(&[0; 6], &core.options);
        let mut emulator = Self {
            allowed: config.allowed(),
            config,
            lines: InterruptStatus::default(),
            msix: MsixTable::new(core.options.vectors),
            registers: Registers::default(),
            queues: None,
            arbiter: None,
            until_strays: ROUNDS,
            said: Vec::new(),
            layout,
            core,
        };
        emulator.power_on();
        Ok(emulator)
    }

    /// Returns the size of each namespace in bytes, from the options or the file.
    pub fn namespace_size(&self) -> u64 {
        self.core.io.namespaces.first().map_or(0, |namespace| namespace.blocks << namespace.shift)
    }

    /// Populates namespaces in memory with all of their pages, and returns the number of bytes (0 if they are
    /// not in memory). A page of 2 MiB takes milliseconds, and otherwise the first command that writes to it
    /// waits for it. Calls `progress` now and then, with the bytes populated so far. Returns early, without
    /// an error, when `stop` becomes true.
    ///
    /// # Errors
    /// [`Error::Shortage`] if there is not as much memory, or no longer; nothing was written to then.
    /// [`Error::Memory`].
    pub fn fill_memory(&mut self, stop: &AtomicBool, progress: &mut dyn FnMut(u64)) -> Result<u64, Error> {
        self.core.io.media.fill(stop, progress)
    }

    /// Puts all written data on stable storage, like a Flush command.
    ///
    /// # Errors
    /// The status that such a command would have.
    pub fn flush(&mut self) -> Result<(), Status> {
        self.core.io.media.flush()
    }

    fn power_on(&mut self) {
        let mut bars = [0; 6];
        for (size, region) in bars.iter_mut().zip(&self.layout.regions) {
            *size = region.size;
        }
        self.config = ConfigSpace::new(&bars, &self.core.options);
        self.allow();
        self.msix = MsixTable::new(self.core.options.vectors);
        self.registers = Registers::new(&self.core.options);
        self.stop();
    }

    /// Notes the actions that configuration space allows now.
    fn allow(&mut self) {
        self.allowed = self.config.allowed();
        let (options, (by_msi, messages)) = (&self.core.options, self.allowed.msi);
        self.core.vectors = match () {
            () if self.allowed.msix != Delivery::Off => options.vectors,
            () if by_msi != Delivery::Off => messages as u16,
            // Not chosen yet.
            () => options.interrupts(),
        };
    }

    /// Stops the queues, and forgets the state that a controller reset clears.
    fn stop(&mut self) {
        self.queues = None;
        self.core.forget();
        for offset in (DOORBELLS as usize..self.core.doorbells.len()).step_by(4) {
            if let Some(doorbell) = Doorbell::new(&self.core.doorbells, offset) {
                doorbell.store(0);
            }
        }
    }

    /// Updates the pin and the messages after a change of acknowledgements, masks or configuration.
    fn update_lines(&mut self, guest: &mut Guest) {
        guest.set_delivery(IrqKind::Msix, self.allowed.msix);
        guest.set_delivery(IrqKind::Msi, self.allowed.msi.0);
        if self.core.options.msi > 0 || self.core.options.intx {
            let (mask, allowed) = (self.registers.mask, &self.allowed);
            let wanted = self.lines.update(self.queues.as_mut(), mask, allowed, guest);
            self.config.set_interrupt_status(wanted && !self.config.uses_messages());
            guest.set_pin(wanted && self.allowed.pin);
        }
    }

    fn act(&mut self, guest: &mut Guest, action: Action) {
        match action {
            Action::Enable => {
                if !self.allowed.dma {
                    tracing::warn!(
                        "the controller is enabled with bus master off (or not in D0): it fetches no command before that \
                         is on"
                    );
                }
                let ready = match self.registers.unfit() {
                    Some(reason) => {
                        if self.is_new(reason) {
                            tracing::warn!(reason, "the controller can't be enabled");
                        }
                        false
                    }
                    None => self.start(guest).is_ok(),
                };
                self.registers.csts.set_rdy(ready);
                self.registers.csts.set_cfs(!ready);
            }
            Action::Disable => {
                self.stop();
                self.registers.disable();
            }
            Action::Shutdown => {
                self.queues = None;
                let flushed = self.core.io.media.flush().is_ok();
                self.registers.csts.set_cfs(!flushed);
                self.registers.csts.set_shst(ShutdownStatus::COMPLETE);
            }
        }
    }

    /// Makes the admin queues.
    fn start(&mut self, guest: &mut Guest) -> Result<(), Status> {
        let registers = &self.registers;
        self.core.io.page = registers.cc.page_size();
        let sq_entries = u32::from(registers.aqa.asqs()) + 1;
        let cq_entries = u32::from(registers.aqa.acqs()) + 1;
        let (sq_ring, cq_ring) =
            (Ring::new(guest, registers.asq, sq_entries), Ring::new(guest, registers.acq, cq_entries));
        let admin_sq = Sq::new(0, 0, sq_entries, sq_ring, self.core.doorbell(0, false)?, false);
        let admin_cq = Cq::new(0, cq_entries, cq_ring, self.core.doorbell(0, true)?, Some(0));
        let cqs = (0..=self.core.options.queues).map(|_| None).collect();
        let sqs = Vec::with_capacity(self.core.options.queues.into());
        self.arbiter = (registers.cc.ams() == ArbitrationMechanism::WEIGHTED).then(Arbiter::default);
        self.queues = Some(Queues { admin_sq, admin_cq, sqs, cqs });
        Ok(())
    }

    /// Returns `true` if the log does not have this cause of this client yet.
    fn is_new(&mut self, cause: &'static str) -> bool {
        let is_new = !self.said.contains(&cause);
        if is_new {
            self.said.push(cause);
        }
        is_new
    }

    /// Handles a client that broke a rule in a way that no completion can report.
    #[cold]
    fn fatal(&mut self, fault: Fault) {
        if self.is_new("a queue's memory") {
            tracing::error!(?fault, "a queue's memory can't be accessed: fatal status");
        }
        self.queues = None;
        self.registers.csts.set_cfs(true);
    }
}

impl Backend for Emulator {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, guest: &mut Guest, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        match region {
            REGISTER_BAR if offset < DOORBELLS => self.registers.read(offset, data),
            REGISTER_BAR => {
                // The specification does not define reads of doorbells: return the value written last.
                for (at, part) in (offset as usize..).step_by(4).zip(data.chunks_mut(4)) {
                    let value = Doorbell::new(&self.core.doorbells, at).map_or(0, |doorbell| doorbell.load());
                    part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
                }
            }
            CONFIG_REGION => {
                // The interrupt status must be current: a doorbell may have been written since the last
                // round.
                self.update_lines(guest);
                self.config.read(offset, data);
            }
            bar if bar == MSIX_BAR.into() => self.msix.read(guest, offset, data),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn write(&mut self, guest: &mut Guest, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        match region {
            REGISTER_BAR if offset % 4 == 0 && data.len() % 4 == 0 => {
                for (at, part) in (offset as usize..).step_by(4).zip(data.chunks_exact(4)) {
                    let value = u32::from_le_bytes([part[0], part[1], part[2], part[3]]);
                    if at >= DOORBELLS as usize {
                        if let Some(doorbell) = Doorbell::new(&self.core.doorbells, at) {
                            doorbell.store(value);
                        }
                        // At once: an unmasking in the next message must see the pin as this write leaves it.
                        self.update_lines(guest);
                    } else {
                        let action = self.registers.write(at, value);
                        self.core.takes_io_queues = self.registers.takes_io_queues();
                        if let Some(action) = action {
                            self.act(guest, action);
                        }
                        // After each write: a vector that is masked and unmasked again reports its entries.
                        if matches!(at, offset::INTMS | offset::INTMC) {
                            self.update_lines(guest);
                        }
                    }
                }
            }
            // Registers take whole dwords.
            REGISTER_BAR => tracing::debug!(offset, len = data.len(), "ignored a write of odd size or place"),
            CONFIG_REGION => {
                if self.config.write(offset, data) {
                    self.power_on();
                }
                self.allow();
                self.update_lines(guest);
            }
            bar if bar == MSIX_BAR.into() => self.msix.write(guest, offset, data),
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn poll(&mut self, guest: &mut Guest) -> usize {
        // Acknowledgements that came before must count before new entries are posted.
        self.update_lines(guest);
        // Commands stay in the rings while the function may not read memory.
        let work = if self.allowed.dma { self.serve(guest) } else { 0 };
        match self.until_strays.checked_sub(if work == 0 { ROUNDS / IDLE_ROUNDS } else { 1 }) {
            Some(rounds) => self.until_strays = rounds,
            None => self.look_for_strays(),
        }
        self.update_lines(guest);
        work
    }

    fn update_interrupts(&mut self, guest: &mut Guest) {
        self.update_lines(guest);
    }

    fn reset(&mut self) {
        self.core.io.media.sum_up();
        self.said.clear();
        self.power_on();
    }
}

impl Emulator {
    #[cold]
    fn look_for_strays(&mut self) {
        self.until_strays = ROUNDS;
        let found = self.queues.as_ref().is_some_and(|queues| self.core.look_for_strays(queues));
        if found && self.is_new("a doorbell of no queue") {
            tracing::warn!(
                "the doorbell of a queue that does not exist was written: reported to the host, and ignored"
            );
        }
    }

    /// Runs one round over all queues; returns the amount of work done.
    fn serve(&mut self, guest: &mut Guest) -> usize {
        let Some(queues) = &mut self.queues else { return 0 };
        let core = &mut self.core;
        let mut work = match core.poll_admin(queues, guest) {
            Ok(work) => work,
            Err(fault) => {
                self.fatal(fault);
                return 0;
            }
        };
        if let Some(arbiter) = &mut self.arbiter {
            return match arbiter.round(core, queues, guest) {
                Ok(served) => work + served,
                Err(fault) => {
                    self.fatal(fault);
                    work
                }
            };
        }
        let latency = core.options.latency;
        for sq in &mut queues.sqs {
            let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { continue };
            match queue::serve_by(sq, cq, &mut core.io, guest, latency, BATCH) {
                Ok(served) => work += served,
                Err(Fault::Doorbell) => core.doorbell_fault(),
                Err(fault) => {
                    self.fatal(fault);
                    return work;
                }
            }
        }
        work
    }
}
