//! The controller as a state machine.

use super::{
    Error, Host, Media, Options, Region, Storage,
    arbitration::Arbiter,
    config::{Allowed, ConfigSpace},
    doorbell_buffers::DoorbellBuffers,
    io::Io,
    layout::{self, DOORBELLS},
    lines::InterruptStatus,
    msix::MsixTable,
    own_memory::OwnMemory,
    queue::Fault,
    queues::Queues,
    registers::Registers,
    service::{BATCH, Round, STEP_BYTES},
    shared::Doorbell,
    state::Core,
};
use crate::spec::offset;
use nix::errno::Errno;
use std::time::Duration;
use upcie_core::{irq::IrqKind, vfio_user::server::Layout};

/// Rounds, with or without work, between two checks of the doorbells of queues that don't exist.
const ROUNDS: u32 = 4096;
const IDLE_ROUNDS: u32 = 256;

/// An NVMe controller as a state machine, without a thread, clock or socket of its own.
///
/// The caller forwards the host's accesses ([`read`](Self::read), [`write`](Self::write)), and calls
/// [`step`](Self::step) as often as it likes: the controller looks at doorbells and moves data only there.
///
/// ```
/// use upcie_nvme::emu::{Machine, Options};
///
/// let options: Options = "size=1M,lba=4096".parse()?;
/// let machine = Machine::new(&options)?;
/// assert_eq!(machine.namespace_size(), 1 << 20);
/// assert_eq!(machine.next_due(), None, "nothing is in flight");
/// # Ok::<(), upcie_nvme::emu::Error>(())
/// ```
// The parts of a controller that its registers reach. What they set off is in a file for each subject: actions, power, faults.
#[derive(Debug)]
pub struct Machine<M = Storage> {
    pub(super) layout: Layout,
    pub(super) config: ConfigSpace,
    /// The actions that `config` allows.
    pub(super) allowed: Allowed,
    pub(super) msix: MsixTable,
    pub(super) registers: Registers,
    lines: InterruptStatus,
    /// Present while the controller is ready and not shut down.
    pub(super) queues: Option<Queues>,
    /// Present while the host has chosen weighted round robin.
    pub(super) arbiter: Option<Arbiter>,
    /// Rounds until the next check of doorbells of queues that don't exist; a round without work counts as
    /// several.
    until_strays: u32,
    /// The last round had work.
    worked: bool,
    /// The host may write to shadow doorbells and ring none: a server that slept now would be late.
    polls: bool,
    /// The causes that were logged of this host: it could repeat them forever.
    pub(super) said: Vec<&'static str>,
    pub(super) core: Core<M>,
}

impl Machine {
    /// Makes a controller in the state after power-on, with the medium that the options describe.
    ///
    /// # Errors
    /// There is not enough memory, or the file can't be used; the error gives the reason.
    pub fn new(options: &Options) -> Result<Self, Error> {
        options.check_new()?;
        let (media, size) = Storage::open(options)?;
        Self::with_media(options, media, size)
    }
}

impl<M: Media> Machine<M> {
    /// Makes a controller in the state after power-on. `media` has `size` bytes for each namespace, a multiple of its
    /// block size; the options `size`, `file` and `null` have no effect.
    ///
    /// # Errors
    /// The options are not compatible, or there is no memory for the doorbells or the controller's own memory.
    pub fn with_media(options: &Options, media: M, size: u64) -> Result<Self, Error> {
        options.check_new()?;
        let (doorbells, own) = (layout::doorbells(options)?, OwnMemory::new(options)?);
        let layout = layout::layout(options, &doorbells, &own);
        let core = Core::new(options, doorbells, own, Io::new(options, media, size));
        let config = ConfigSpace::new(&[0; 6], options);
        let mut machine = Self {
            allowed: config.allowed(),
            config,
            lines: InterruptStatus::default(),
            msix: MsixTable::new(options.vectors),
            registers: Registers::default(),
            queues: None,
            arbiter: None,
            until_strays: ROUNDS,
            worked: false,
            polls: false,
            said: Vec::new(),
            layout,
            core,
        };
        machine.power_on();
        Ok(machine)
    }

    /// Sets the identities of the NVM subsystem and of its namespaces, UUIDs. By default they follow from the serial number.
    pub fn set_identities(&mut self, subsystem: [u8; 16], namespaces: [u8; 16]) {
        (self.core.subsystem, self.core.identity) = (subsystem, namespaces);
    }

    /// Returns the size of each namespace in bytes.
    pub fn namespace_size(&self) -> u64 {
        self.core.io.namespaces.first().map_or(0, |namespace| namespace.capacity)
    }

