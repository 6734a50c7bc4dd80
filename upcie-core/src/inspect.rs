//! Inspects descriptors from another process in a child process before this process receives them.
//!
//! Every holder of a descriptor closes it, at its exit at the latest. Closing a FUSE file waits for the answer of a
//! program (FUSE_FLUSH), which may be the sender: that has no deadline, and not even SIGKILL ends it. So a child
//! process receives descriptors with the few bytes that they accompany. It passes on memory files and eventfds, for
//! which the kernel alone answers. With any other descriptor it exits, or it never exits and holds nothing else. Each
//! peer may cause only a few such children, so that others continue to be served.

use crate::{
    irq::is_eventfd,
    process::{Child, PerProcess},
    socket::{Fault, MAX_FDS, read_some, receive, send_without_allocating},
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::MutexGuard,
    time::Duration,
};

/// Bytes that are received with descriptors: the header of a message.
pub const ROOM: usize = 16;
/// Deadline for a child to start, make a few system calls, and exit.
const DEADLINE: Duration = Duration::from_secs(2);
/// Time for a child to exit, if its descriptors do not block it.
const EXIT_TIME: Duration = Duration::from_millis(200);
/// Limits on children that can't exit because of descriptors of one process, of one user, and of all: beyond a limit no
/// more descriptors of the same are accepted.
const MAX_OF_PROCESS: usize = 2;
const MAX_OF_USER: usize = 16;
const MAX_OF_ALL: usize = 64;

/// The process at the other end of a socket, as the kernel recorded it when they connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    pid: i32,
    uid: u32,
}

impl Peer {
    fn of(socket: &UnixStream) -> Result<Self, Errno> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        Ok(Self { pid: credentials.pid(), uid: credentials.uid() })
    }
}

/// The senders of descriptors that block children: one entry for each child.
#[derive(Debug, Default)]
struct Held(Vec<Peer>);

impl Held {
    /// Returns whether one more child may be made for `peer`.
    fn allows(&self, peer: Peer) -> bool {
        let of_user = self.0.iter().filter(|other| other.uid == peer.uid);
        let of_process = of_user.clone().filter(|&&other| other == peer);
        self.0.len() < MAX_OF_ALL && of_user.count() < MAX_OF_USER && of_process.count() < MAX_OF_PROCESS
    }

    fn release(&mut self, peer: Peer) {
        if let Some(at) = self.0.iter().position(|&other| other == peer) {
            self.0.swap_remove(at);
        }
    }
}

static HELD: PerProcess<Held> = PerProcess::new();

fn held() -> MutexGuard<'static, Held> {
    HELD.lock()
}

/// Returns whether the other end of `socket` is this process's own, as that of a pair is: then no inspection is needed.
pub fn is_own(socket: &UnixStream) -> bool {
    getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.pid().unsigned_abs() == std::process::id())
}

/// Returns whether descriptors come with the next byte; `None` if no byte is available.
pub fn brings_descriptors(socket: &UnixStream) -> Result<Option<bool>, Fault> {
    let received = receive(socket.as_fd(), &mut [0], None, libc::MSG_PEEK)?;
    // Without space for them they are discarded, which the kernel reports.
    Ok(received.map(|(_, cut)| cut))
}

/// Reads into `target` without accepting descriptors: the kernel drops them, without the wait of a process's close.
/// Returns how many bytes there were, and whether there were descriptors.
pub fn read_plain(socket: &UnixStream, target: &mut [u8]) -> Result<Option<(usize, bool)>, Fault> {
    receive(socket.as_fd(), target, None, 0)
}

