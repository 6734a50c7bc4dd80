//! The admin queue and its commands.

use super::{
    Host, HostMemory,
    data::Data,
    faults::Effects,
    features::TEMPERATURE_WARNING,
    flight::{Done, Flight},
    identify,
    io::PIECE,
    media::Media,
    queue::{Fault, Sq},
    queue_commands::{delete_cq, delete_sq},
    queues::Queues,
    staged,
    state::Core,
    vendor,
};
use crate::spec::{AdminOpcode, AsyncEventType, Cns, Command, IdentifyDword10, LogPageId, Status};
use std::time::Duration;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
/// The most commands in one round.
const BATCH: u32 = 16;
/// Asynchronous event information for SMART: a temperature beyond its threshold.
const TEMPERATURE_EVENT: u8 = 1;

impl<M: Media> Core<M> {
    /// Runs one round of the admin queue.
    #[inline]
    pub fn poll_admin(
        &mut self,
        queues: &mut Queues,
        host: &mut impl Host,
        now: &impl Fn() -> Duration,
    ) -> Result<usize, Fault> {
        if self.is_busy() {
            self.look_at_the_clock(now())?;
        }
        let waiting = match queues.admin_sq.waiting() {
            Ok(waiting) => waiting,
            Err(Fault::Doorbell) => {
                self.doorbell_fault();
                0
            }
            Err(fault) => return Err(fault),
        };
        if waiting == 0
            && self.admin.done.is_empty()
            && !self.admin.can_deliver()
            && queues.admin_sq.flights.is_empty()
        {
            // A Sanitize whose end is to be reported counts as work: a server that slept now would be late.
            return Ok(usize::from(self.sanitizer.is_running() && !self.admin.requests.is_empty()));
        }
        self.serve_admin(queues, host, waiting, now)
    }

