//! The location of a command's data in the host's memory, or in the controller's own: PRPs or an SGL.

use super::{
    HostMemory,
    own_memory::OneMemory,
    prp::{self, Position},
    sgl::{self, Rules},
};
use crate::spec::{Command, SglDescriptor, Status};
use std::{fmt, ops::Range, str::FromStr};

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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "false" => Ok(Self::None),
            "dwords" => Ok(Self::Dwords),
            "true" => Ok(Self::Bytes),
            _ => Err(format!("{text:?} is not true, dwords or false")),
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

/// A piece of a command's data.
#[derive(Debug)]
pub(super) struct Piece<'p> {
    /// Bytes of all of the data.
    pub len: u64,
    /// The bytes of the piece, counted from the first one of the data.
    pub range: Range<u64>,
    /// The position of the piece, or before it; of the next piece after the walk.
    pub position: &'p mut Position,
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

    /// Calls `each` for each part of a piece of data that has to be in `memory`, in order, with its place in the data,
    /// its address and its length; without an address for data to discard, which only data that goes to the host
    /// (`reads`) has. `page` is CC.MPS in bytes.
    ///
    /// # Errors
    /// The status for a wrong list or for data in two memories, also behind the piece if it is the first, or the error
    /// of `each`.
    #[inline(always)]
    pub fn walk<H: HostMemory>(
        self,
        memory: &mut OneMemory,
        host: &mut H,
        page: u64,
        reads: bool,
        piece: Piece<'_>,
        mut each: impl FnMut(&mut H, u64, Option<u64>, usize) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let Piece { len, range, position } = piece;
        let mut at = match self {
            Self::Prps(..) => position.at,
            Self::Sgl(..) => 0,
        };
        let mut cut = |host: &mut H, iova: Option<u64>, part: usize| {
            let start = at;
            at += part as u64;
            let (from, to) = (range.start.max(start), range.end.min(start + part as u64));
            if from >= to {
                return Ok(());
            }
            each(host, from, iova.map(|iova| iova + (from - start)), (to - from) as usize)
        };
        match self {
            Self::Prps(prp1, prp2) => {
                let walk = (*position, range.end);
                *position = prp::walk_from(host, page, (prp1, prp2), len, walk, |host, iova, part| {
                    memory.check(iova, part)?;
                    cut(host, Some(iova), part)
                })?;
                Ok(())
            }
            Self::Sgl(first, sgls) => {
                let rules = Rules { len, reads, dwords: sgls == Sgls::Dwords };
                sgl::walk(host, first, rules, |host, iova, part| {
                    iova.map_or(Ok(()), |iova| memory.check(iova, part))?;
                    cut(host, iova, part)
                })
            }
        }
    }

    /// Reads all of `bytes` from the host.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn fetch(self, host: &mut impl HostMemory, page: u64, bytes: &mut [u8]) -> Result<(), Status> {
        let (mut position, whole) = (Position::default(), (bytes.len() as u64, 0));
        self.fetch_part(&mut OneMemory::of(host), host, page, whole, &mut position, bytes)
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
        position: &mut Position,
        bytes: &mut [u8],
    ) -> Result<(), Status> {
        let piece = Piece { len, range: first..first + bytes.len() as u64, position };
        self.walk(memory, host, page, false, piece, |host, at, iova, part| {
            let iova = iova.ok_or(Status::INTERNAL_ERROR)?;
            let start = (at - first) as usize;
            let part = bytes.get_mut(start..start + part).ok_or(Status::INTERNAL_ERROR)?;
            host.read(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)
        })
    }

    /// Writes all of `bytes` to the host.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn store(self, host: &mut impl HostMemory, page: u64, bytes: &[u8]) -> Result<(), Status> {
        self.store_first(host, page, bytes.len() as u64, bytes)
    }

    /// Writes `bytes` to the host, as the first ones of `len` bytes of data.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), and Data Transfer Error.
    pub fn store_first(
        self,
        host: &mut impl HostMemory,
        page: u64,
        len: u64,
        bytes: &[u8],
    ) -> Result<(), Status> {
        self.store_part(&mut OneMemory::of(host), host, page, (len, 0), &mut Position::default(), bytes)
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
        position: &mut Position,
        bytes: &[u8],
    ) -> Result<(), Status> {
        let piece = Piece { len, range: first..first + bytes.len() as u64, position };
        self.walk(memory, host, page, true, piece, |host, at, iova, part| {
            let start = (at - first) as usize;
            let part = bytes.get(start..start + part).ok_or(Status::INTERNAL_ERROR)?;
            // Without an address the host discards the part.
            iova.map_or(Ok(()), |iova| host.write(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR))
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
        self.store_first(host, page, len, &bytes)
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
