//! The side of the process that is given a region.

use super::{
    export::{deadline, explain, wait},
    message::{Bad, Description, HEADER, Header, VERSION},
};
use crate::{
    Error, Result,
    dma::Addresses,
    inspect::{ROOM, brings_descriptors, is_own, read_inspected, read_plain},
    memory::{self, PageSize},
    mmio::{self, Mapping},
    socket::{Fault, poll_for, read_some},
};
use nix::poll::{PollFd, PollFlags};
use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

const DEVICE: &str = "a shared region";
const TAKING: &str = "taking it from another process";

/// A region of DMA memory of another process, mapped here too.
///
/// Its bytes may be changed by the device and by other processes at any time: they are copied in and out, byte by byte or
/// in words of 8, and no reference to them is formed. What two processes write at once to the same place comes out in any
/// mixture of both. It stays mapped, and can be accessed without a fault, for as long as this exists, whether or not its
/// owner does: see [`check`](Self::check).
#[derive(Debug)]
pub struct SharedRegion {
    mapping: Mapping,
    description: Description,
    /// The owner is at its other end.
    connection: UnixStream,
}

impl SharedRegion {
    /// Takes the region that the process at the other end of `from` sends by
    /// [`Region::export`](crate::dma::Region::export), and not a byte of what it sends after that.
    ///
    /// It keeps a descriptor of the connection, to see when the owner is gone.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it is not there, whole, within `timeout`; [`Error::Gone`] when the other side is gone;
    /// [`Error::Unsupported`] for another version of the message; [`Error::Protocol`] when it is none, comes with
    /// anything but one descriptor, or does not fit the file; [`Error::Unusable`] when that is no memory file, or could
    /// shrink; those of mapping it. Nothing of it is kept then, and the connection is of no more use.
    pub fn import(from: &UnixStream, timeout: Duration) -> Result<Self> {
        Self::receive(from, is_own(from), timeout)
    }

    /// As [`import`](Self::import); `own`: the other end is this process's, and what it sends needs no look before it is here.
    pub(super) fn receive(from: &UnixStream, own: bool, timeout: Duration) -> Result<Self> {
        let broken = |reason: &str| Error::Protocol {
            device: DEVICE.into(),
            operation: TAKING.into(),
            reason: reason.into(),
        };
        let bad = |bad| match bad {
            Bad::Version(version) => Error::Unsupported {
                device: DEVICE.into(),
                what: format!("version {version} of its description"),
                reason: format!("version {VERSION} is: build both programs with the same upcie-core"),
            },
            Bad::Content(reason) => broken(reason),
        };
        let end = deadline(timeout);
        let mut message = Incoming { from, own, begun: false, fds: Vec::new(), refused: 0 };
        let mut read = |room: &mut [u8]| {
            message.fill(room, end).map_err(|fault| explain(fault, DEVICE, TAKING, timeout))
        };
        let mut head = [0; HEADER];
        read(&mut head)?;
        let header = Header::parse(&head).map_err(bad)?;
        let mut tail = vec![0; header.tail()];
        read(&mut tail)?;
        let description = header.describe(&tail).map_err(bad)?;
        let Incoming { mut fds, refused, .. } = message;
        let fd: OwnedFd = match (fds.pop(), fds.pop(), refused) {
            (Some(fd), None, 0) => fd,
            (None, _, 0) => return Err(broken("no descriptor came with it")),
            (None, _, 1) => return Err(memory::not_memory()),
            _ => return Err(broken("more than one descriptor came with it")),
        };
        let file = memory::check(fd.as_fd())?;
        if file.page != description.page {
            return Err(broken("the file has pages of another size"));
        }
        // All of it: whether a part has holes, the kernel does not say.
        if description.len as u64 != file.len {
            return Err(broken("the file is not as long as the region"));
        }
        // Mapping it fills in what is missing: memory that the owner does not have is not taken from the system here.
        if file.present < description.len as u64 {
            return Err(broken("the file has holes"));
        }
        let mapping = Mapping::new(fd.as_fd(), 0, description.len, DEVICE)?;
        let connection =
            from.try_clone().map_err(|e| Error::os(DEVICE, "keeping a descriptor of the connection", e))?;
        Ok(Self { mapping, description, connection })
    }

