//! Pipes that may keep a copy waiting. The wait ends when the user asks for an end: a signal alone does not end read(2) or
//! write(2).

use crate::signal;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileTypeExt,
    },
};

/// Bytes that a pipe takes at once when it can be written (PIPE_BUF).
const PIECE: usize = 4096;

/// Waits until a stream can be read or written; returns `false` if the user asks for an end before.
fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<bool> {
    while !signal::interrupted() {
        match poll(&mut [PollFd::new(fd, events)], PollTimeout::from(100_u8)) {
            Ok(0) | Err(Errno::EINTR) => {}
            // The end of the stream or an error, too, which the call reports.
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

/// Reads until the buffer is full, the input ends, or the user asks for an end; returns the number of bytes read.
pub fn fill(input: &mut (impl io::Read + AsFd), mut buffer: &mut [u8]) -> io::Result<usize> {
    let whole = buffer.len();
    while !buffer.is_empty() && is_ready(input.as_fd(), PollFlags::POLLIN)? {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole - buffer.len())
}

/// Standard output, without a buffer.
pub struct Stdout {
    file: File,
    is_pipe: bool,
}

impl Stdout {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let is_pipe = file.metadata()?.file_type().is_fifo();
        Ok(Self { file, is_pipe })
    }
}

impl Write for Stdout {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.is_pipe || data.is_empty() {
            return self.file.write(data);
        }
        if !is_ready(self.file.as_fd(), PollFlags::POLLOUT)? {
            return Err(io::Error::other("interrupted while the reader took nothing"));
        }
        self.file.write(&data[..data.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