    /// Returns the medium.
    pub fn media(&mut self) -> &mut M {
        &mut self.core.io.media
    }

    /// Returns the regions and the number of interrupts. The doorbells and the controller's own memory are
    /// memory that a host may map.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the time at which the next completion that `latency=` holds back is due, if there is one.
    pub fn next_due(&self) -> Option<Duration> {
        self.queues.as_ref().and_then(Queues::next_due)
    }

    /// Reads bytes of a region; the range is within it.
    pub fn read(&mut self, host: &mut impl Host, region: Region, offset: u64, data: &mut [u8]) {
        if self.core.staging.is_some() && self.alter_read(region, offset, data) {
            return;
        }
        match region {
            Region::Registers if self.core.granted.is_offline => Registers::read_offline(offset, data),
            Region::Registers if offset < DOORBELLS => {
                let boot = self.registers.boot.information(self.core.firmware.boot.as_ref());
                self.registers.read(boot, &self.core.own.properties(), offset, data);
            }
            Region::Registers => {
                // The specification does not define reads of doorbells: return the value written last.
                for (at, part) in (offset as usize..).step_by(4).zip(data.chunks_mut(4)) {
                    let value = Doorbell::new(&self.core.doorbells, at).map_or(0, |doorbell| doorbell.load());
                    part.copy_from_slice(&value.to_le_bytes()[..part.len()]);
                }
            }
            Region::Config => {
                // The interrupt status must be current: a doorbell may have been written since the last round.
                self.update_lines(host);
                self.config.read(offset, data);
            }
            Region::ControllerMemory | Region::PersistentMemory => {
                self.core.own.read(region, offset, data);
            }
            Region::MsixTable => self.msix.read(host, offset, data),
        }
    }

    /// Writes bytes of a region; the range is within it.
    pub fn write(&mut self, host: &mut impl Host, region: Region, offset: u64, data: &[u8]) {
        if self.lasting_faults().is_some_and(|lasting_faults| lasting_faults.gone_until.is_some()) {
            return;
        }
        self.place_own_memory(host);
        match region {
            Region::Registers if self.core.granted.is_offline => {
                tracing::debug!(offset, "a write to a secondary controller that is offline is ignored");
            }
            Region::Registers if offset % 4 == 0 && data.len() % 4 == 0 => {
                for (at, part) in (offset as usize..).step_by(4).zip(data.chunks_exact(4)) {
                    let value = u32::from_le_bytes([part[0], part[1], part[2], part[3]]);
                    if at >= DOORBELLS as usize {
                        if let Some(doorbell) = Doorbell::new(&self.core.doorbells, at) {
                            doorbell.store(value);
                        }
                        // At once: an unmasking in the next message must see the pin as this write leaves it.
                        self.update_lines(host);
                    } else if !self.control_own_memory(host, at, value) {
                        let action = self.registers.write(at, value);
                        self.core.takes_io_queues = self.registers.takes_io_queues();
                        if let Some(action) = action {
                            self.act(host, action);
                        }
                        // After each write: a vector that is masked and unmasked again reports its entries.
                        if matches!(at, offset::INTMS | offset::INTMC) {
                            self.update_lines(host);
                        }
                    }
                }
            }
            // Registers take whole dwords.
            Region::Registers => {
                tracing::debug!(offset, len = data.len(), "a write of an unusual size or offset is ignored")
            }
            Region::Config => {
                if self.config.write(offset, data) {
                    self.power_on();
                }
                self.allow();
                self.update_lines(host);
            }
            Region::ControllerMemory | Region::PersistentMemory => {
                self.core.own.write(region, offset, data);
            }
            Region::MsixTable => self.msix.write(host, offset, data),
        }
    }

    /// Serves the queues: looks at the doorbells, carries out commands, a bounded number of them and of bytes, and posts
    /// completions and interrupts. Erases a piece of what a host formats, deletes or sanitizes. Returns the amount of work done,
    /// which counts more while shadow doorbells are polled (`dbbuf=`): the host rings no doorbell meanwhile. `now` gives the time
    /// since power-on, which is read only for `latency=` and the SMART log.
    pub fn step(&mut self, host: &mut impl Host, now: impl Fn() -> Duration) -> usize {
        if self.core.options.dbbuf {
            self.begin_round(host);
        }
        // Acknowledgements that came before must count before new entries are posted.
        self.update_lines(host);
        if self.core.staging.is_some() && !self.is_present(&now) {
            return 0;
        }
        let is_erasing = !self.core.io.erasures.is_empty();
        let erased = if is_erasing { self.core.erase(self.queues.as_mut(), &now) } else { 0 };
        let left = STEP_BYTES.saturating_sub(erased);
        // Commands stay in the rings while the function may not read memory.
        let served = if self.allowed.dma { self.serve(host, &now, left) } else { 0 };
        let work = served + usize::from(is_erasing);
        self.worked = work > 0;
        if self.core.staging.is_some() {
            self.fail(&now);
        }
        match self.until_strays.checked_sub(if work == 0 { ROUNDS / IDLE_ROUNDS } else { 1 }) {
            Some(rounds) => self.until_strays = rounds,
            None => self.look_for_strays(),
        }
        self.update_lines(host);
        work + usize::from(self.polls)
    }

