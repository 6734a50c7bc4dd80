//! Non-blocking transfer of bytes with descriptors over a stream socket.

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

/// The largest number of descriptors accepted in one message.
pub const MAX_FDS: usize = 8;

/// The reason why a connection can't continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer closed it.
    Closed,
    /// The peer sent nothing, or received nothing, within the deadline.
    Late,
    /// The peer broke the protocol.
    Garbage(&'static str),
    /// The system's error.
    Os(Errno),
}

/// Waits for any of `fds`, or a signal, at most `timeout`.
pub fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> Result<(), Errno> {
    match ppoll(fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Sends bytes, with descriptors at the first one, and returns how many bytes the socket accepted; 0 if none now.
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

/// Reads the available bytes into `target`; `None` if there are none. Descriptors go to `fds`.
pub fn read_some(
    socket: &UnixStream,
    target: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<Option<usize>, Fault> {
    // SAFETY: the descriptor was just received, so nobody else owns it.
    let mut take = |raw: RawFd| fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
    match receive(socket.as_fd(), target, Some(&mut take), 0)? {
        Some((_, true)) => Err(Fault::Garbage("more descriptors in a message than agreed")),
        _ if fds.len() > MAX_FDS => Err(Fault::Garbage("more descriptors in a message than agreed")),
        received => Ok(received.map(|(received, _)| received)),
    }
}

/// Reads the available bytes into `target`, with `flags` of recvmsg(2). Returns how many bytes, and whether descriptors
/// were discarded. Each received descriptor goes to `take`, which owns it; without `take` all are discarded. Allocates
/// nothing.
pub fn receive(
    socket: BorrowedFd<'_>,
    target: &mut [u8],
    take: Option<&mut dyn FnMut(RawFd)>,
    flags: libc::c_int,
) -> Result<Option<(usize, bool)>, Fault> {
    // Parsed by hand, because nix returns no descriptors when some did not fit, and leaks those that did.
    const FD: usize = size_of::<RawFd>();
    // Aligned for a cmsghdr, with space for one header and MAX_FDS descriptors.
    let mut control = [0_u64; (size_of::<libc::cmsghdr>() + MAX_FDS * FD).div_ceil(8)];
    let mut iov = libc::iovec { iov_base: target.as_mut_ptr().cast::<c_void>(), iov_len: target.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if take.is_some() {
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = size_of_val(&control) as _;
    }
    let received = loop {
        let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header names the data buffer and `control`, which outlive the call, with their lengths.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        match usize::try_from(received) {
            Ok(received) => break received,
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                Errno::EAGAIN => return Ok(None),
                Errno::ECONNRESET => return Err(Fault::Closed),
                errno => return Err(Fault::Os(errno)),
            },
        }
    };
    let cut = header.msg_flags & libc::MSG_CTRUNC != 0;
    let Some(take) = take else { return Ok(Some((received, cut))) };
    // SAFETY: recvmsg filled the header; the macro stays within msg_controllen.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !next.is_null() {
        // SAFETY: it is not null, so it points into `control`, which the kernel filled and which is aligned.
        let cmsg = unsafe { *next };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data follow the header, which is within `control`.
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
        // SAFETY: the header is the one given to CMSG_FIRSTHDR, and `next` comes from it.
        next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
    }
    Ok(Some((received, cut)))
}

/// Sends bytes with at most [`MAX_FDS`] descriptors, and returns sendmsg(2)'s result. Allocates nothing.
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
        // SAFETY: the header names `control`, which has space for one header.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: all zeros is a valid cmsghdr.
        let mut cmsg: libc::cmsghdr = unsafe { std::mem::zeroed() };
        cmsg.cmsg_level = libc::SOL_SOCKET;
        cmsg.cmsg_type = libc::SCM_RIGHTS;
        cmsg.cmsg_len = len as _;
        // SAFETY: it is within `control`, and aligned.
        unsafe { first.write(cmsg) };
        // SAFETY: the data follow the header, which is within `control`.
        let data = unsafe { libc::CMSG_DATA(first) };
        // SAFETY: `control` has space for MAX_FDS descriptors there.
        unsafe { std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, size_of_val(fds)) };
    }
    // SAFETY: the header names `bytes` and `control`, which outlive the call, with their lengths.
    unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) }
}
