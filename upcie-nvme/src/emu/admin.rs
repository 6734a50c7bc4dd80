//! The admin queue: its commands, and asynchronous events.

use super::{
    Core,
    features::{Features, TEMPERATURE_WARNING},
    identify, layout, logs, prp,
    queue::{self, Cq, Done, Fault, Sq},
    shared::{Doorbell, Ring},
};
use crate::spec::{
    ALL_NAMESPACES, AbortDword10, AdminOpcode, AsyncEvent, AsyncEventType, Command, CreateCqDword11,
    CreateQueueDword10, CreateSqDword11, LogPageDword10, LogPageDword11, LogPageId, Status, doorbell_offset,
};
use std::collections::VecDeque;
use upcie_core::vfio_user::server::Guest;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_QUEUE_ID: Status = Status::INVALID_QUEUE_ID.with_do_not_retry();
/// Stands for no queue and no command in the error log.
const NO_QUEUE: u16 = 0xffff;
const NO_COMMAND: u16 = 0xffff;
/// Doorbells that one check for stray writes covers.
const STRAYS: u32 = 64;
/// The most commands in one round.
const BATCH: u32 = 16;
/// Asynchronous event information for an error: a write to the doorbell of a queue that does not exist.
const INVALID_DOORBELL: u8 = 0;
/// Asynchronous event information for an error: an invalid doorbell write value.
const INVALID_DOORBELL_VALUE: u8 = 1;
/// Asynchronous event information for SMART: a temperature beyond its threshold.
const TEMPERATURE_EVENT: u8 = 1;

/// All queues of an enabled controller.
#[derive(Debug)]
pub(super) struct Queues {
    pub admin_sq: Sq,
    pub admin_cq: Cq,
    /// The I/O submission queues in the order of their creation, as a round serves them.
    pub sqs: Vec<Sq>,
    /// The I/O completion queues by identifier.
    pub cqs: Vec<Option<Cq>>,
}

impl Queues {
    /// Returns `true` if there is a submission queue, or a completion queue, with this identifier.
    fn exists(&self, qid: u16, completion: bool) -> bool {
        match (qid, completion) {
            (0, _) => true,
            (_, true) => self.cqs.get(usize::from(qid)).is_some_and(Option::is_some),
            (_, false) => self.sqs.iter().any(|sq| sq.id == qid),
        }
    }

    /// Returns all completion queues, including the admin queue's.
    pub fn completion_queues(&mut self) -> impl Iterator<Item = &mut Cq> {
        std::iter::once(&mut self.admin_cq).chain(self.cqs.iter_mut().flatten())
    }
}

/// The state of the admin queue.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// Completions that wait for room.
    done: VecDeque<Done>,
    /// The Asynchronous Event Requests held.
    requests: VecDeque<u16>,
    /// Events for which no request has come yet.
    events: VecDeque<AsyncEvent>,
    /// Event types, a bit each, that are not reported again before their log page is read.
    reported: u8,
    /// The doorbell to check next for stray writes: twice its queue's identifier, plus 1 for a completion
    /// queue's.
    stray: u16,
}

impl Admin {
    /// Records an event. An event that is waiting, or whose log page was not read, is not reported twice.
    pub fn raise(&mut self, kind: AsyncEventType, information: u8, log_page: LogPageId) {
        let event = AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page);
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Answers requests with events.
    fn deliver(&mut self) {
        while !self.requests.is_empty() {
            let free = |event: &AsyncEvent| self.reported & 1 << event.kind().0 == 0;
            let Some(event) = self.events.iter().position(free).and_then(|at| self.events.remove(at)) else {
                break;
            };
            let Some(cid) = self.requests.pop_front() else { break };
            self.reported |= 1 << event.kind().0;
            self.done.push_back(Done { dw0: event.into_bits(), cid, status: Status::SUCCESS });
        }
    }

    /// Notes that the log page of a kind of event was read.
    fn read_log(&mut self, kind: AsyncEventType) {
        self.reported &= !(1 << kind.0);
    }
}

impl Core {
    /// Records that a doorbell was written with a value that its queue does not have.
    pub fn doorbell_fault(&mut self) {
        self.io.errors.push(NO_QUEUE, NO_COMMAND, 0, 0, INVALID_FIELD);
        self.admin.raise(AsyncEventType::ERROR, INVALID_DOORBELL_VALUE, LogPageId::ERROR_INFORMATION);
    }

