//! Messages with descriptors over a stream socket. Calls block only if they take a deadline.
//!
//! The peer is not trusted: a message's length is checked before memory is allocated for it, the amount of data that it
//! sends ahead is limited, and descriptors are close-on-exec from the start, and closed if unused.

use super::wire::{FIXED_PAYLOAD, HEADER, Header};
pub use crate::socket::{Fault, MAX_FDS, poll_for};
use crate::{
    inspect::{brings_descriptors, is_own, read_inspected, read_plain},
    socket::{read_some, send_some},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
    sys::{
        socket::{
            AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, setsockopt, shutdown, socket,
            sockopt::SendTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};
use std::{
    collections::VecDeque,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The largest message without its data, in bytes.
pub const HEADERS: usize = HEADER + FIXED_PAYLOAD;

/// Limit on the number of received messages that are kept while another is waited for; also on bytes to be sent.
const MAX_WAITING: usize = 256;
const MAX_WAITING_BYTES: usize = 8 << 20;

/// The longest wait for a listener.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A complete message.
#[derive(Debug)]
pub struct Message {
    pub header: Header,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// The number of descriptors that came along but were not accepted, because they are neither memory nor eventfds.
    pub refused: u32,
}

/// A partly received message.
#[derive(Debug, Default)]
struct Partial {
    head: [u8; HEADER],
    header: Option<Header>,
    payload: Vec<u8>,
    /// Received bytes of the header, then of the payload.
    received: usize,
    fds: Vec<OwnedFd>,
    refused: u32,
    since: Option<Instant>,
}

/// A partly sent message.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// Set if this process made the other end, too.
    own: bool,
    /// The largest message in bytes.
    limit: usize,
    partial: Partial,
    inbox: VecDeque<Message>,
    inbox_bytes: usize,
    outbox: VecDeque<Outgoing>,
    outbox_bytes: usize,
    /// Time of the last progress of the outbox.
    stuck_since: Option<Instant>,
}

impl Channel {
    /// Makes a channel over `socket`, for messages of at most `limit` bytes.
    pub fn new(socket: UnixStream, limit: usize) -> Self {
        Self {
            own: is_own(&socket),
            socket,
            limit,
            partial: Partial::default(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            stuck_since: None,
        }
    }

    /// Ends the connection for both sides.
    pub fn shutdown(&self) {
        // An error means that the connection has already ended.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// Returns the next message, if one has arrived.
    pub fn try_recv(&mut self) -> Result<Option<Message>, Fault> {
        if let Some(message) = self.inbox.pop_front() {
            self.inbox_bytes -= message.payload.len();
            return Ok(Some(message));
        }
        self.receive()
    }

    /// Waits for the next message.
    pub fn recv(&mut self, deadline: Instant) -> Result<Message, Fault> {
        loop {
            self.flush()?;
            if let Some(message) = self.try_recv()? {
                return Ok(message);
            }
            self.wait(deadline)?;
        }
    }

    /// Returns the next reply, if one has arrived. Requests that arrive before it are kept for
    /// [`try_recv`](Self::try_recv).
    pub fn try_reply(&mut self) -> Result<Option<Message>, Fault> {
        if let Some(at) = self.inbox.iter().position(|message| message.header.is_reply()) {
            let reply = self.inbox.remove(at);
            self.inbox_bytes -= reply.as_ref().map_or(0, |reply| reply.payload.len());
            return Ok(reply);
        }
        while let Some(message) = self.receive()? {
            if message.header.is_reply() {
                return Ok(Some(message));
            }
            self.defer(message)?;
        }
        Ok(None)
    }

    /// Keeps a message for a later `try_recv`.
    fn defer(&mut self, message: Message) -> Result<(), Fault> {
        self.inbox_bytes += message.payload.len();
        self.inbox.push_back(message);
        if self.inbox.len() > MAX_WAITING || self.inbox_bytes > MAX_WAITING_BYTES {
            return Err(Fault::Garbage("more requests at once than can be kept"));
        }
        Ok(())
    }

    /// Sends a message. The part that the socket does not accept now is kept for [`flush`](Self::flush).
    pub fn send(&mut self, bytes: Vec<u8>, fds: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        let mut sent = 0;
        if self.outbox.is_empty() {
            sent = send_some(&self.socket, &bytes, fds)?;
        }
        if sent < bytes.len() {
            let fds = if sent == 0 { fds } else { &[] };
            let fds = fds.iter().map(|fd| fd.try_clone_to_owned());
            let fds = fds
                .collect::<std::io::Result<_>>()
                .map_err(|e| Fault::Os(e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
            self.outbox_bytes += bytes.len() - sent;
            self.outbox.push_back(Outgoing { bytes, sent, fds });
            if self.outbox_bytes > MAX_WAITING_BYTES {
                return Err(Fault::Garbage(
                    "it sends requests without end, and does not receive their answers",
                ));
            }
            self.stuck_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Sends kept messages as far as the socket accepts them, and returns whether none is left.
    pub fn flush(&mut self) -> Result<bool, Fault> {
        while let Some(mut next) = self.outbox.pop_front() {
            let fds: Vec<_> = next.fds.iter().map(AsFd::as_fd).collect();
            let sent = send_some(&self.socket, &next.bytes[next.sent..], &fds)?;
            if sent > 0 {
                self.stuck_since = Some(Instant::now());
                next.fds.clear();
            }
            next.sent += sent;
            self.outbox_bytes -= sent;
            if next.sent < next.bytes.len() {
                self.outbox.push_front(next);
                return Ok(false);
            }
        }
        self.stuck_since = None;
        Ok(true)
    }

    /// Sends all kept messages. Messages that arrive meanwhile are kept, so a peer that sends before it reads causes no
    /// deadlock.
    pub fn flush_until(&mut self, deadline: Instant) -> Result<(), Fault> {
        while !self.flush()? {
            while let Some(message) = self.receive()? {
                self.defer(message)?;
            }
            self.wait(deadline)?;
        }
        Ok(())
    }

    /// Returns since when the peer has failed to send the rest of a message, or to receive one.
    pub fn stalled_since(&self) -> Option<Instant> {
        match (self.partial.since, self.stuck_since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Returns the descriptor and the events to poll for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let mut events = PollFlags::POLLIN;
        if !self.outbox.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        PollFd::new(self.socket.as_fd(), events)
    }

    /// Waits until a message arrives, or the socket accepts kept data.
    fn wait(&self, deadline: Instant) -> Result<(), Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        poll_for(&mut [self.poll_fd()], left).map_err(Fault::Os)
    }

    /// Receives the available part of the next message. A read never goes past a message's end, so that descriptors
    /// belong to their message.
    fn receive(&mut self) -> Result<Option<Message>, Fault> {
        loop {
            let partial = &mut self.partial;
            let target = match partial.header {
                None => &mut partial.head[partial.received..],
                Some(_) => &mut partial.payload[partial.received..],
            };
            if !target.is_empty() {
                let is_new = partial.header.is_none() && partial.received == 0;
                // If no byte was available, the next one may bring descriptors, so the socket is inspected again before
                // it is read.
                let brings_fds =
                    if is_new && !self.own { brings_descriptors(&self.socket)? } else { Some(false) };
                let received = match brings_fds {
                    None => None,
                    _ if self.own => read_some(&self.socket, target, &mut partial.fds)?,
                    Some(true) => {
                        let (received, refused) = read_inspected(&self.socket, target, &mut partial.fds)?;
                        partial.refused += refused;
                        Some(received)
                    }
                    Some(false) => {
                        let received = read_plain(&self.socket, target)?;
                        partial.refused += received.map_or(0, |(_, cut)| cut.into());
                        received.map(|(received, _)| received)
                    }
                };
                let Some(received) = received else { return Ok(None) };
                if received == 0 {
                    return Err(Fault::Closed);
                }
                partial.received += received;
                if received < target.len() {
                    partial.since.get_or_insert_with(Instant::now);
                    continue;
                }
            }
            match partial.header {
                None => {
                    let header = Header::parse(&partial.head, self.limit).map_err(Fault::Garbage)?;
                    partial.header = Some(header);
                    partial.payload = vec![0; header.size as usize - HEADER];
                    partial.received = 0;
                    if !partial.payload.is_empty() {
                        partial.since.get_or_insert_with(Instant::now);
                    }
                }
                Some(header) => {
                    let Partial { payload, fds, refused, .. } = std::mem::take(partial);
                    return Ok(Some(Message { header, payload, fds, refused }));
                }
            }
        }
    }
}

/// Returns the address of a socket's path, or the reason why the path is not valid.
pub fn address(path: &Path) -> Result<UnixAddr, String> {
    UnixAddr::new(path).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => format!(
            "the path of a socket has at most 107 bytes, this one has {}: choose a shorter one",
            path.as_os_str().len()
        ),
        errno => format!("it can't be the path of a socket: {}", errno.desc()),
    })
}

/// Connects to a Unix socket, and waits at most `timeout`, or a year, for a listener that does not accept.
pub fn connect(address: &UnixAddr, timeout: Duration) -> Result<UnixStream, Errno> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // For the system 0 is no limit, and `TimeVal` has one.
    let timeout = timeout.clamp(Duration::from_micros(1), LONGEST);
    setsockopt(&fd, SendTimeout, &TimeVal::microseconds(timeout.as_micros() as i64))?;
    nix::sys::socket::connect(fd.as_raw_fd(), address)?;
    Ok(fd.into())
}

/// Makes the bytes of a message.
pub fn message(mut header: Header, parts: &[&[u8]]) -> Vec<u8> {
    let size = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    header.size = size as u32;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(header.as_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        irq::EventFd,
        vfio_user::wire::{command, flags},
    };
    use std::{thread, time::Duration};

    /// Regression: a message that arrived right after the check for descriptors was read without them.
    #[test]
    fn descriptors_always_arrive_with_their_message() {
        const COUNT: u16 = 400;
        let (here, there) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(here, 4096);
        // Treat the other end as another process's.
        channel.own = false;
        let sender = thread::spawn(move || {
            let irq = EventFd::new().unwrap();
            let mut answer = [0];
            for id in 0..COUNT {
                let header =
                    Header { id, command: command::SET_IRQS, flags: flags::COMMAND, ..Header::default() };
                let bytes = message(header, &[&[0; 20]]);
                assert_eq!(send_some(&there, &bytes, &[irq.as_fd()]), Ok(bytes.len()));
                // The next message is sent while the receiver inspects the socket.
                std::io::Read::read_exact(&mut &there, &mut answer).unwrap();
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        for id in 0..COUNT {
            let message = loop {
                assert!(Instant::now() < end, "message {id} does not come");
                if let Some(message) = channel.try_recv().unwrap() {
                    break message;
                }
            };
            assert_eq!((message.header.id, message.fds.len(), message.refused), (id, 1, 0));
            std::io::Write::write_all(&mut &channel.socket, &[0]).unwrap();
        }
        sender.join().unwrap();
    }
}
