//! Tells clients that come while another one is served that the device is busy.
//!
//! A thread of its own does that: the serving thread may hang in its backend, whose disk does not answer.

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

/// Clients that are told to come back later, at a time.
const MAX_TURNED_AWAY: usize = 8;
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_millis(50);
/// How long the thread sleeps when nothing happens at all.
const NAP: Duration = Duration::from_secs(10);
/// How long the server may take to let go of a client that has left, before others hear that it is busy.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Calls `serve` while a thread tells all other clients of `listener` that the device is busy. `client` is the
/// connection that is served: whoever comes once that client has left is next, and stays in line.
pub(super) fn keep_door<T>(
    listener: &Listener,
    client: io::Result<UnixStream>,
    deadline: Duration,
    serve: impl FnOnce() -> T,
) -> T {
    let untold = |error: io::Error| {
        tracing::warn!(path = %listener.path().display(), %error, "other clients are not told that the device is busy");
    };
    let (client, (inside, outside)) = match client.and_then(|client| Ok((client, UnixStream::pair()?))) {
        Ok(sockets) => sockets,
        Err(error) => {
            untold(error);
            return serve();
        }
    };
    thread::scope(move |scope| {
        let thread = thread::Builder::new().name("upcie-door".into()).spawn_scoped(scope, move || {
            let mut door = Door::new(listener, client, deadline);
            while door.look(outside.as_fd(), NAP) {}
        });
        if let Err(error) = thread {
            untold(error);
        }
        let result = serve();
        // Ends the thread; so does a panic of the backend's, which drops it, too.
        drop(inside);
        result
    })
}

/// Other clients of a listener.
#[derive(Debug)]
struct Door<'a> {
    listener: &'a Listener,
    /// A second descriptor of the connection that is served.
    client: UnixStream,
    /// When that client was seen to have left.
    left_since: Option<Instant>,
    turned_away: Vec<(Channel, Instant)>,
    /// How long each of them may take to say something.
    deadline: Duration,
    /// When a descriptor for one more was lacking: none is let in for a moment.
    full_since: Option<Instant>,
}

impl<'a> Door<'a> {
    fn new(listener: &'a Listener, client: UnixStream, deadline: Duration) -> Self {
        Self { listener, client, left_since: None, turned_away: Vec::new(), deadline, full_since: None }
    }

    /// Whether a client that comes now is told something. When the client that is served has left, another one is not
    /// second but next, unless the server is not done with the former.
    fn is_open(&self) -> bool {
        let full = self.full_since.is_some_and(|since| since.elapsed() < TICK);
        let letting_go = self.left_since.is_some_and(|since| since.elapsed() < LETTING_GO);
        !full && !letting_go
    }

    /// Waits for something to happen, at most `nap`, and sees to it; `false` once the other end of `end` is closed.
    fn look(&mut self, end: BorrowedFd<'_>, nap: Duration) -> bool {
        let pending = !self.turned_away.is_empty() || self.full_since.is_some() || self.left_since.is_some();
        let open = self.is_open();
        let mut fds = vec![PollFd::new(end, PollFlags::POLLIN)];
        if open {
            fds.push(self.listener.poll_fd());
        }
        // After the listener: whoever connects once the client has left is seen together with its hang-up.
        if self.left_since.is_none() {
            fds.push(PollFd::new(self.client.as_fd(), PollFlags::empty()));
        }
        fds.extend(self.turned_away.iter().map(|(channel, _)| channel.poll_fd()));
        if poll_for(&mut fds, if pending { nap.min(TICK) } else { nap }).is_err() {
            // Too little memory: whoever came is told later.
            thread::sleep(TICK);
            return true;
        }
        let found = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if found(&fds[0]) {
            return false;
        }
        let came = open && found(&fds[1]);
        let left = self.left_since.is_none() && found(&fds[1 + usize::from(open)]);
        drop(fds);
        if left {
            self.left_since = Some(Instant::now());
        } else if came {
            self.admit();
        }
        self.answer();
        true
    }

    /// Takes a connection, to turn it away.
    fn admit(&mut self) {
        match self.listener.accept() {
            Ok(stream) => {
                // Whoever says nothing makes room for those that do.
                if self.turned_away.len() == MAX_TURNED_AWAY {
                    self.turned_away.remove(0);
                }
                self.turned_away.push((Channel::new(stream, 4096 + HEADERS), Instant::now()));
                self.full_since = None;
            }
            Err(error) if is_shortage(&error) => self.full_since = Some(Instant::now()),
            Err(_) => {}
        }
    }

    /// Answers each VERSION, whose id the answer needs.
    fn answer(&mut self) {
        let deadline = self.deadline;
        self.turned_away.retain_mut(|(channel, since)| match channel.try_recv() {
            Ok(None) => since.elapsed() < deadline,
            Ok(Some(request)) => {
                tracing::info!(
                    command = command::name(request.header.command),
                    "told a second client to wait"
                );
                let flags = flags::REPLY | flags::ERROR;
                let header = Header { flags, error: Errno::EBUSY as u32, ..request.header };
                // Whether it arrives is its own affair.
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
    fn who_comes_when_the_client_has_left_is_next() {
        let path = std::env::temp_dir().join(format!("upcie-next-{}", std::process::id()));
        let listener = Listener::bind(&path).unwrap();
        let (client, served) = UnixStream::pair().unwrap();
        let (_inside, outside) = UnixStream::pair().unwrap();
        let mut door = Door::new(&listener, served, Duration::from_secs(5));
        let _second = UnixStream::connect(&path).unwrap();
        assert!(door.look(outside.as_fd(), NAP));
        assert_eq!(door.turned_away.len(), 1, "taken, and to be told");
        drop(client);
        let _next = UnixStream::connect(&path).unwrap();
        assert!(door.look(outside.as_fd(), NAP));
        assert!(door.turned_away.len() == 1 && !door.is_open());
        assert!(listener.accept().is_ok(), "still in line");

        // A server that is not done with a client that has left is busy.
        let _third = UnixStream::connect(&path).unwrap();
        door.left_since = Some(Instant::now() - LETTING_GO);
        assert!(door.look(outside.as_fd(), NAP));
        assert_eq!(door.turned_away.len(), 2);
    }
}