    /// Checks the doorbells of the next few queue identifiers. A write to a doorbell whose queue does not
    /// exist is undone and reported ("Write to Invalid Doorbell Register"). Returns `true` if there was one.
    /// A write of 0 is not noticed.
    pub fn look_for_strays(&mut self, queues: &Queues) -> bool {
        let mut found = false;
        for _ in 0..STRAYS {
            let (qid, completion) = (self.admin.stray / 2, self.admin.stray % 2 != 0);
            let Ok(doorbell) = self.doorbell(qid, completion) else {
                self.admin.stray = 0;
                break;
            };
            self.admin.stray += 1;
            if doorbell.load() != 0 && !queues.exists(qid, completion) {
                doorbell.store(0);
                self.io.errors.push(NO_QUEUE, NO_COMMAND, 0, 0, INVALID_QUEUE_ID);
                self.admin.raise(AsyncEventType::ERROR, INVALID_DOORBELL, LogPageId::ERROR_INFORMATION);
                found = true;
            }
        }
        found
    }

    /// Runs one round of the admin queue.
    #[inline]
    pub fn poll_admin(&mut self, queues: &mut Queues, guest: &mut Guest) -> Result<usize, Fault> {
        let waiting = match queues.admin_sq.waiting() {
            Ok(waiting) => waiting,
            Err(Fault::Doorbell) => {
                self.doorbell_fault();
                0
            }
            Err(fault) => return Err(fault),
        };
        let event = !self.admin.events.is_empty() && !self.admin.requests.is_empty();
        if waiting == 0 && self.admin.done.is_empty() && !event {
            return Ok(0);
        }
        self.serve_admin(queues, guest, waiting)
    }

    #[cold]
    #[inline(never)]
    fn serve_admin(&mut self, queues: &mut Queues, guest: &mut Guest, waiting: u32) -> Result<usize, Fault> {
        let mut taken = 0;
        for _ in 0..waiting.min(BATCH) {
            if !self.admin.done.is_empty() || guest.is_slow() {
                break;
            }
            let command = queues.admin_sq.fetch(guest)?;
            taken += 1;
            let cid = command.cid;
            match self.admin_command(queues, guest, &command) {
                Ok(Some(dw0)) => self.admin.done.push_back(Done { dw0, cid, status: Status::SUCCESS }),
                Ok(None) => {}
                Err(status) => {
                    tracing::debug!(?command, ?status, "an admin command failed");
                    self.io.errors.push(0, cid, command.nsid, 0, status);
                    self.admin.done.push_back(Done { dw0: 0, cid, status });
                }
            }
            self.admin.deliver();
            taken += self.post_admin(queues, guest)?;
        }
        self.admin.deliver();
        Ok(taken + self.post_admin(queues, guest)?)
    }

    /// Posts finished commands, as far as there is room.
    fn post_admin(&mut self, queues: &mut Queues, guest: &mut Guest) -> Result<usize, Fault> {
        let mut posted = 0;
        while let Some(&done) = self.admin.done.front() {
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
            queues.admin_cq.post(guest, &queues.admin_sq, done)?;
            self.admin.done.pop_front();
            posted += 1;
        }
        if posted > 0 {
            queues.admin_cq.interrupt(guest);
        }
        Ok(posted)
    }

