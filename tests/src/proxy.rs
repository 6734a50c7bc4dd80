//! A proxy between a vfio-user client and `nvme-emu`, which passes other descriptors on than it got.

use crate::process::{Directory, Server};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, sendmsg};
use std::{
    io::{IoSlice, IoSliceMut},
    net::Shutdown,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};
use upcie_core::device::Address;

/// The sender of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client sends its memory and its eventfds.
    Client,
    /// The server sends the files behind its BARs.
    Server,
}

/// Starts a proxy of `server` for one client, with a socket in `directory`. Returns the socket's path, and a thread that
/// ends when the server has closed the connection. `replace` returns the descriptor to pass on.
///
/// # Panics
/// Panics if there can be no such socket.
pub fn proxy(
    server: &Server,
    directory: &Directory,
    replace: impl Fn(Sender, OwnedFd) -> OwnedFd + Send + Sync + 'static,
) -> (PathBuf, JoinHandle<()>) {
    let Address::VfioUser(to) = server.address() else { panic!("no socket") };
    let path = directory.path().join("proxy");
    let listener = UnixListener::bind(&path).expect("a socket");
    let replace = Arc::new(replace);
    let thread = thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        let server = UnixStream::connect(to).expect("a server");
        thread::spawn({
            let (from, to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            let replace = replace.clone();
            move || pass(&from, &to, |fd| replace(Sender::Client, fd))
        });
        pass(&server, &client, |fd| replace(Sender::Server, fd));
    });
    (path, thread)
}

/// Passes bytes and descriptors on until an end closes the connection, which closes the other one.
fn pass(from: &UnixStream, to: &UnixStream, replace: impl Fn(OwnedFd) -> OwnedFd) {
    let mut bytes = vec![0; 64 << 10];
    while let Some((len, fds)) = receive(from, &mut bytes) {
        let fds: Vec<OwnedFd> = fds.into_iter().map(&replace).collect();
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent = 0;
        while sent < len {
            let rights = [ControlMessage::ScmRights(&raw)];
            let rights = if raw.is_empty() || sent > 0 { &[] } else { &rights[..] };
            let part = [IoSlice::new(&bytes[sent..len])];
            match sendmsg::<()>(to.as_raw_fd(), &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(more) => sent += more,
                Err(_) => return,
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Receives bytes, with the descriptors beside them; `None` at the end.
fn receive(from: &UnixStream, bytes: &mut [u8]) -> Option<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; 8]);
    let mut room = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let got: RecvMsg<'_, '_, ()> = recvmsg(from.as_raw_fd(), &mut room, Some(&mut control), flags).ok()?;
    if got.bytes == 0 {
        return None;
    }
    let mut fds = Vec::new();
    for message in got.cmsgs().expect("room for them") {
        if let ControlMessageOwned::ScmRights(some) = message {
            // SAFETY: the descriptors were received just now, so nobody else owns them.
            fds.extend(some.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Some((got.bytes, fds))
}