    /// Ends what time ends.
    ///
    /// # Errors
    /// The keep alive timer has run out.
    #[cold]
    #[inline(never)]
    fn look_at_the_clock(&mut self, now: Duration) -> Result<(), Fault> {
        self.settle(now);
        if self.host_data.is_abandoned(now) { Err(Fault::KeepAlive) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn serve_admin(
        &mut self,
        queues: &mut Queues,
        host: &mut impl Host,
        waiting: u32,
        now: &impl Fn() -> Duration,
    ) -> Result<usize, Fault> {
        let mut taken = 0;
        self.io.worked = 0;
        for _ in 0..waiting.min(BATCH) {
            let is_late = host.is_slow() || self.io.worked >= PIECE;
            if !self.admin.done.is_empty() || is_late || self.is_admin_full(&queues.admin_sq) {
                break;
            }
            let command = queues.admin_sq.fetch(host)?;
            taken += 1;
            let effects = self.decide(&command);
            let done = match effects {
                Effects { drop: true, .. } => None,
                Effects { status: Some(status), .. } => Some(Err(status)),
                _ => self.admin_command(queues, host, &command, now).transpose(),
            };
            let done = match done {
                None if effects.drop => Ok(0),
                // A request for an event waits, and so does a command whose namespaces are being erased.
                None => {
                    self.io.note_effects(&command, effects);
                    continue;
                }
                Some(done) => done,
            };
            self.complete(queues, &command, effects, done, now);
            self.admin.deliver();
            taken += self.post_admin(queues, host)?;
            if self.staging.as_ref().is_some_and(|staging| staging.is_struck()) {
                break;
            }
        }
        self.admin.deliver();
        taken += self.post_admin(queues, host)?;
        if !queues.admin_sq.flights.is_empty() {
            let (sq, cq) = (&mut queues.admin_sq, &mut queues.admin_cq);
            taken += staged::advance_due(sq, cq, &mut self.io, host, now(), u64::MAX)?;
            taken += usize::from(sq.next_stage().is_some());
        }
        Ok(taken)
    }

    /// Ends an admin command with dword 0 of its completion, or with its status. A fault plan has `effects` on the completion.
    pub(super) fn complete(
        &mut self,
        queues: &mut Queues,
        command: &Command,
        effects: Effects,
        done: Result<u32, Status>,
        now: &impl Fn() -> Duration,
    ) {
        let (dw0, status) = match done {
            Ok(dw0) => (dw0, Status::SUCCESS),
            Err(status) => {
                tracing::debug!(?command, ?status, "an admin command failed");
                self.io.errors.push(0, command.cid, command.nsid, 0, status);
                (0, status)
            }
        };
        let done = Done { dw0, cid: command.cid, status };
        if effects == Effects::default() {
            self.admin.end(command.opcode, done);
        } else {
            queues.admin_sq.flights.push(Flight::carried_out(*command, effects, done, now()));
        }
    }

    /// Returns `true` if as many commands as the admin queue has entries were fetched and have no completion yet: they are held
    /// back (C1h), a fault plan keeps them, or they wait for an erasure. No more are fetched then, so a host can't take all of the
    /// memory.
    pub(super) fn is_admin_full(&self, sq: &Sq) -> bool {
        let erasing = self.io.erasures.iter().filter(|erasure| erasure.reply.is_some()).count();
        self.admin.held_count() + sq.flights.len() + erasing >= sq.entries as usize
    }

    /// Returns what the fault plan does to an admin command.
    fn decide(&mut self, command: &Command) -> Effects {
        self.staging.as_mut().map_or_else(Effects::default, |staging| staging.decide(0, command))
    }

    /// Posts finished commands, as far as there is room.
    fn post_admin(&mut self, queues: &mut Queues, host: &mut impl Host) -> Result<usize, Fault> {
        let mut posted = 0;
        while let Some(&(done, dw1)) = self.admin.done.front() {
            let room = match queues.admin_cq.room() {
                Ok(room) => room,
                Err(Fault::Doorbell) => {
                    self.doorbell_fault();
                    0
                }
                Err(fault) => return Err(fault),
            };
            if room == 0 {
                break;
            }
            queues.admin_cq.post_result(host, &queues.admin_sq, done, dw1)?;
            self.admin.done.pop_front();
            posted += 1;
        }
        if posted > 0 {
            queues.admin_cq.interrupt(host);
        }
        Ok(posted)
    }

    /// Carries out an admin command; returns dword 0 of its completion, or `None` if it does not complete
    /// yet.
    fn admin_command(
        &mut self,
        queues: &mut Queues,
        host: &mut impl Host,
        command: &Command,
        now: &impl Fn() -> Duration,
    ) -> Result<Option<u32>, Status> {
        if command.flags & 0xc3 != 0 {
            return Err(INVALID_FIELD);
        }
        let done = match AdminOpcode(command.opcode) {
            AdminOpcode::IDENTIFY => {
                let has_cache = self.io.media.is_volatile();
                if IdentifyDword10::from_bits(command.cdw10).cns() == Cns::NAMESPACE {
                    self.io.identified(command.nsid);
                }
                let known = identify::Known {
                    options: &self.options,
                    namespaces: &self.io.namespaces,
                    keys: &self.io.keys,
                    has_cache,
                    subsystem: self.subsystem,
                    identity: self.identity,
                    revision: self.firmware.revision(),
                    capacity: (self.io.capacity, self.io.unallocated()),
                    controller: (self.io.controller, self.controllers),
                    unformatted: self.io.unformatted(command.nsid),
                    primary: self.primary(),
                };
                let page = identify::page(&known, command)?;
                self.send(host, command, &page)?;
                0
            }
            AdminOpcode::GET_LOG_PAGE => self.log_page(host, command, now)?,
            AdminOpcode::GET_FEATURES => {
                let own = self.get_reservations(host, command);
                let known = own.or_else(|| self.get_host_data(host, command, now()));
                let known = known.or_else(|| self.boot_feature(command));
                let known = known.or_else(|| self.protection_feature(command));
                match known.or_else(|| self.placement_feature(host, command)) {
                    Some(done) => done?,
                    None => self.features.get(command, &self.io)?,
                }
            }
            AdminOpcode::SET_FEATURES => {
                let own = self.set_reservations(host, command);
                let known = own.or_else(|| self.set_host_data(host, command, now()));
                let known = known.or_else(|| self.boot_feature(command));
                let known = known.or_else(|| self.protection_feature(command));
                if let Some(done) = known.or_else(|| self.placement_feature(host, command)) {
                    return done.map(Some);
                }
                let has_queues = !queues.sqs.is_empty() || queues.cqs.iter().any(Option::is_some);
                let before = self.features.warning();
                let dw0 = self.features.set(command, &mut self.io, has_queues)?;
                self.check_temperature(before);
                dw0
            }
            AdminOpcode::CREATE_CQ => self.create_cq(queues, host, command)?,
            AdminOpcode::CREATE_SQ => self.create_sq(queues, host, command)?,
            AdminOpcode::DELETE_SQ => delete_sq(queues, host, command)?,
            AdminOpcode::DELETE_CQ => delete_cq(queues, command)?,
            AdminOpcode::DOORBELL_BUFFER_CONFIG if self.options.dbbuf => {
                self.configure_doorbells(queues, host, command)?
            }
            AdminOpcode::VIRTUALIZATION_MANAGEMENT if self.primary().is_some() => {
                self.manage_virtualization(command)?
            }
            AdminOpcode::ABORT => self.abort(queues, host, command)?,
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                if self.admin.requests.len() > usize::from(identify::AERL) {
                    return Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED.with_do_not_retry());
                }
                self.admin.requests.push_back(command.cid);
                return Ok(None);
            }
            _ => match self.manage(host, command, now()) {
                Some(done) => {
                    let done = done?;
                    queues.sqs.iter_mut().for_each(|sq| sq.end_flights(&mut self.io));
                    match done {
                        Some(dword0) => dword0,
                        None => return Ok(None),
                    }
                }
                None => {
                    if vendor::reports_telemetry(command) {
                        self.collect_own("a host raised the event", now());
                    }
                    if let Some(state) = vendor::access_state(command) {
                        self.io.path.change(state)?;
                        self.io.note_reservations();
                    }
                    let (io, wanted) = (&self.io, self.features.events);
                    vendor::run(&mut self.admin, wanted, command, |nsid| io.has_zones(nsid))?
                }
            },
        };
        Ok(Some(done))
    }