    /// Its id in its owner ([`Region::id`](crate::dma::Region::id)).
    pub fn id(&self) -> u64 {
        self.description.id
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.description.len
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of its pages.
    pub fn page_size(&self) -> PageSize {
        self.description.page
    }

    /// The device that its owner drives, as the owner calls it.
    pub fn device(&self) -> &str {
        &self.description.device
    }

    /// Whether its addresses are physical ones.
    pub fn is_physical(&self) -> bool {
        self.description.physical
    }

    /// All its device addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.description.addresses
    }

    /// The device address of the byte at `offset`: where the owner's device finds it, if the owner tells the truth.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when there is no such byte.
    pub fn iova(&self, offset: usize) -> Result<u64> {
        self.range("looking up an address", offset, 1)?;
        Ok(self.description.addresses.at(offset))
    }

    /// Where this process sees it: for raw access, volatile or atomic, by code that has agreed with the others on who
    /// writes when. Never a reference.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Copies the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when they are not all in the region. That the owner is gone is no error: see
    /// [`check`](Self::check).
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        let from = self.range("reading", offset, data.len())?;
        // SAFETY: as many bytes of a live mapping, as just checked.
        unsafe { mmio::copy_from(from, data) }
        Ok(())
    }

    /// Copies `data` to the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        let to = self.range("writing", offset, data.len())?;
        // SAFETY: as many bytes of a live mapping, as just checked; in this process nobody else writes through it.
        unsafe { mmio::copy_to(to, data) }
        Ok(())
    }

    /// Whether the owner still is there and has not taken the region back. Looks at the connection and does not wait: one
    /// system call.
    ///
    /// An owner that is gone is noticed as soon as no process has its end of the connection any more. While this exists, the
    /// owner in turn does not see that the connection is closed on this side.
    ///
    /// # Errors
    /// [`Error::Gone`] when it is not: the memory can be accessed as before, but no device will look at it. The system's.
    pub fn check(&self) -> Result<()> {
        let operation = "looking for the process that shares its memory";
        // What comes is an end of it, whatever it is called: nothing else is asked for.
        let mut polled = [PollFd::new(self.connection.as_fd(), PollFlags::from_bits_retain(libc::POLLRDHUP))];
        poll_for(&mut polled, Duration::ZERO).map_err(|errno| Error::os(self.device(), operation, errno))?;
        match polled[0].revents() {
            Some(events) if events.is_empty() => Ok(()),
            _ => Err(explain(Fault::Closed, self.device(), operation, Duration::ZERO)),
        }
    }

    fn range(&self, operation: &str, offset: usize, len: usize) -> Result<*mut u8> {
        let all = self.len();
        match offset.checked_add(len) {
            Some(end) if end <= all => Ok(self.as_ptr().wrapping_add(offset)),
            _ => Err(Error::OutOfRange {
                device: format!("a shared region of {}", self.device()),
                operation: operation.into(),
                offset: offset as u64,
                len: len as u64,
                size: all as u64,
            }),
        }
    }
}

/// A message that is on its way, and what has come beside it.
struct Incoming<'a> {
    from: &'a UnixStream,
    own: bool,
    /// A byte has come.
    begun: bool,
    fds: Vec<OwnedFd>,
    /// Descriptors that this process does not have, for they are no memory.
    refused: u32,
}

impl Incoming<'_> {
    /// Fills `room`, until `end`.
    fn fill(&mut self, mut room: &mut [u8], end: Instant) -> Result<(), Fault> {
        while !room.is_empty() {
            match self.read(room)? {
                Some(0) => return Err(Fault::Closed),
                Some(got) => {
                    self.begun = true;
                    room = &mut std::mem::take(&mut room)[got..];
                }
                None => wait(self.from, PollFlags::POLLIN, end)?,
            }
        }
        Ok(())
    }

    /// Reads what is there. A descriptor comes beside the first byte. A stranger's is looked at by a child first, for to
    /// close it could take for ever.
    fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, Fault> {
        if self.own {
            return read_some(self.from, room, &mut self.fds);
        }
        match if self.begun { Some(false) } else { brings_descriptors(self.from)? } {
            None => Ok(None),
            Some(true) => {
                let len = room.len().min(ROOM);
                let (got, refused) = read_inspected(self.from, &mut room[..len], &mut self.fds)?;
                self.refused += refused;
                Ok(Some(got))
            }
            Some(false) => {
                let got = read_plain(self.from, room)?;
                self.refused += got.map_or(0, |(_, cut)| cut.into());
                Ok(got.map(|(got, _)| got))
            }
        }
    }
}
