//! Bytes over a stream socket, with descriptors beside them, as far as it takes them and has them now.

use nix::{
    errno::Errno,
    poll::{PollFd, ppoll},
    sys::{
        socket::{ControlMessage, MsgFlags, sendmsg},
        time::TimeSpec,
    },
};
use std::{
    ffi::c_void,
    io::IoSlice,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// Descriptors taken in one message.
pub const MAX_FDS: usize = 8;

/// Why a connection can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer closed it.
    Closed,
    /// Nothing came, or nothing was taken, within the deadline.
    Late,
    /// The peer broke the protocol.
    Garbage(&'static str),
    /// The system's.
    Os(Errno),
}

/// Waits for any of `fds`, or a signal, at most `timeout`.
pub fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> Result<(), Errno> {
    match ppoll(fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Sends bytes with descriptors beside the first; how many were taken, 0 for now none.
pub fn send_some(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Fault> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
            Ok(sent) => return Ok(sent),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(Fault::Closed),
            Err(errno) => return Err(Fault::Os(errno)),
        }
    }
}

/// Reads into `room` what is there, `None` when nothing is; descriptors go to `fds`.
pub fn read_some(
    socket: &UnixStream,
    room: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, Fault> {
    // SAFETY: received just now, so nobody else owns it.
    let mut take = |raw: RawFd| fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
    match receive(socket.as_fd(), room, Some(&mut take), 0)? {
        Some((_, true)) => Err(Fault::Garbage("more descriptors in a message than were agreed")),
        _ if fds.len() > MAX_FDS => Err(Fault::Garbage("more descriptors in a message than were agreed")),
        got => Ok(got.map(|(got, _)| got)),
    }
}

/// Reads into `room` what is there, with `flags` of recvmsg(2): how many bytes, and whether descriptors were cut off. `take`
/// gets those that were received, to own; without it all are cut off. Allocates nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    take: Option<&mut dyn FnMut(RawFd)>,
    flags: libc::c_int,
) -> Result<Option<(usize, bool)>, Fault> {
    // By hand: nix gives no descriptors when some did not fit, and would leak those that did.
    const FD: usize = size_of::<RawFd>();
    // Aligned for a cmsghdr, with room for one header and MAX_FDS descriptors.
    let mut control = [0_u64; (size_of::<libc::cmsghdr>() + MAX_FDS * FD).div_ceil(8)];
    let mut iov = libc::iovec { iov_base: room.as_mut_ptr().cast::<c_void>(), iov_len: room.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if take.is_some() {
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = size_of_val(&control) as _;
    }
    let got = loop {
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header names `room` and `control`, which outlive the call, with their lengths.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(got) {
            Ok(got) => break got,
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                Errno::EAGAIN => return Ok(None),
                Errno::ECONNRESET => return Err(Fault::Closed),
                errno => return Err(Fault::Os(errno)),
            },
        }
    };
    let cut = header.msg_flags & libc::MSG_CTRUNC != 0;
    let Some(take) = take else { return Ok(Some((got, cut))) };
    // SAFETY: the header is the one that recvmsg filled; the macro stays within msg_controllen.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !next.is_null() {
        // SAFETY: not null, so within `control`, which the kernel filled and which is aligned.
        let cmsg = unsafe { *next };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: points behind the header, which is within `control`.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            // SAFETY: plain arithmetic.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..(cmsg.cmsg_len as usize).saturating_sub(head) / FD {
                // SAFETY: the kernel wrote that many descriptors there.
                let at = unsafe { data.add(index) };
                // SAFETY: the kernel wrote a descriptor there, at any alignment.
                take(unsafe { at.read_unaligned() });
            }
        }
        // SAFETY: both are what CMSG_FIRSTHDR took and gave.
        next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
    }
    Ok(Some((got, cut)))
}

/// Sends bytes with descriptors, at most [`MAX_FDS`], beside them; how many were taken. Allocates nothing.
pub fn send_without_allocating(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &[RawFd]) -> isize {
    let mut control = [0_u64; (size_of::<libc::cmsghdr>() + MAX_FDS * size_of::<RawFd>()).div_ceil(8)];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast::<c_void>(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    let fds = &fds[..fds.len().min(MAX_FDS)];
    if !fds.is_empty() {
        // SAFETY: plain arithmetic.
        let space = unsafe { libc::CMSG_SPACE(size_of_val(fds) as u32) };
        // SAFETY: plain arithmetic.
        let len = unsafe { libc::CMSG_LEN(size_of_val(fds) as u32) };
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = space as _;
        // SAFETY: the header names `control`, which has room for one header.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: all zeros is a valid cmsghdr.
        let mut cmsg: libc::cmsghdr = unsafe { std::mem::zeroed() };
        cmsg.cmsg_level = libc::SOL_SOCKET;
        cmsg.cmsg_type = libc::SCM_RIGHTS;
        cmsg.cmsg_len = len as _;
        // SAFETY: within `control`, and aligned.
        unsafe { first.write(cmsg) };
        // SAFETY: points behind the header, which is within `control`.
        let data = unsafe { libc::CMSG_DATA(first) };
        // SAFETY: `control` has room for MAX_FDS descriptors there.
        unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, size_of_val(fds)) };
    }
    // SAFETY: the header names `bytes` and `control`, which outlive the call, with their lengths.
    unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }
}
