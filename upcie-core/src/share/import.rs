//! The receiver's side of a shared region.

use super::{
    export::{Patience, explain},
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
    time::Duration,
};

const DEVICE: &str = "a shared region";
const TAKING: &str = "receiving it from another process";

/// A region of another process's DMA memory, mapped in this process too.
///
/// The device and other processes may change its bytes at any time: they are copied in and out, in bytes or in words of
/// 8, and no reference to them is formed. If two processes write to the same place at once, the result may be any mixture
/// of both. The region stays mapped, and accesses do not fault, while this exists, even after its owner's end: see
/// [`check`](Self::check).
///
/// ```no_run
/// use std::{os::unix::net::UnixStream, time::Duration};
/// use upcie_core::share::SharedRegion;
///
/// // The owner sends it by `Region::share`.
/// let owner = UnixStream::connect("/run/owner.sock")?;
/// let mut region = SharedRegion::import(&owner, Duration::from_secs(5))?;
/// region.write_at(0, b"for the device")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedRegion {
    mapping: Mapping,
    description: Description,
    /// The connection to the owner.
    connection: UnixStream,
}

impl SharedRegion {
    /// Receives the region that the process at the other end of `from` sends with
    /// [`Region::export`](crate::dma::Region::export), and no byte after it.
    ///
    /// The region keeps a descriptor of the connection, to notice when the owner is gone.
    ///
    /// # Errors
    /// [`Failure::Timeout`](crate::Failure::Timeout) when the message is not complete within `timeout`; [`Failure::Gone`](crate::Failure::Gone) when the other side is gone;
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) for another version of the message; [`Failure::Protocol`](crate::Failure::Protocol) when it is invalid, comes with more
    /// or fewer descriptors than one, or does not fit the file; [`Failure::Unusable`](crate::Failure::Unusable) when that is not a memory file, or
    /// could shrink; the errors of mapping it. Nothing is kept then, and the connection is unusable.
    pub fn import(from: &UnixStream, timeout: Duration) -> Result<Self> {
        Self::receive(from, is_own(from), timeout)
    }

    /// Receives a region. With `own`, the other end is this process's, so its descriptors are received without
    /// inspection.
    pub(super) fn receive(from: &UnixStream, own: bool, timeout: Duration) -> Result<Self> {
        let broken = |reason: &str| Error::protocol(DEVICE, TAKING, reason);
        let bad = |bad| match bad {
            Bad::Version(version) => Error::unsupported(
                DEVICE,
                format!("version {version} of its description"),
                format!("version {VERSION} is: build both programs with the same upcie-core"),
            ),
            Bad::Content(reason) => broken(reason),
        };
        let mut patience = Patience::new(timeout);
        let mut message = Incoming { from, own, has_begun: false, fds: Vec::new(), refused: 0 };
        let mut read = |target: &mut [u8]| {
            message.fill(target, &mut patience).map_err(|fault| explain(fault, DEVICE, TAKING, timeout))
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
        // The whole file, because the kernel does not report whether a part has holes.
        if description.len as u64 != file.len {
            return Err(broken("the file is not as long as the region"));
        }
        // Mapping would fill holes: memory that the owner does not have must not be allocated here.
        if file.present < description.len as u64 {
            return Err(broken("the file has holes"));
        }
        let mapping = Mapping::new(fd.as_fd(), 0, description.len, DEVICE)?;
        let connection =
            from.try_clone().map_err(|e| Error::os(DEVICE, "keeping a descriptor of the connection", e))?;
        Ok(Self { mapping, description, connection })
    }

    /// Returns its id in its owner ([`Region::id`](crate::dma::Region::id)).
    pub fn id(&self) -> u64 {
        self.description.id
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.description.len
    }

    /// Returns `false`: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of its pages.
    pub fn page_size(&self) -> PageSize {
        self.description.page
    }

    /// Returns the owner's name for the device.
    pub fn device(&self) -> &str {
        &self.description.device
    }

    /// Returns whether its addresses are physical.
    pub fn is_physical(&self) -> bool {
        self.description.physical
    }

    /// Returns all device addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.description.addresses
    }

    /// Returns the device address of the byte at `offset`, as reported by the owner.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange) when `offset` is not within the region.
    pub fn iova(&self, offset: usize) -> Result<u64> {
        self.range("looking up an address", offset, 1)?;
        Ok(self.description.addresses.at(offset))
    }

    /// Returns the address of the first byte in this process: for raw access, volatile or atomic, by code that has agreed
    /// with the others on who writes when. Never form a reference.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Copies the bytes from `offset` on to `data`.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange) when the range is not within the region. After the owner's end there is no error: see
    /// [`check`](Self::check).
    pub fn read_at(&self, offset: usize, data: &mut [u8]) -> Result<()> {
        let from = self.range("reading", offset, data.len())?;
        // SAFETY: `range` checked that the bytes are in the live mapping.
        unsafe { mmio::copy_from(from, data) }
        Ok(())
    }

    /// Copies `data` to the bytes from `offset` on.
    ///
    /// # Errors
    /// Those of [`read_at`](Self::read_at).
    pub fn write_at(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        let to = self.range("writing", offset, data.len())?;
        // SAFETY: `range` checked that the bytes are in the live mapping; `&mut self` excludes other writers in this
        // process.
        unsafe { mmio::copy_to(to, data) }
        Ok(())
    }

    /// Checks that the owner is still there and has not taken the region back, by one system call on the connection that
    /// does not wait.
    ///
    /// An owner's end is noticed as soon as no process has its end of the connection any more. While this exists, the
    /// owner in turn does not see a closed connection on this side.
    ///
    /// # Errors
    /// [`Failure::Gone`](crate::Failure::Gone) when the owner is gone: the memory is still accessible, but no device accesses it. The system's
    /// errors.
    pub fn check(&self) -> Result<()> {
        let operation = "checking the process that shares its memory";
        // Only events that mean the end of the connection are requested.
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
            _ => Err(Error::out_of_range(
                format!("a shared region of {}", self.device()),
                operation,
                offset as u64,
                len as u64,
                all as u64,
            )),
        }
    }
}

