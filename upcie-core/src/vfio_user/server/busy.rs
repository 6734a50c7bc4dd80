//! Answers further clients that the device is busy while one is served.
//!
//! A thread of its own does that, because the serving thread may hang in its backend, whose disk does not answer.

use super::listener::{Listener, is_shortage};
use crate::vfio_user::{
    socket::{Channel, HEADERS, message, poll_for},
    wire::{Header, command, flags},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

/// Limit on the number of refused clients whose VERSION message has not arrived yet.
const MAX_REFUSED: usize = 8;
/// Interval of checks while a deadline is pending.
const TICK: Duration = Duration::from_millis(50);
/// Longest sleep without an event.
const MAX_SLEEP: Duration = Duration::from_secs(10);
/// Time for the server to finish with a disconnected client, before further clients are refused again.
const FINISHING: Duration = Duration::from_secs(1);

/// Calls `serve` while a thread answers all other clients of `listener` that the device is busy. `client` is the connection
/// being served. Once it has disconnected, new clients stay at the listener for the next `accept`.
pub(super) fn refuse_others<T>(
    listener: &Listener,
    client: io::Result<UnixStream>,
    deadline: Duration,
    serve: impl FnOnce() -> T,
) -> T {
    let not_refused = |error: io::Error| {
        tracing::warn!(path = %listener.path().display(), %error, "further clients get no answer that the device is busy");
    };
    let (client, (inside, outside)) = match client.and_then(|client| Ok((client, UnixStream::pair()?))) {
        Ok(sockets) => sockets,
        Err(error) => {
            not_refused(error);
            return serve();
        }
    };
    thread::scope(move |scope| {
        let thread = thread::Builder::new().name("upcie-busy".into()).spawn_scoped(scope, move || {
            let mut others = BusyListener::new(listener, client, deadline);
            while others.handle_event(outside.as_fd(), MAX_SLEEP) {}
        });
        if let Err(error) = thread {
            not_refused(error);
        }
        let result = serve();
        // Ends the thread; a panic of the backend drops it, too.
        drop(inside);
        result
    })
}

/// Refuses further clients of a listener while one is served.
#[derive(Debug)]
struct BusyListener<'a> {
    listener: &'a Listener,
    /// A second descriptor of the connection being served.
    client: UnixStream,
    /// Time when that client was found disconnected.
    left_since: Option<Instant>,
    refused: Vec<(Channel, Instant)>,
    /// Deadline of each refused client's VERSION message.
    deadline: Duration,
    /// Time when the system lacked a resource for a new client: none is accepted for a moment.
    full_since: Option<Instant>,
}

impl<'a> BusyListener<'a> {
    fn new(listener: &'a Listener, client: UnixStream, deadline: Duration) -> Self {
        Self { listener, client, left_since: None, refused: Vec::new(), deadline, full_since: None }
    }

    /// Returns whether new clients are refused now. Once the served client has disconnected, a new one is the next and is
    /// not refused, unless the server takes too long to finish with the former.
    fn refuses(&self) -> bool {
        let full = self.full_since.is_some_and(|since| since.elapsed() < TICK);
        let finishing = self.left_since.is_some_and(|since| since.elapsed() < FINISHING);
        !full && !finishing
    }

    /// Waits for an event, at most `timeout`, and handles it; `false` once the other end of `end` is closed.
    fn handle_event(&mut self, end: BorrowedFd<'_>, timeout: Duration) -> bool {
        let pending = !self.refused.is_empty() || self.full_since.is_some() || self.left_since.is_some();
        let refuses = self.refuses();
        let mut fds = vec![PollFd::new(end, PollFlags::POLLIN)];
        if refuses {
            fds.push(self.listener.poll_fd());
        }
        // Polled after the listener: if a client connects after the hang-up, both are seen together.
        if self.left_since.is_none() {
            fds.push(PollFd::new(self.client.as_fd(), PollFlags::empty()));
        }
        fds.extend(self.refused.iter().map(|(channel, _)| channel.poll_fd()));
        if poll_for(&mut fds, if pending { timeout.min(TICK) } else { timeout }).is_err() {
            // The system lacks memory: new clients are answered later.
            thread::sleep(TICK);
            return true;
        }
        let found = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if found(&fds[0]) {
            return false;
        }
        let has_client = refuses && found(&fds[1]);
        let has_left = self.left_since.is_none() && found(&fds[1 + usize::from(refuses)]);
        drop(fds);
        if has_left {
            self.left_since = Some(Instant::now());
        } else if has_client {
            self.accept();
        }
        self.answer();
        true
    }

    /// Accepts a connection that will be refused.
    fn accept(&mut self) {
        match self.listener.accept() {
            Ok(stream) => {
                // A client that sends nothing gives its place to newer ones.
                if self.refused.len() == MAX_REFUSED {
                    self.refused.remove(0);
                }
                self.refused.push((Channel::new(stream, 4096 + HEADERS), Instant::now()));
                self.full_since = None;
            }
            Err(error) if is_shortage(&error) => self.full_since = Some(Instant::now()),
            Err(_) => {}
        }
    }

    /// Answers each VERSION message by "busy"; the answer needs the message's id.
    fn answer(&mut self) {
        let deadline = self.deadline;
        self.refused.retain_mut(|(channel, since)| match channel.try_recv() {
            Ok(None) => since.elapsed() < deadline,
            Ok(Some(request)) => {
                tracing::info!(
                    command = command::name(request.header.command),
                    "refused a second client: busy"
                );
                let flags = flags::REPLY | flags::ERROR;
                let header = Header { flags, error: Errno::EBUSY as u32, ..request.header };
                // An error only concerns the refused client.
                let _ = channel.send(message(header, &[]), &[]);
                false
            }
            Err(_) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_after_a_disconnect_is_not_refused() {
        let path = std::env::temp_dir().join(format!("upcie-next-{}", std::process::id()));
        let listener = Listener::bind(&path).unwrap();
        let (client, served) = UnixStream::pair().unwrap();
        let (_inside, outside) = UnixStream::pair().unwrap();
        let mut others = BusyListener::new(&listener, served, Duration::from_secs(5));
        let _second = UnixStream::connect(&path).unwrap();
        assert!(others.handle_event(outside.as_fd(), MAX_SLEEP));
        assert_eq!(others.refused.len(), 1, "accepted, to be refused");
        drop(client);
        let _next = UnixStream::connect(&path).unwrap();
        assert!(others.handle_event(outside.as_fd(), MAX_SLEEP));
        assert!(others.refused.len() == 1 && !others.refuses());
        assert!(listener.accept().is_ok(), "still pending");

        // A server that takes too long to finish with a disconnected client is busy.
        let _third = UnixStream::connect(&path).unwrap();
        others.left_since = Some(Instant::now() - FINISHING);
        assert!(others.handle_event(outside.as_fd(), MAX_SLEEP));
        assert_eq!(others.refused.len(), 2);
    }
}
