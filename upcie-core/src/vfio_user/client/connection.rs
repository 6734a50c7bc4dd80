//! The client's side of a connection: one request at a time, each with an answer and a deadline.

use super::exchange::{ConnectionEnd, Mapped, Owed, State, lock};
use crate::{
    Error, Failure, Result,
    deadline::{self, Budget, MessageWatch},
    gate::{Gate, Pass},
    memory::Memory,
    process::Owner,
    vfio_user::{
        capabilities::Capabilities,
        socket::{Channel, Fault, HEADERS, MAX_FDS, Message, message},
        wire::{Header, MAJOR, MAX_DATA, MINOR, Version, command, flags, split},
    },
};
use std::{
    any::Any,
    fmt, io,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use zerocopy::IntoBytes;

/// Bytes of data that a server must accept in one message: the longest register, which can't be split into several
/// accesses.
const MIN_DATA: u64 = 8;

/// The reason of a refusal by a server that has a client.
const BUSY: &str = "its server has a client already, and serves one at a time: end that one first";
/// The least time with which a request is sent that changes something, if its caller has more in all: more than an answer takes.
const LEAST: Duration = Duration::from_millis(20);
/// Upper bound: `Instant + Duration` must not overflow.
const MAX_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// An owner of resources that must live as long as the connection.
pub type Keepalive = Box<dyn Any + Send + Sync>;

/// A connection to a server, shared by all handles of the device. The last of them closes it.
pub struct Connection {
    name: String,
    owner: Owner,
    deadline: Duration,
    /// One exchange at a time. The deadline of a thread that waits for its turn is that of an answer.
    exchange: Gate<State>,
    /// The connection has ended, for the reason in [`State`]'s `dead`.
    ended: AtomicBool,
    /// The server has closed the connection.
    closed: AtomicBool,
    /// Memory that the server may request. It is outside of the state, so that threads that map and unmap don't wait for
    /// other threads' exchanges.
    dma: Mutex<Vec<Mapped>>,
    /// Memory that the server did not release. After the connection's end the server can at most hold a mapping of a file
    /// that nobody else uses.
    kept: Mutex<Vec<Memory>>,
    keepalive: Option<Keepalive>,
    peer: Capabilities,
}

/// Returns `true` for a request that changes nothing: an answer that nobody waits for does no harm.
fn is_query(number: u16) -> bool {
    matches!(
        number,
        command::GET_INFO | command::GET_REGION_INFO | command::GET_IRQ_INFO | command::REGION_READ
    )
}

/// Returns `true` if a server has refused a connection because it has a client.
pub fn is_busy(error: &Error) -> bool {
    matches!(error.failure(), Failure::Unusable { reason } if reason == BUSY)
}

impl Connection {
    /// Negotiates the version with the server behind `stream`.
    pub fn new(
        stream: UnixStream,
        name: String,
        keepalive: Option<Keepalive>,
        deadline: Duration,
    ) -> Result<Self> {
        let deadline = deadline.min(MAX_DEADLINE);
        let channel = Channel::new(stream, MAX_DATA as usize + HEADERS);
        let state = State { channel, next_id: 0, owed: None, dead: None };
        let owner = Owner::current();
        let peer = Capabilities::default();
        let mut this = Self {
            name,
            owner,
            deadline,
            exchange: Gate::new(state),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            dma: Mutex::default(),
            kept: Mutex::default(),
            keepalive,
            peer,
        };
        let unusable = |reason: String| Error::unusable(this.name.clone(), reason);
        let ours = Capabilities {
            max_msg_fds: MAX_FDS as u64,
            max_data_xfer_size: MAX_DATA,
            ..Capabilities::default()
        };
        let version = Version { major: MAJOR, minor: MINOR };
        let greeting = this.request(
            command::VERSION,
            "negotiating the version",
            &[version.as_bytes(), ours.to_json().as_bytes()],
            &[],
        );
        let reply = greeting.map_err(|error| match error.failure() {
            Failure::Peer { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                unusable(BUSY.into())
            }
            Failure::Gone { .. } | Failure::Timeout { .. } | Failure::Protocol { .. } => unusable(format!(
                "the listener does not answer as a vfio-user server ({error}): is it the right socket, and is \
                 no other client connected?"
            )),
            _ => error,
        })?;
        let (version, data) = this.parse::<Version>("its version", &reply.payload)?;
        if version.major != MAJOR || version.minor > MINOR {
            return Err(unusable(format!(
                "its server speaks vfio-user {}.{}, this client {MAJOR}.{MINOR}",
                version.major, version.minor
            )));
        }
        let peer = Capabilities::parse(data).map_err(|reason| this.protocol("its capabilities", reason))?;
        if peer.max_data_xfer_size < MIN_DATA || peer.pgsizes == 0 {
            return Err(
                this.protocol("its capabilities", "less than 8 bytes of data in messages, or no page size")
            );
        }
        this.peer = peer;
        Ok(this)
    }

    /// Returns the device's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Refuses `operation` in a forked child. Call it before taking a lock, which a thread of the parent may hold for ever there.
    pub fn check_owner(&self, operation: &str) -> Result<()> {
        self.owner.check(&self.name, operation)
    }

    /// Returns whether requests are possible: the connection is this process's, and has not ended.
    pub fn is_open(&self) -> bool {
        self.owner.is_current() && !self.is_dead()
    }

    /// Returns the server's capabilities.
    pub fn peer(&self) -> &Capabilities {
        &self.peer
    }

    /// Returns the deadline of an answer, and of an access by several messages.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Returns the bytes of data in one message, in both directions.
    pub fn max_data(&self) -> usize {
        self.peer.max_data_xfer_size.min(MAX_DATA) as usize
    }

    /// Sends a request and waits for its answer, and answers the server's requests meanwhile. `operation` is for errors.
    ///
    /// The deadline of an answer is the connection's. A caller with less time ends its wait before: the next request waits
    /// for the answer then, if nothing depends on it, as with a read. A request that changes something is not sent when too
    /// little time is left, since the connection ends if its outcome is not known.
    pub fn request(
        &self,
        command: u16,
        operation: &str,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message> {
        let device = || self.name.clone();
        self.check_owner(operation)?;
        let mut state = self.enter(operation)?;
        match state.dead {
            None => {}
            Some(ConnectionEnd::Gone) => return Err(Error::gone(device(), operation)),
            Some(ConnectionEnd::GivenUp(why)) => {
                return Err(Error::unusable(
                    device(),
                    format!("the connection was given up after {why}: open it again"),
                ));
            }
        }
        let mut watch = MessageWatch::new(self.deadline);
        let least = if is_query(command) { Duration::ZERO } else { LEAST.min(watch.limit() / 4) };
        if watch.left() <= least {
            // Nothing was sent, so no answer is missing and the connection stays usable.
            let after = watch.limit();
            return Err(Error::timeout(device(), operation, after));
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        let header = Header { id, command, flags: flags::COMMAND, ..Header::default() };
        let reply = state.exchange(&self.dma, header, message(header, parts), fds, &mut watch);
        deadline::charge(watch.waited());
        let reply = match reply {
            Ok(reply) => reply,
            Err(fault) => {
                if fault == Fault::Late && is_query(command) {
                    state.owed = Some(Owed { header, waited: watch.waited() });
                }
                return Err(self.fail(state, operation, fault, watch.limit()));
            }
        };
        if reply.header.flags & flags::ERROR != 0 {
            let source = match reply.header.error {
                0 => io::Error::other("it gave no error number"),
                number => io::Error::from_raw_os_error(number as i32),
            };
            return Err(Error::peer(device(), operation, source));
        }
        Ok(reply)
    }

    /// Waits for other threads at a gate, at most as long as for an answer; `others` names what they do. Refuses a forked child.
    pub fn enter_gate<'g, T>(&self, gate: &'g Gate<T>, operation: &str, others: &str) -> Result<Pass<'g, T>> {
        self.check_owner(operation)?;
        let mut watch = MessageWatch::new(self.deadline);
        let pass = gate.enter(|| watch.left());
        deadline::charge(watch.waited());
        pass.ok_or_else(|| {
            let operation = format!("{operation}: waiting for {others}");
            Error::timeout(self.name.clone(), operation, watch.limit())
        })
    }

    /// Waits for the exchanges of other threads, and for the answer that an earlier caller had no time for: at most as long
    /// as for an answer.
    fn enter(&self, operation: &str) -> Result<Pass<'_, State>> {
        let mut watch = MessageWatch::new(self.deadline);
        let entered = self.exchange.enter(|| watch.left()).map(|mut state| {
            let settled = state.settle(&self.dma, &mut watch);
            (state, settled)
        });
        deadline::charge(watch.waited());
        let waiting = || format!("{operation}: waiting for earlier requests");
        match entered {
            Some((state, Ok(()))) => Ok(state),
            Some((state, Err(fault))) => Err(self.fail(state, &waiting(), fault, watch.limit())),
            None => Err(Error::timeout(self.name.clone(), waiting(), watch.limit())),
        }
    }

    /// Returns the error of `operation`, which failed for `fault`, and ends the connection, unless an answer that is late may
    /// come yet. `after` is the deadline.
    fn fail(&self, mut state: Pass<'_, State>, operation: &str, fault: Fault, after: Duration) -> Error {
        let device = || self.name.clone();
        let (death, error) = match fault {
            Fault::Closed => (ConnectionEnd::Gone, Error::gone(device(), operation)),
            Fault::Late => {
                let late = format!("{operation}: its server may be stopped or hung");
                let error = Error::timeout(device(), late, after);
                if !state.is_overdue(self.deadline.min(Budget::hurry_limit())) {
                    return error;
                }
                (ConnectionEnd::GivenUp("a request was not answered in time"), error)
            }
            Fault::Garbage(reason) => (
                ConnectionEnd::GivenUp("the server broke the protocol"),
                Error::protocol(device(), operation, reason),
            ),
            Fault::Os(errno) => {
                (ConnectionEnd::GivenUp("a system call failed"), Error::os(device(), operation, errno))
            }
        };
        (state.dead, state.owed) = (Some(death), None);
        self.closed.store(matches!(death, ConnectionEnd::Gone), Ordering::Release);
        state.channel.shutdown();
        self.ended.store(true, Ordering::Release);
        // Freed after the lock is released.
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(state);
        drop(kept);
        error
    }

    /// Returns whether the connection has ended.
    pub fn is_dead(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Returns whether a request has found that the server closed the connection. After a connection that this client
    /// gave up, the server may still be running.
    pub fn is_closed_by_server(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Lets the server request `memory`'s bytes from now on.
    ///
    /// # Safety
    /// They stay mapped until [`forget`](Self::forget).
    pub unsafe fn remember(&self, memory: Mapped) {
        lock(&self.dma).push(memory);
    }

    /// Lets the server request this memory no more.
    pub fn forget(&self, iova: u64, len: u64) {
        lock(&self.dma).retain(|mapped| (mapped.iova, mapped.len) != (iova, len));
    }

    /// Keeps memory that the server can still access until the connection has ended.
    pub fn keep(&self, memory: Memory) {
        let mut kept = lock(&self.kept);
        // Checked with the list locked: the thread that ends the connection takes the list after that.
        if !self.is_dead() {
            kept.push(memory);
        }
    }

    /// Parses the structure at the start of an answer and returns it with the rest.
    pub fn parse<'a, T: zerocopy::FromBytes>(
        &self,
        operation: &str,
        payload: &'a [u8],
    ) -> Result<(T, &'a [u8])> {
        split(payload).map_err(|reason| self.protocol(operation, reason))
    }

    /// Makes the error for a wrong answer of the server to `operation`.
    pub fn protocol(&self, operation: &str, reason: &str) -> Error {
        Error::protocol(self.name.clone(), operation, reason)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let keepalive = self.keepalive.take();
        if self.owner.is_current() {
            self.exchange.get_mut().channel.shutdown();
            drop(keepalive);
        } else {
            // A forked child: the socket and the keepalive (perhaps a thread) belong to the parent.
            std::mem::forget(keepalive);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.name)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