    /// Fills `data` from the command's buffer.
    pub(super) fn receive(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        data: &mut [u8],
    ) -> Result<(), Status> {
        self.io.worked += data.len() as u64;
        Data::Prps(command.prp1(), command.prp2()).fetch(host, self.io.page, data)
    }

    /// Copies `data` to the command's buffer.
    pub(super) fn send(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        data: &[u8],
    ) -> Result<(), Status> {
        self.io.worked += data.len() as u64;
        Data::Prps(command.prp1(), command.prp2()).store(host, self.io.page, data)
    }

    /// Copies `data` to the command's buffer of `len` bytes, as far as it has room, and zeros behind it.
    pub(super) fn send_padded(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        data: Vec<u8>,
        len: u64,
    ) -> Result<(), Status> {
        self.io.worked += len;
        Data::Prps(command.prp1(), command.prp2()).store_padded(host, self.io.page, data, len)
    }

    /// Reports a temperature that is beyond a threshold since the last Set Features.
    fn check_temperature(&mut self, before: u8) {
        let risen = self.features.warning() & !before & self.features.events.smart();
        if risen & TEMPERATURE_WARNING != 0 {
            self.admin.raise(AsyncEventType::SMART, TEMPERATURE_EVENT, LogPageId::SMART);
        }
    }
}
