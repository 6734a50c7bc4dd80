//! A controller behind a vfio-user server, by the system's clock.

use super::{
    Error, FaultPlan, Machine, Options, Region, Storage,
    faults::Place,
    identity,
    layout::REGISTER_BAR,
    msix::MSIX_BAR,
    own_memory::{CMB_BAR, PMR_BAR},
    subsystem::Subsystem,
};
use crate::spec::Status;
use nix::errno::Errno;
use std::{sync::atomic::AtomicBool, time::Instant};
use upcie_core::{
    irq::IrqKind,
    vfio_user::server::{Backend, CONFIG_REGION, Client, Layout},
};

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
    machine: Machine,
    since: Instant,
    /// Bytes of each namespace.
    size: u64,
    /// Present if there are other controllers.
    subsystem: Option<Subsystem>,
}

impl Emulator {
    /// Makes a controller in the state after power-on.
    ///
    /// # Errors
    /// There is not enough memory, or the file can't be used; the error gives the reason.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let mut machine = Machine::new(options)?;
        machine.inject_file(options, Place::Server)?;
        let (subsystem, namespaces) = identity::of_medium(options);
        machine.set_identities(subsystem, namespaces);
        let size = machine.namespace_size();
        Ok(Self { machine, since: Instant::now(), size, subsystem: None })
    }

    /// Makes `count` controllers of one NVM subsystem, which share its namespaces with all that is stored in them, flexible data
    /// placement and boot partitions, with the identifiers from 1 on. Each is served on a thread of its own: the commands that one
    /// carries out in a call are one step for the others.
    ///
    /// With `vfs=` the first one is a primary controller, and the others are its secondary ones, in the order of their virtual
    /// functions.
    ///
    /// They have neither Format NVM, namespace management, Sanitize nor NVM subsystem reset (NSSR). Memory that a client maps
    /// without a descriptor is refused (`ENOTSUP`), because the clients of the other controllers would wait for its messages.
    ///
    /// ```
    /// use upcie_nvme::emu::Emulator;
    /// let controllers = Emulator::subsystem(&"size=1M".parse()?, 2)?;
    /// assert_eq!(controllers.len(), 2);
    /// # Ok::<(), upcie_nvme::emu::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`Error::Option`] for several controllers with a fault plan (`faults=`), and for another number
    /// of controllers than `vfs=` makes.
    pub fn subsystem(options: &Options, count: u16) -> Result<Vec<Self>, Error> {
        if let Some(faults) = options.faults.as_ref().filter(|_| count > 1) {
            let reason = "it can't go with several controllers".into();
            return Err(Error::Option { option: format!("faults={}", faults.display()), reason });
        }
        let functions = options.functions.count;
        if functions > 0 && count != functions.saturating_add(1) {
            let reason = format!(
                "a primary controller and {functions} secondary ones need a socket or device each, and there are {count}"
            );
            return Err(Error::Option { option: format!("vfs={functions}"), reason });
        }
        let mut first = Self::new(options)?;
        if count < 2 {
            return Ok(vec![first]);
        }
        let (subsystem, namespaces) = (first.machine.core.subsystem, first.machine.core.identity);
        let (size, theirs) = (first.size, options.of_another());
        let shared = Subsystem::of(&mut first.machine);
        let mut all = Vec::new();
        for number in 2..=count {
            let mut machine = Machine::with_media(&theirs, Storage::nothing(), size)?;
            machine.set_identities(subsystem, namespaces);
            let subsystem = Some(shared.another());
            all.push((number, Self { machine, since: first.since, size, subsystem }));
        }
        first.subsystem = Some(shared);
        all.insert(0, (1, first));
        let joined = all.into_iter().map(|(number, mut one)| {
            let core = &mut one.machine.core;
            (core.io.controller, core.controllers) = (number, count);
            if functions > 0 {
                core.options.functions.number = number - 1;
            }
            // A step has the shared state: the hosts of the others would wait for the answers of this one's.
            one.machine.layout.mapped_memory_only = true;
            one.with_shared_state(Machine::reset);
            one
        });
        Ok(joined.collect())
    }

    /// Calls `call` with the machine, which has all of its state meanwhile.
    #[inline(always)]
    fn with_shared_state<R>(&mut self, call: impl FnOnce(&mut Machine) -> R) -> R {
        match &mut self.subsystem {
            None => call(&mut self.machine),
            Some(subsystem) => subsystem.lend(&mut self.machine, call),
        }
    }

    /// Returns the size of each namespace in bytes, from the options or the file.
    pub fn namespace_size(&self) -> u64 {
        self.size
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
        self.with_shared_state(|machine| machine.media().fill(stop, progress))
    }

    /// Populates namespaces in memory if the options say so.
    pub(super) fn populate(&mut self, options: &Options) -> Result<(), Error> {
        if options.populate == Some(true) {
            self.fill_memory(&AtomicBool::new(false), &mut |_| {})?;
        }
        Ok(())
    }

    /// Lets the controller fail as `plan` says, from now on. A driver must not trust one that
    /// [writes late](super::Fault::writes_late) ([`untrusted_device`](crate::ControllerBuilder::untrusted_device)).
    ///
    /// # Errors
    /// [`Error::FaultRule`]: a rule can't work. [`Error::FaultCache`]: the medium can't have a cache.
    pub fn inject(&mut self, plan: &FaultPlan) -> Result<(), Error> {
        self.with_shared_state(|machine| machine.inject(plan, Place::Server))
    }

    /// Puts all written data on stable storage, like a Flush command.
    ///
    /// # Errors
    /// The status that such a command would have.
    pub fn flush(&mut self) -> Result<(), Status> {
        self.with_shared_state(|machine| super::Media::flush(machine.media()))
    }

    /// Returns `true` if a rule of its plan [writes late](super::Fault::writes_late).
    pub(super) fn writes_late(&self) -> bool {
        self.machine.writes_late()
    }

    /// Offers no request interrupt: the device is never requested back.
    pub(super) fn without_request(&mut self) {
        self.machine.layout.irqs[IrqKind::Request as usize] = 0;
    }
}

/// Returns the part of the function behind a region of vfio-user.
fn part(region: u32) -> Result<Region, Errno> {
    match region {
        REGISTER_BAR => Ok(Region::Registers),
        CONFIG_REGION => Ok(Region::Config),
        bar if bar == CMB_BAR.into() => Ok(Region::ControllerMemory),
        bar if bar == MSIX_BAR.into() => Ok(Region::MsixTable),
        bar if bar == PMR_BAR.into() => Ok(Region::PersistentMemory),
        _ => Err(Errno::EINVAL),
    }
}

impl Backend for Emulator {
    fn begin_session(&mut self) -> std::io::Result<()> {
        self.with_shared_state(Machine::renew_memory).map_err(std::io::Error::other)
    }

    fn layout(&self) -> &Layout {
        self.machine.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        let part = part(region)?;
        self.with_shared_state(|machine| machine.read(client, part, offset, data));
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let part = part(region)?;
        self.with_shared_state(|machine| machine.write(client, part, offset, data));
        Ok(())
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        let since = self.since;
        let work = self.with_shared_state(|machine| machine.step(client, || since.elapsed()));
        if self.machine.must_disconnect() {
            client.disconnect();
        }
        work
    }

    fn update_interrupts(&mut self, client: &mut Client) {
        self.with_shared_state(|machine| machine.update_interrupts(client));
    }

    fn reset(&mut self) {
        self.with_shared_state(Machine::reset);
    }
}