/// A message that is being received, with its descriptors.
struct Incoming<'a> {
    from: &'a UnixStream,
    own: bool,
    /// Set once the first byte has been received.
    has_begun: bool,
    fds: Vec<OwnedFd>,
    /// The number of descriptors that were not accepted, because they are not memory.
    refused: u32,
}

impl Incoming<'_> {
    /// Fills `target` while `patience` lasts.
    fn fill(&mut self, mut target: &mut [u8], patience: &mut Patience) -> Result<(), Fault> {
        while !target.is_empty() {
            match self.read(target)? {
                Some(0) => return Err(Fault::Closed),
                Some(received) => {
                    self.has_begun = true;
                    target = &mut std::mem::take(&mut target)[received..];
                }
                None => patience.wait(self.from, PollFlags::POLLIN)?,
            }
        }
        Ok(())
    }

    /// Reads the available bytes. A descriptor comes with the first byte. A foreign process's descriptor is first
    /// inspected by a child process, because closing it could block for ever.
    fn read(&mut self, target: &mut [u8]) -> Result<Option<usize>, Fault> {
        if self.own {
            return read_some(self.from, target, &mut self.fds);
        }
        match if self.has_begun { Some(false) } else { brings_descriptors(self.from)? } {
            None => Ok(None),
            Some(true) => {
                let len = target.len().min(ROOM);
                let (received, refused) = read_inspected(self.from, &mut target[..len], &mut self.fds)?;
                self.refused += refused;
                Ok(Some(received))
            }
            Some(false) => {
                let received = read_plain(self.from, target)?;
                self.refused += received.map_or(0, |(_, cut)| cut.into());
                Ok(received.map(|(received, _)| received))
            }
        }
    }
}