/// Reads at most [`ROOM`] bytes that come with descriptors. If all of these are memory files or eventfds, they are
/// pushed to `fds`; otherwise this process gets none of them, and the second number is how many there were.
pub fn read_inspected(
    socket: &UnixStream,
    target: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<(usize, u32), Fault> {
    let peer = Peer::of(socket).map_err(Fault::Os)?;
    if !held().allows(peer) {
        tracing::warn!(
            pid = peer.pid,
            uid = peer.uid,
            "descriptors are not accepted: too many of this sender's block child processes"
        );
        return match read_plain(socket, target)? {
            Some((received, _)) => Ok((received, 1)),
            None => Err(Fault::Os(Errno::EAGAIN)),
        };
    }
    let failed = |error: std::io::Error| Fault::Os(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    let (here, there) = UnixStream::pair().map_err(failed)?;
    let len = target.len().min(ROOM);
    let (child, done) =
        Child::run(socket.as_fd(), Some(there.as_fd()), DEADLINE, || pass_on(len)).map_err(failed)?;
    // The child has reported by now, or never will.
    drop(there);
    let mut report = [0; 2 + ROOM];
    let received = read_some(&here, &mut report, fds);
    if report[1] == 0 {
        child.reap();
    } else if let Err(stuck) = child.reap_within(EXIT_TIME) {
        held().0.push(peer);
        stuck.reap_later(move || held().release(peer));
    }
    match (done, received?) {
        (Ok(()), Some(received @ 3..)) => {
            target[..received - 2].copy_from_slice(&report[2..received]);
            Ok((received - 2, report[1].into()))
        }
        // More descriptors than agreed, or the end of the connection.
        _ => Err(Fault::Garbage("descriptors that could not be received")),
    }
}

/// Receives from descriptor 0 and reports to 1, in the child. Makes only system calls.
fn pass_on(len: usize) -> isize {
    // SAFETY: descriptor 0 is open while the child lives.
    let from = unsafe { BorrowedFd::borrow_raw(0) };
    // SAFETY: descriptor 1 is open while the child lives.
    let to = unsafe { BorrowedFd::borrow_raw(1) };
    let (mut report, mut fds, mut count) = ([0_u8; 2 + ROOM], [0 as RawFd; MAX_FDS], 0);
    let mut take = |fd: RawFd| {
        if let Some(place) = fds.get_mut(count) {
            *place = fd;
            count += 1;
        }
    };
    let Ok(Some((received @ 1.., false))) = receive(from, &mut report[2..2 + len], Some(&mut take), 0) else {
        return -1;
    };
    // A child that never exits must not hold the connection: its server would count this process as connected for good.
    // SAFETY: `from` is not used any more; the child closes its own descriptor.
    unsafe { libc::close(0) };
    let fds = &fds[..count];
    let known = fds.iter().all(|&fd| {
        // SAFETY: the descriptor was just received, and is not closed before the child exits.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl(fd, FcntlArg::F_GET_SEALS).is_ok() || is_eventfd(fd)
    });
    report[1] = if known { 0 } else { count as u8 };
    send_without_allocating(to, &mut report[..2 + received], if known { fds } else { &[] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        irq::EventFd,
        memory::{descriptors_of, file_of, other_files},
    };
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::{io::Write, os::fd::AsRawFd};

    fn beside(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(crate::socket::send_some(&theirs, bytes, fds), Ok(bytes.len()));
        (ours, theirs)
    }

    /// Closing a FUSE file can wait for ever, so this process must never receive one. Files of other kinds stand for
    /// it: [`other_files`] says why they are equal. `host_fuse` in tests/ has a file of FUSE.
    #[test]
    fn other_descriptors_are_never_received() {
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let memfd = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = file_of(&pipe);
        let before = descriptors_of(file);
        let bytes = b"sixteen bytes at";
        for sent in [&[pipe.as_fd()][..], &[memfd.as_fd(), pipe.as_fd()]] {
            let (ours, mut theirs) = beside(bytes, sent);
            theirs.write_all(b"more").unwrap();
            let mut target = [0; 64];
            assert_eq!(brings_descriptors(&ours), Ok(Some(true)));
            assert_eq!(descriptors_of(file), before, "the check receives nothing");
            let mut fds = Vec::new();
            assert_eq!(read_inspected(&ours, &mut target[..16], &mut fds), Ok((16, sent.len() as u32)));
            assert!(&target[..16] == bytes && fds.is_empty());
            assert_eq!(descriptors_of(file), before);
            assert_eq!(brings_descriptors(&ours), Ok(Some(false)));
            assert_eq!(read_plain(&ours, &mut target), Ok(Some((4, false))));
            assert_eq!(brings_descriptors(&ours), Ok(None));
        }
        for other in other_files() {
            let (ours, _theirs) = beside(bytes, &[other.as_fd()]);
            let mut fds = Vec::new();
            assert_eq!(read_inspected(&ours, &mut [0; 16], &mut fds), Ok((16, 1)), "{other:?}");
            assert!(fds.is_empty(), "{other:?}");
        }
    }

    /// Regression: sixteen children that could not exit, all because of one process, blocked everybody's descriptors.
    #[test]
    fn a_blocking_sender_is_refused_alone() {
        let peer = |pid, uid| Peer { pid, uid };
        let mut held = Held(Vec::new());
        let fill = |held: &mut Held, peer| {
            let mut count = 0;
            while held.allows(peer) {
                held.0.push(peer);
                count += 1;
            }
            count
        };
        assert_eq!(fill(&mut held, peer(1, 1000)), MAX_OF_PROCESS);
        assert!(held.allows(peer(2, 1000)), "another process of the user");
        let by_user: usize = (2..40).map(|pid| fill(&mut held, peer(pid, 1000))).sum();
        assert_eq!(by_user, MAX_OF_USER - MAX_OF_PROCESS);
        assert!(!held.allows(peer(50, 1000)) && held.allows(peer(50, 0)), "another user");
        let by_all: usize = (0..40).map(|uid| fill(&mut held, peer(60, uid))).sum();
        assert_eq!(by_all, MAX_OF_ALL - MAX_OF_USER);
        held.release(peer(1, 1000));
        assert!(held.allows(peer(1, 1000)) && held.allows(peer(50, 1000)), "one child has exited");
    }

    #[test]
    fn memory_files_and_eventfds_are_passed_on() {
        let (irq, memfd) =
            (EventFd::new().unwrap(), memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap());
        let (ours, _theirs) = beside(b"bytes", &[irq.as_fd(), memfd.as_fd()]);
        let (mut target, mut fds) = ([0; 16], Vec::new());
        assert_eq!(read_inspected(&ours, &mut target, &mut fds), Ok((5, 0)));
        assert!(&target[..5] == b"bytes" && fds.len() == 2);
        assert_eq!(file_of(&fds[1]), file_of(&memfd));
        nix::unistd::write(&fds[0], &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(irq.take().unwrap(), 1);
        // SAFETY: queries a descriptor of this test.
        let flags = unsafe { libc::fcntl(fds[0].as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert!(is_own(&ours), "a pair of this process");
    }

    #[test]
    fn too_many_or_no_descriptors_are_errors_in_time() {
        let irq = EventFd::new().unwrap();
        let (ours, _theirs) = beside(b"bytes", &[irq.as_fd(); 20]);
        let mut fds = Vec::new();
        assert!(matches!(read_inspected(&ours, &mut [0; 16], &mut fds), Err(Fault::Garbage(_))));
        assert!(fds.is_empty());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(read_inspected(&ours, &mut [0; 16], &mut fds).is_err());
    }
}
