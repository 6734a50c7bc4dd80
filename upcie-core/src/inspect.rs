//! Descriptors that another process sends, looked at by a child before this process has them.
//!
//! Whoever has a descriptor closes it, at its own end at the latest. To close a file of FUSE waits for the answer of a program
//! (FUSE_FLUSH), which may be the sender: there is no deadline, and not even SIGKILL ends it. So where descriptors come along,
//! a child receives them, with the few bytes that they are beside. It passes files of memory and eventfds on, for which the
//! kernel alone answers, and ends together with all others; or it does not end, and holds nothing else then. Of such
//! children each peer may cause a few, so that others go on being served.

use crate::{
    irq::is_eventfd,
    process::Child,
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
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes that are received beside descriptors: those of a message's head.
pub const ROOM: usize = 16;
/// For a child to begin, make a few system calls, and end.
const DEADLINE: Duration = Duration::from_secs(2);
/// For a child to end that nothing keeps.
const MOMENT: Duration = Duration::from_millis(200);
/// Children that have not ended, because of descriptors of one process, of one user, and of all: beyond these numbers no
/// more are taken of the same.
const MAX_OF_PROCESS: usize = 2;
const MAX_OF_USER: usize = 16;
const MAX_OF_ALL: usize = 64;

/// The process at the other end of a socket, as the kernel noted it when they connected.
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

/// Those whose descriptors children hold that have not ended: once for each child.
#[derive(Debug)]
struct Held(Vec<Peer>);

impl Held {
    /// Whether one more child is made for `peer`.
    fn admits(&self, peer: Peer) -> bool {
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

static HELD: Mutex<Held> = Mutex::new(Held(Vec::new()));

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the other end of `socket` is this process's own, as that of a pair is: then there is nothing to look at.
pub fn is_own(socket: &UnixStream) -> bool {
    getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.pid().unsigned_abs() == std::process::id())
}

/// Whether descriptors come with the next byte; `None` when no byte is there.
pub fn brings_descriptors(socket: &UnixStream) -> Result<Option<bool>, Fault> {
    let got = receive(socket.as_fd(), &mut [0], None, libc::MSG_PEEK)?;
    // Without room for them they are cut off, which the kernel says.
    Ok(got.map(|(_, cut)| cut))
}

/// Reads into `room` without taking descriptors: the kernel drops them, and does not close them in the way that a process
/// does. Says how many bytes there were, and whether there were descriptors.
pub fn read_plain(socket: &UnixStream, room: &mut [u8]) -> Result<Option<(usize, bool)>, Fault> {
    receive(socket.as_fd(), room, None, 0)
}

/// Reads at most [`ROOM`] bytes that descriptors are beside. Those are pushed to `fds` if all are files of memory or
/// eventfds; else the second number says how many there were, and this process has none of them.
pub fn read_inspected(
    socket: &UnixStream,
    room: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<(usize, u32), Fault> {
    let peer = Peer::of(socket).map_err(Fault::Os)?;
    if !held().admits(peer) {
        tracing::warn!(
            pid = peer.pid,
            uid = peer.uid,
            "descriptors are not taken: children hold too many of this sender's that can't be closed"
        );
        return match read_plain(socket, room)? {
            Some((got, _)) => Ok((got, 1)),
            None => Err(Fault::Os(Errno::EAGAIN)),
        };
    }
    let failed = |error: std::io::Error| Fault::Os(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
    let (here, there) = UnixStream::pair().map_err(failed)?;
    let len = room.len().min(ROOM);
    let (child, done) =
        Child::run(socket.as_fd(), Some(there.as_fd()), DEADLINE, || pass_on(len)).map_err(failed)?;
    // It has reported by now, or never will.
    drop(there);
    let mut report = [0; 2 + ROOM];
    let got = read_some(&here, &mut report, fds);
    if report[1] == 0 {
        child.reap();
    } else if let Err(stuck) = child.reap_within(MOMENT) {
        held().0.push(peer);
        stuck.reap_later(move || held().release(peer));
    }
    match (done, got?) {
        (Ok(()), Some(got @ 3..)) => {
            room[..got - 2].copy_from_slice(&report[2..got]);
            Ok((got - 2, report[1].into()))
        }
        // More descriptors than were agreed, or the end.
        _ => Err(Fault::Garbage("descriptors that could not be received")),
    }
}

/// The child's part: receives from descriptor 0, reports to 1. System calls only.
fn pass_on(len: usize) -> isize {
    // SAFETY: open for as long as the child lives.
    let from = unsafe { BorrowedFd::borrow_raw(0) };
    // SAFETY: open for as long as the child lives.
    let to = unsafe { BorrowedFd::borrow_raw(1) };
    let (mut report, mut fds, mut count) = ([0_u8; 2 + ROOM], [0 as RawFd; MAX_FDS], 0);
    let mut take = |fd: RawFd| {
        if let Some(place) = fds.get_mut(count) {
            *place = fd;
            count += 1;
        }
    };
    let Ok(Some((got @ 1.., false))) = receive(from, &mut report[2..2 + len], Some(&mut take), 0) else {
        return -1;
    };
    let fds = &fds[..count];
    let known = fds.iter().all(|&fd| {
        // SAFETY: received just now, and not closed before the child ends.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl(fd, FcntlArg::F_GET_SEALS).is_ok() || is_eventfd(fd)
    });
    report[1] = if known { 0 } else { count as u8 };
    send_without_allocating(to, &mut report[..2 + got], if known { fds } else { &[] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        irq::EventFd,
        memory::{descriptors_of, file_of},
    };
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::{io::Write, os::fd::AsRawFd};

    fn beside(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(crate::socket::send_some(&theirs, bytes, fds), Ok(bytes.len()));
        (ours, theirs)
    }

    /// Soundness finding 9: to close a file of FUSE waits for ever, so it must never get here. A pipe stands for it.
    #[test]
    fn a_descriptor_of_another_kind_never_arrives() {
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let memfd = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = file_of(&pipe);
        let before = descriptors_of(file);
        let bytes = b"sixteen bytes at";
        for sent in [&[pipe.as_fd()][..], &[memfd.as_fd(), pipe.as_fd()]] {
            let (ours, mut theirs) = beside(bytes, sent);
            theirs.write_all(b"more").unwrap();
            let mut room = [0; 64];
            assert_eq!(brings_descriptors(&ours), Ok(Some(true)));
            assert_eq!(descriptors_of(file), before, "looking takes nothing");
            let mut fds = Vec::new();
            assert_eq!(read_inspected(&ours, &mut room[..16], &mut fds), Ok((16, sent.len() as u32)));
            assert!(&room[..16] == bytes && fds.is_empty());
            assert_eq!(descriptors_of(file), before);
            assert_eq!(brings_descriptors(&ours), Ok(Some(false)));
            assert_eq!(read_plain(&ours, &mut room), Ok(Some((4, false))));
            assert_eq!(brings_descriptors(&ours), Ok(None));
        }
    }

    /// Sixteen children that don't end, all because of one process, kept everybody's descriptors out.
    #[test]
    fn who_sends_what_can_not_be_closed_is_refused_alone() {
        let peer = |pid, uid| Peer { pid, uid };
        let mut held = Held(Vec::new());
        let fill = |held: &mut Held, peer| {
            let mut count = 0;
            while held.admits(peer) {
                held.0.push(peer);
                count += 1;
            }
            count
        };
        assert_eq!(fill(&mut held, peer(1, 1000)), MAX_OF_PROCESS);
        assert!(held.admits(peer(2, 1000)), "another process of the user");
        let by_user: usize = (2..40).map(|pid| fill(&mut held, peer(pid, 1000))).sum();
        assert_eq!(by_user, MAX_OF_USER - MAX_OF_PROCESS);
        assert!(!held.admits(peer(50, 1000)) && held.admits(peer(50, 0)), "another user");
        let by_all: usize = (0..40).map(|uid| fill(&mut held, peer(60, uid))).sum();
        assert_eq!(by_all, MAX_OF_ALL - MAX_OF_USER);
        held.release(peer(1, 1000));
        assert!(held.admits(peer(1, 1000)) && held.admits(peer(50, 1000)), "one has ended");
    }

    #[test]
    fn memory_and_eventfds_are_passed_on() {
        let (irq, memfd) =
            (EventFd::new().unwrap(), memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap());
        let (ours, _theirs) = beside(b"bytes", &[irq.as_fd(), memfd.as_fd()]);
        let (mut room, mut fds) = ([0; 16], Vec::new());
        assert_eq!(read_inspected(&ours, &mut room, &mut fds), Ok((5, 0)));
        assert!(&room[..5] == b"bytes" && fds.len() == 2);
        assert_eq!(file_of(&fds[1]), file_of(&memfd));
        nix::unistd::write(&fds[0], &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(irq.take().unwrap(), 1);
        // SAFETY: asks about a descriptor of this test.
        let flags = unsafe { libc::fcntl(fds[0].as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert!(is_own(&ours), "a pair of this process");
    }

    #[test]
    fn too_many_descriptors_and_none_are_errors_in_time() {
        let irq = EventFd::new().unwrap();
        let (ours, _theirs) = beside(b"bytes", &[irq.as_fd(); 20]);
        let mut fds = Vec::new();
        assert!(matches!(read_inspected(&ours, &mut [0; 16], &mut fds), Err(Fault::Garbage(_))));
        assert!(fds.is_empty());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(read_inspected(&ours, &mut [0; 16], &mut fds).is_err());
    }
}
