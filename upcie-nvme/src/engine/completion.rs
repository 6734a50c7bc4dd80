//! Finished commands, and commands that were refused.

use super::Refusal;
use crate::spec::{CompletionEntry, Status};
use std::fmt;
use upcie_core::dma::DmaBuf;

/// A finished command: its buffer, the tag that it was submitted with, and the controller's result.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use upcie_nvme::{Controller, Wait};
/// # let controller = Controller::open("emu:size=1M")?;
/// # let namespace = controller.namespace(1)?;
/// # let mut queue = controller.queue_pair().create::<u64>()?;
/// queue.turn()?.read(&namespace, 0, controller.alloc(4096)?, 17)?;
/// assert!(queue.wait(Wait::Poll, Duration::from_secs(30))?);
/// for done in queue.turn()? {
///     if let Err(status) = done.result() {
///         println!("command {} failed, to be tried again: {}", done.tag(), !status.do_not_retry());
///     }
///     let (tag, result, buffer) = done.into_parts();
///     assert_eq!((tag, result, buffer.len()), (17, Ok(()), 4096));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it holds the command's buffer"]
pub struct Completion<T> {
    pub(super) buffer: DmaBuf,
    pub(super) tag: T,
    /// Dwords 0–1, and 3, as they were read; decoded on request.
    pub(super) result: u64,
    pub(super) dword3: u32,
}

impl<T> Completion<T> {
    /// Returns the status.
    #[inline]
    pub fn status(&self) -> Status {
        Status::from_bits((self.dword3 >> 17) as u16)
    }

    /// Returns success, or the status that the controller reported in place of it.
    ///
    /// # Errors
    /// The status.
    #[inline]
    pub fn result(&self) -> Result<(), Status> {
        let status = self.status();
        if status.is_success() { Ok(()) } else { Err(status) }
    }

    /// Returns the command's buffer, empty if it had none. After an error its bytes are unspecified.
    #[inline]
    pub fn buffer(&self) -> &DmaBuf {
        &self.buffer
    }

    /// Returns dword 0: the command's own result, if it has one.
    #[inline]
    pub fn dword0(&self) -> u32 {
        self.result as u32
    }

    /// Returns dword 1: the upper half of a 64-bit result.
    #[inline]
    pub fn dword1(&self) -> u32 {
        (self.result >> 32) as u32
    }

    /// Returns dwords 0 and 1 as the number that they are: after a [Zone Append](crate::Turn::append) the first block that it
    /// has written.
    #[inline]
    pub fn block(&self) -> u64 {
        self.result
    }

    /// Returns the controller's whole entry, with this dword 2.
    pub(crate) fn entry(&self, dword2: u32) -> CompletionEntry {
        zerocopy::transmute!([self.dword0(), self.dword1(), dword2, self.dword3])
    }

    /// Returns the tag.
    #[inline]
    pub fn tag(&self) -> &T {
        &self.tag
    }

    /// Takes it apart: the tag, the status as a result, and the buffer (the empty one, if the command had
    /// none). After an error the buffer's contents are unspecified.
    #[inline]
    pub fn into_parts(self) -> (T, Result<(), Status>, DmaBuf) {
        let result = self.result();
        (self.tag, result, self.buffer)
    }
}

impl<T: fmt::Debug> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("tag", &self.tag)
            .field("status", &self.status())
            .field("buffer", &self.buffer)
            .finish()
    }
}

/// A command that was refused, returned with the reason. As the source of another error (`?` into a `Box<dyn Error>`) it
/// keeps the buffer and the tag: take them out first to send the command again.
#[must_use = "it holds the command's buffer"]
///
/// ```
/// use upcie_nvme::{Controller, Refusal};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create()?;
/// let buffer = controller.alloc(4096)?;
/// let refused = queue.turn()?.read(&namespace, namespace.blocks(), buffer, 1).unwrap_err();
/// assert_eq!(refused.reason, Refusal::OutOfRange);
/// let (buffer, tag) = (refused.buffer, refused.tag); // both are back
/// # assert_eq!((buffer.len(), tag), (4096, 1));
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
pub struct Refused<T> {
    /// The reason for the refusal.
    pub reason: Refusal,
    /// The buffer, unchanged.
    pub buffer: DmaBuf,
    /// The tag.
    pub tag: T,
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for Refused<T> {}
