//! The location of a command's data in the host's memory, or in the controller's own: PRPs or an SGL.

use super::{
    HostMemory,
    own_memory::OneMemory,
    prp,
    sgl::{self, Rules},
};
use crate::spec::{Command, SglDescriptor, Status};
use std::{fmt, str::FromStr};

/// Bytes of a host's buffer that are written where a structure has fewer.
const PADDED: usize = 1 << 20;

/// The SGLs that the controller announces (`sgl=`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sgls {
    /// None.
    None,
    /// Data blocks have whole dwords.
    Dwords,
    /// Data blocks of any length at any address.
    #[default]
    Bytes,
}

impl FromStr for Sgls {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "false" => Ok(Self::None),
            "dwords" => Ok(Self::Dwords),
            "true" => Ok(Self::Bytes),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Sgls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "false",
            Self::Dwords => "dwords",
            Self::Bytes => "true",
        })
    }
}

/// A command's data pointer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data {
    Prps(u64, u64),
    Sgl(SglDescriptor, Sgls),
}

impl Data {
    /// Returns the data pointer of a command, by its PSDT.
    ///
    /// # Errors
    /// Invalid Field: an SGL where `sgls` has none, or a reserved value.
    #[inline(always)]
    pub fn of(flags: u8, pointers: (u64, u64), sgls: Sgls) -> Result<Self, Status> {
        match flags & Command::PSDT {
            0 => Ok(Self::Prps(pointers.0, pointers.1)),
            Command::PSDT_SGL | Command::PSDT_SGL_METADATA if sgls != Sgls::None => {
                Ok(Self::Sgl(SglDescriptor::from_words(pointers), sgls))
            }
            _ => Err(Status::INVALID_FIELD.with_do_not_retry()),
        }
    }

    /// Calls `piece` for each piece of `len` bytes of data, in order, with its address and length; without an address for
    /// data to discard, which only data that goes to the host (`reads`) has. `page` is CC.MPS in bytes.
    ///
    /// # Errors
    /// The status for a wrong list or for data in two memories, or the error of `piece`.
    #[inline(always)]
    pub fn walk<H: HostMemory>(
        self,
        host: &mut H,
        page: u64,
        moved: (u64, bool),
        piece: impl FnMut(&mut H, Option<u64>, usize) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.walk_in(&mut OneMemory::of(host), host, page, moved, piece)
    }

    /// Walks like [`walk`](Self::walk), over data that has to be in `memory`.
    #[inline(always)]
    fn walk_in<H: HostMemory>(
        self,
        memory: &mut OneMemory,
        host: &mut H,
        page: u64,
        (len, reads): (u64, bool),
        mut piece: impl FnMut(&mut H, Option<u64>, usize) -> Result<(), Status>,
    ) -> Result<(), Status> {
        match self {
            Self::Prps(prp1, prp2) => prp::walk(host, page, (prp1, prp2), len, |host, iova, part| {
                memory.check(iova, part)?;
                piece(host, Some(iova), part)
            }),
            Self::Sgl(first, sgls) => {
                let rules = Rules { len, reads, dwords: sgls == Sgls::Dwords };
                sgl::walk(host, first, rules, |host, iova, part| {
                    iova.map_or(Ok(()), |iova| memory.check(iova, part))?;
                    piece(host, iova, part)
                })
            }
        }
    }

    /// Reads all of `bytes` from the host.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn fetch(self, host: &mut impl HostMemory, page: u64, bytes: &mut [u8]) -> Result<(), Status> {
        self.fetch_part(&mut OneMemory::of(host), host, page, (bytes.len() as u64, 0), bytes)
    }

    /// Reads `bytes` from the host, which begin with the byte `first` of `len` bytes of data that has to be in `memory`.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn fetch_part(
        self,
        memory: &mut OneMemory,
        host: &mut impl HostMemory,
        page: u64,
        (len, first): (u64, u64),
        bytes: &mut [u8],
    ) -> Result<(), Status> {
        let (mut rest, mut at) = (bytes, 0);
        self.walk_in(memory, host, page, (len, false), |host, iova, part| {
            let iova = iova.ok_or(Status::INTERNAL_ERROR)?;
            let Some((skipped, part)) = overlap(&mut at, part, first, rest.len()) else { return Ok(()) };
            let (part, after) =
                std::mem::take(&mut rest).split_at_mut_checked(part).ok_or(Status::INTERNAL_ERROR)?;
            rest = after;
            host.read(iova + skipped, part).map_err(|_| Status::DATA_TRANSFER_ERROR)
        })
    }

    /// Writes all of `bytes` to the host.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn store(self, host: &mut impl HostMemory, page: u64, bytes: &[u8]) -> Result<(), Status> {
        self.store_part(&mut OneMemory::of(host), host, page, (bytes.len() as u64, 0), bytes)
    }

    /// Writes `bytes` to the host, as those from the byte `first` of `len` bytes of data on, which has to be in `memory`.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn store_part(
        self,
        memory: &mut OneMemory,
        host: &mut impl HostMemory,
        page: u64,
        (len, first): (u64, u64),
        bytes: &[u8],
    ) -> Result<(), Status> {
        let (mut rest, mut at) = (bytes, 0);
        self.walk_in(memory, host, page, (len, true), |host, iova, part| {
            let Some((skipped, part)) = overlap(&mut at, part, first, rest.len()) else { return Ok(()) };
            let (part, after) = rest.split_at_checked(part).ok_or(Status::INTERNAL_ERROR)?;
            rest = after;
            // Without an address the host discards the part.
            iova.map_or(Ok(()), |iova| {
                host.write(iova + skipped, part).map_err(|_| Status::DATA_TRANSFER_ERROR)
            })
        })
    }

    /// Writes `bytes` to the host's buffer of `len` bytes, as many as it has room for, and zeros behind them. The end of a buffer
    /// of more than [`PADDED`] bytes stays as it is.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn store_padded(
        self,
        host: &mut impl HostMemory,
        page: u64,
        mut bytes: Vec<u8>,
        len: u64,
    ) -> Result<(), Status> {
        bytes.resize(bytes.len().max(PADDED).min(len as usize), 0);
        self.store_part(&mut OneMemory::of(host), host, page, (len, 0), &bytes)
    }

    /// Checks as much of it as needs no read of the host's memory.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk).
    pub fn check(self, page: u64, (len, reads): (u64, bool)) -> Result<(), Status> {
        match self {
            Self::Prps(prp1, prp2) => prp::check(page, (prp1, prp2), len).map(|_| ()),
            Self::Sgl(first, sgls) => sgl::check(first, Rules { len, reads, dwords: sgls == Sgls::Dwords }),
        }
    }
}

/// Returns the bytes to skip and those to take of the next `part` bytes of data, of which `at` were before: the wanted ones are
/// `left` bytes from the byte `first` on, of which some may have been taken. `None` if it has none of them.
fn overlap(at: &mut u64, part: usize, first: u64, left: usize) -> Option<(u64, usize)> {
    let start = std::mem::replace(at, *at + part as u64);
    let skipped = first.saturating_sub(start);
    let taken = (part as u64).saturating_sub(skipped).min(left as u64);
    (taken > 0).then_some((skipped, taken as usize))
}