    /// Carries out an admin command; returns dword 0 of its completion, or `None` if it does not complete
    /// yet.
    fn admin_command(
        &mut self,
        queues: &mut Queues,
        guest: &mut Guest,
        command: &Command,
    ) -> Result<Option<u32>, Status> {
        if command.flags & 0xc3 != 0 {
            return Err(INVALID_FIELD);
        }
        let done = match AdminOpcode(command.opcode) {
            AdminOpcode::IDENTIFY => {
                let has_cache = self.io.media.is_volatile();
                let page =
                    identify::page(&self.options, &self.io.namespaces, has_cache, self.instance, command)?;
                self.send(guest, command, &page)?;
                0
            }
            AdminOpcode::GET_LOG_PAGE => self.log_page(guest, command)?,
            AdminOpcode::GET_FEATURES => self.features.get(command, &self.io)?,
            AdminOpcode::SET_FEATURES => {
                let has_queues = !queues.sqs.is_empty() || queues.cqs.iter().any(Option::is_some);
                let before = self.features.warning();
                let dw0 = self.features.set(command, &mut self.io, has_queues)?;
                self.check_temperature(before);
                dw0
            }
            AdminOpcode::CREATE_CQ => self.create_cq(queues, guest, command)?,
            AdminOpcode::CREATE_SQ => self.create_sq(queues, guest, command)?,
            AdminOpcode::DELETE_SQ => delete_sq(queues, guest, command)?,
            AdminOpcode::DELETE_CQ => delete_cq(queues, command)?,
            AdminOpcode::ABORT => self.abort(queues, guest, command)?,
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                if self.admin.requests.len() > usize::from(identify::AERL) {
                    return Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED.with_do_not_retry());
                }
                self.admin.requests.push_back(command.cid);
                return Ok(None);
            }
            _ => return Err(Status::INVALID_OPCODE.with_do_not_retry()),
        };
        Ok(Some(done))
    }

    /// Copies `data` to the command's buffer.
    fn send(&mut self, guest: &mut Guest, command: &Command, data: &[u8]) -> Result<(), Status> {
        let mut rest = data;
        prp::walk(
            guest,
            self.io.page,
            (command.prp1(), command.prp2()),
            data.len() as u64,
            |guest, iova, len| {
                let (part, after) = rest.split_at_checked(len).ok_or(Status::INTERNAL_ERROR)?;
                rest = after;
                guest.write(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)
            },
        )
    }

    fn log_page(&mut self, guest: &mut Guest, command: &Command) -> Result<u32, Status> {
        let dword = LogPageDword10::from_bits(command.cdw10);
        let (log, kind) = match dword.lid() {
            LogPageId::ERROR_INFORMATION => (self.io.errors.page(), Some(AsyncEventType::ERROR)),
            LogPageId::SMART => {
                let warning = self.features.warning();
                let log = logs::smart(&self.io.counters, &self.io.errors, warning, self.since);
                (log, Some(AsyncEventType::SMART))
            }
            LogPageId::FIRMWARE_SLOT => (logs::firmware(), None),
            _ => return Err(Status::INVALID_LOG_PAGE.with_do_not_retry()),
        };
        // All three log pages belong to the controller, none to a namespace.
        if !matches!(command.nsid, 0 | ALL_NAMESPACES) {
            return Err(INVALID_FIELD);
        }
        let (len, offset) = (command.log_page_bytes(), command.log_page_offset());
        if len > self.io.mdts || offset % 4 != 0 || LogPageDword11::from_bits(command.cdw11).lsi() != 0 {
            return Err(INVALID_FIELD);
        }
        let offset = usize::try_from(offset).map_err(|_| INVALID_FIELD)?;
        let mut part = log.get(offset..).ok_or(INVALID_FIELD)?.to_vec();
        // The bytes beyond the log have no meaning, but the host asked for them.
        part.resize(len as usize, 0);
        self.send(guest, command, &part)?;
        if let Some(kind) = kind.filter(|_| !dword.rae()) {
            self.admin.read_log(kind);
        }
        Ok(0)
    }

    /// Reports a temperature that is beyond a threshold since the last Set Features.
    fn check_temperature(&mut self, before: u8) {
        let risen = self.features.warning() & !before & self.features.events.smart();
        if risen & TEMPERATURE_WARNING != 0 {
            self.admin.raise(AsyncEventType::SMART, TEMPERATURE_EVENT, LogPageId::SMART);
        }
    }

    fn create_cq(
        &mut self,
        queues: &mut Queues,
        guest: &mut Guest,
        command: &Command,
    ) -> Result<u32, Status> {
        let (qid, entries) = self.new_queue(command, self.features.queues.1)?;
        let dword = CreateCqDword11::from_bits(command.cdw11);
        let slot = queues.cqs.get_mut(usize::from(qid)).filter(|cq| cq.is_none()).ok_or(INVALID_QUEUE_ID)?;
        if !dword.pc() {
            return Err(INVALID_FIELD);
        }
        let vector = dword.ien().then(|| dword.iv());
        if vector.is_some_and(|vector| vector >= self.vectors) {
            return Err(Status::INVALID_INTERRUPT_VECTOR.with_do_not_retry());
        }
        let ring = Ring::new(guest, command.prp1(), entries);
        *slot = Some(Cq::new(qid, entries, ring, self.doorbell(qid, true)?, vector));
        Ok(0)
    }

    fn create_sq(
        &mut self,
        queues: &mut Queues,
        guest: &mut Guest,
        command: &Command,
    ) -> Result<u32, Status> {
        let (qid, entries) = self.new_queue(command, self.features.queues.0)?;
        let dword = CreateSqDword11::from_bits(command.cdw11);
        if queues.sqs.iter().any(|sq| sq.id == qid) {
            return Err(INVALID_QUEUE_ID);
        }
        if !dword.pc() {
            return Err(INVALID_FIELD);
        }
        let cqid = dword.cqid();
        if cqid == 0 || cqid > self.features.queues.1 {
            return Err(INVALID_QUEUE_ID);
        }
        let cq = queues.cqs.get_mut(usize::from(cqid)).and_then(Option::as_mut);
        let cq = cq.ok_or(Status::COMPLETION_QUEUE_INVALID.with_do_not_retry())?;
        let ring = Ring::new(guest, command.prp1(), entries);
        let doorbell = self.doorbell(qid, false)?;
        let mut sq = Sq::new(qid, cqid, entries, ring, doorbell, !self.options.latency.is_zero());
        sq.priority = dword.qprio();
        queues.sqs.push(sq);
        cq.users += 1;
        Ok(0)
    }

    /// Parses the fields common to both kinds of queue: identifier and entries. `limit` is the largest
    /// identifier.
    fn new_queue(&self, command: &Command, limit: u16) -> Result<(u16, u32), Status> {
        let dword = CreateQueueDword10::from_bits(command.cdw10);
        let (qid, entries) = (dword.qid(), u32::from(dword.qsize()) + 1);
        if qid == 0 || qid > limit {
            return Err(INVALID_QUEUE_ID);
        }
        if !(2..=self.options.depth).contains(&entries) || !self.takes_io_queues {
            return Err(Status::INVALID_QUEUE_SIZE.with_do_not_retry());
        }
        if command.prp1() & (self.io.page - 1) != 0 {
            return Err(Status::PRP_OFFSET_INVALID.with_do_not_retry());
        }
        Ok((qid, entries))
    }

    /// Returns the doorbell of a queue.
    pub fn doorbell(&self, qid: u16, completion: bool) -> Result<Doorbell, Status> {
        let offset = doorbell_offset(qid, completion, layout::DSTRD);
        Doorbell::new(&self.doorbells, offset).ok_or(Status::INTERNAL_ERROR)
    }

    fn abort(&mut self, queues: &mut Queues, guest: &mut Guest, command: &Command) -> Result<u32, Status> {
        let dword = AbortDword10::from_bits(command.cdw10);
        let (sqid, cid) = (dword.sqid(), dword.cid());
        if sqid == 0 {
            if let Some(at) = self.admin.requests.iter().position(|&request| request == cid) {
                self.admin.requests.remove(at);
                self.admin.done.push_back(Done { dw0: 0, cid, status: Status::ABORT_REQUESTED });
                return Ok(0);
            }
            return Ok(1);
        }
        let Some(sq) = queues.sqs.iter_mut().find(|sq| sq.id == sqid) else { return Err(INVALID_FIELD) };
        let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { return Ok(1) };
        // An Abort can find a command only with `latency=`.
        if !matches!(cq.room(), Ok(1..)) {
            return Ok(1);
        }
        let Some(done) = sq.abort(cid) else { return Ok(1) };
        cq.post(guest, sq, done).map_err(|_| Status::INTERNAL_ERROR)?;
        cq.interrupt(guest);
        Ok(0)
    }

    /// Forgets the state that a controller reset clears.
    pub fn forget(&mut self) {
        self.admin = Admin::default();
        let options = &self.options;
        self.features = Features::new(options.namespaces, options.interrupts(), options.queues);
        self.io.write_cache = true;
    }
}

fn delete_sq(queues: &mut Queues, guest: &mut Guest, command: &Command) -> Result<u32, Status> {
    let qid = command.cdw10 as u16;
    let at = queues.sqs.iter().position(|sq| sq.id == qid).ok_or(INVALID_QUEUE_ID)?;
    let mut sq = queues.sqs.remove(at);
    sq.forget_doorbell();
    if let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) {
        // Post finished commands as far as there is room; the others end with their queue.
        if let Err(fault) = queue::release(&mut sq, cq, guest, None) {
            tracing::debug!(sq = qid, ?fault, "completions of a deleted queue are lost");
        }
        cq.users = cq.users.saturating_sub(1);
    }
    Ok(0)
}

fn delete_cq(queues: &mut Queues, command: &Command) -> Result<u32, Status> {
    let slot = queues.cqs.get_mut(command.cdw10 as u16 as usize).filter(|cq| cq.is_some());
    let slot = slot.ok_or(INVALID_QUEUE_ID)?;
    if slot.as_ref().is_some_and(|cq| cq.users > 0) {
        return Err(Status::INVALID_QUEUE_DELETION.with_do_not_retry());
    }
    if let Some(cq) = slot.take() {
        cq.forget_doorbell();
    }
    Ok(0)
}
