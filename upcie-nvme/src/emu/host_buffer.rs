//! The host memory buffer: memory of the host that the controller borrows.
//!
//! This controller keeps a mark in the first and last bytes of each piece, and looks at the marks whenever the health log
//! is read: a host that uses the memory for something else, or frees it, is found out.

use super::HostMemory;
use crate::spec::{Command, HostMemoryBufferEnable, HostMemoryDescriptor, Status};
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of the units of HMPRE, HMMIN and HMMINDS.
pub(super) const UNIT: u64 = 4096;
/// The most pieces (HMMAXD).
pub(super) const PIECES: u16 = 64;
/// The least bytes of a piece (HMMINDS).
pub(super) const LEAST: u64 = 16 << 10;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
/// Bytes of a mark.
const MARK: u64 = 8;

/// Returns the least bytes that a controller takes that wishes `wanted` (HMMIN).
pub(super) fn least(wanted: u64) -> u64 {
    wanted / 4 / UNIT * UNIT
}

/// The memory that the host lends.
#[derive(Debug, Default)]
pub(super) struct HostBuffer {
    enabled: bool,
    /// Address and length of each piece, kept while it is not enabled: the host may return it.
    pieces: Vec<(u64, u64)>,
    /// The value of the marks.
    mark: u64,
    /// Dwords 12 to 15 of the Set Features that enabled it.
    attributes: [u32; 4],
}

impl HostBuffer {
    /// Stops using the memory, as a controller reset does.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    /// Returns dword 0 of Get Features.
    pub fn dword0(&self) -> u32 {
        HostMemoryBufferEnable::new().with_enabled(self.enabled).into_bits()
    }

    /// Returns the first bytes of Get Features' data.
    pub fn attributes(&self) -> [u32; 4] {
        if self.enabled { self.attributes } else { [0; 4] }
    }

    /// Carries out Set Features. `page` is CC.MPS in bytes, `least` the bytes that the controller needs. One that fails changes
    /// nothing.
    ///
    /// # Errors
    /// The list or a piece of the memory can't be used, or can't be read or written.
    pub fn set(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        (page, least): (u64, u64),
    ) -> Result<(), Status> {
        let wanted = HostMemoryBufferEnable::from_bits(command.cdw11);
        if !wanted.enabled() {
            self.enabled = false;
            return Ok(());
        }
        if self.enabled {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
        }
        let bytes = u64::from(command.cdw12) * page;
        let list = u64::from(command.cdw13) | u64::from(command.cdw14) << 32;
        if bytes < least || list % 16 != 0 || command.cdw15 > PIECES.into() {
            return Err(INVALID_FIELD);
        }
        let mut pieces = Vec::new();
        for index in 0..u64::from(command.cdw15) {
            let mut piece = HostMemoryDescriptor::new_zeroed();
            let at = list.checked_add(16 * index).ok_or(INVALID_FIELD)?;
            host.read(at, piece.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            let len = u64::from(piece.size) * page;
            // Its last byte must have an address.
            if piece.address % page != 0 || len < LEAST || piece.address.checked_add(len - 1).is_none() {
                return Err(INVALID_FIELD);
            }
            pieces.push((piece.address, len));
        }
        if pieces.iter().map(|piece| piece.1).sum::<u64>() != bytes {
            return Err(INVALID_FIELD);
        }
        if wanted.memory_return() {
            if pieces != self.pieces {
                return Err(INVALID_FIELD);
            }
            self.check(host)?;
        }
        let attributes = [command.cdw12, command.cdw13, command.cdw14, command.cdw15];
        let lent = Self { enabled: true, pieces, mark: self.mark, attributes };
        lent.write(host)?;
        *self = lent;
        Ok(())
    }

    /// Uses the memory, if there is some: looks at the marks, and writes new ones.
    pub fn touch(&mut self, host: &mut impl HostMemory) -> Result<(), Status> {
        if !self.enabled {
            return Ok(());
        }
        self.check(host)?;
        self.mark += 1;
        self.write(host)
    }

    /// Returns the places of the marks, and the value of each.
    fn marks(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.pieces.iter().flat_map(|&(address, len)| [address, address + (len - MARK)]);
        let mark = self.mark;
        ends.map(move |at| (at, mark ^ at.rotate_left(17)))
    }

    fn check(&self, host: &mut impl HostMemory) -> Result<(), Status> {
        for (at, value) in self.marks() {
            let mut found = [0; MARK as usize];
            host.read(at, &mut found).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            if u64::from_le_bytes(found) != value {
                return Err(Status::INTERNAL_ERROR.with_do_not_retry());
            }
        }
        Ok(())
    }

    fn write(&self, host: &mut impl HostMemory) -> Result<(), Status> {
        self.marks().try_for_each(|(at, value)| {
            host.write(at, &value.to_le_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)
        })
    }
}
