//! Streams of a peer: bytes and descriptors that lie in a socket before the other side reads.

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, MsgFlags, sendmsg},
    },
    unistd::ftruncate,
};
use std::{
    cell::OnceCell,
    fs::File,
    io::{IoSlice, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
};

/// Bytes of the file that a peer may send.
pub const MEMORY: usize = 64 << 10;

thread_local! {
    static FILE: OnceCell<File> = const { OnceCell::new() };
}

/// Calls `with` with the file that a peer may send: memory.
pub fn with_memory<T>(with: impl FnOnce(&File) -> T) -> T {
    FILE.with(|file| {
        with(file.get_or_init(|| {
            let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
            let file: OwnedFd = memfd_create(c"fuzz", flags).expect("a memfd");
            ftruncate(&file, MEMORY as i64).expect("64 KiB of memory");
            file.into()
        }))
    })
}

/// Fills the file with zeros.
pub fn clear_memory() {
    with_memory(|file| file.write_all_at(&[0; MEMORY], 0).expect("zeros"));
}

/// A peer that sends everything before anybody reads.
pub struct Peer(UnixStream);

impl Peer {
    /// Makes a peer, and the other end of its connection.
    pub fn new() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.set_nonblocking(true).expect("a socket");
        (Self(ours), theirs)
    }

    /// Sends bytes, as many as fit, with the memory's descriptor or without.
    pub fn send(&self, bytes: &[u8], brings_memory: bool) {
        with_memory(|file| {
            let fds = [file.as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let rights = if brings_memory { &rights[..] } else { &[] };
            let flags = MsgFlags::MSG_NOSIGNAL;
            // The other side has closed, or the socket is full: it gets no more.
            let _ = sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None);
        });
    }

    /// Returns the bytes that the other side has sent, as far as the socket keeps them.
    pub fn received(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The other side may have closed without reading everything, which is an error after the bytes.
        let _ = (&self.0).read_to_end(&mut bytes);
        bytes
    }

    /// Sends no more; what was sent can still be read, and answered.
    pub fn end(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

/// Makes the bytes of a message.
pub fn message(id: u16, command: u16, flags: u32, error: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + payload.len());
    bytes.extend(id.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend((16 + payload.len() as u32).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(error.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

/// Takes records from an input: a byte, a length, and as many bytes.
pub struct Records<'d>(pub &'d [u8]);

impl<'d> Iterator for Records<'d> {
    type Item = (u8, &'d [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, len, rest @ ..] = self.0 else { return None };
        let (bytes, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        self.0 = rest;
        Some((*kind, bytes))
    }
}

/// Makes a record.
pub fn record(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    let mut record = vec![kind, bytes.len() as u8];
    record.extend(&bytes[..bytes.len().min(255)]);
    record
}