    /// Takes the values of shadow doorbells at the beginning of a round.
    #[inline(never)]
    fn begin_round(&mut self, host: &mut impl Host) {
        let worked = self.worked;
        self.with_doorbell_buffers(|buffers| buffers.begin_round(host, worked));
    }

    /// Takes the values of shadow doorbells outside of a round.
    pub(super) fn look_at_shadow_doorbells(&mut self, host: &mut impl Host) {
        if self.core.options.dbbuf {
            self.with_doorbell_buffers(|buffers| buffers.look(host).map(|_| ()));
        }
    }

    /// Calls `call` with the doorbell buffers, if there are any and the function may access them. If it can't, the controller can't
    /// go on, as without the memory of a queue.
    fn with_doorbell_buffers(&mut self, call: impl FnOnce(&mut DoorbellBuffers) -> Result<(), Errno>) {
        self.polls = false;
        let is_gone =
            self.lasting_faults().is_some_and(|faults| faults.gone_until.is_some() || faults.must_disconnect);
        if is_gone || !self.allowed.dma {
            return;
        }
        let buffers = self.queues.as_mut().and_then(|queues| queues.doorbell_buffers.as_deref_mut());
        let Some(buffers) = buffers else { return };
        match call(buffers) {
            Ok(()) => self.polls = buffers.polls(),
            Err(errno) => self.fatal(errno.into()),
        }
    }

    /// Updates the pin and the messages to the doorbells that were written since the last step.
    pub fn update_interrupts(&mut self, host: &mut impl Host) {
        self.update_lines(host);
    }

    /// Updates the pin and the messages after a change of acknowledgements, masks or configuration.
    pub(super) fn update_lines(&mut self, host: &mut impl Host) {
        host.set_delivery(IrqKind::Msix, self.allowed.msix);
        host.set_delivery(IrqKind::Msi, self.allowed.msi.0);
        if self.core.options.msi > 0 || self.core.options.intx {
            self.look_at_shadow_doorbells(host);
            let (mask, allowed) = (self.registers.mask, &self.allowed);
            let wanted = self.lines.update(self.queues.as_mut(), mask, allowed, host);
            self.config.set_interrupt_status(wanted && !self.config.uses_messages());
            host.set_pin(wanted && self.allowed.pin);
        }
    }

    /// Returns `true` if the log does not have this cause of this client yet.
    pub(super) fn is_new(&mut self, cause: &'static str) -> bool {
        let is_new = !self.said.contains(&cause);
        if is_new {
            self.said.push(cause);
        }
        is_new
    }

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

    /// Runs one round over all queues, of the bytes that are `left` for the step; returns the amount of work done.
    fn serve(&mut self, host: &mut impl Host, now: &impl Fn() -> Duration, mut left: u64) -> usize {
        let Some(queues) = &mut self.queues else { return 0 };
        let core = &mut self.core;
        let mut work = match core.poll_admin(queues, host, now) {
            Ok(work) => work,
            Err(fault) => {
                self.fatal(fault);
                return 0;
            }
        };
        if let Some(arbiter) = &mut self.arbiter {
            return match arbiter.round(core, queues, host, now, left) {
                Ok(served) => work + served,
                Err(fault) => {
                    self.fatal(fault);
                    work
                }
            };
        }
        let latency = core.options.latency;
        let first = std::mem::take(&mut queues.next).min(queues.sqs.len());
        let (before, after) = queues.sqs.split_at_mut(first);
        for (index, sq) in (first..).zip(after).chain((0..).zip(before)) {
            let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { continue };
            let staged = core.staging.as_deref_mut();
            match (Round { io: &mut core.io, host, now, latency, staged, left: &mut left })
                .serve(sq, cq, BATCH)
            {
                Ok(0) => {}
                Ok(served) => {
                    work += served;
                    if left == 0 {
                        // The step has done its work: the next one begins with the queue behind.
                        queues.next = index + 1;
                        break;
                    }
                }
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
