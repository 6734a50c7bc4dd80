//! A volatile write cache in front of a medium.

use super::{super::HostMemory, Media};
use crate::spec::Status;
use nix::errno::Errno;
use std::{collections::BTreeMap, io, ptr::NonNull};

/// A medium behind a volatile write cache, which [`lose_power`](Media::lose_power) loses.
///
/// The cache keeps each version of a unit (of `unit` bytes, the atomic unit) since the last flush. A power cut leaves of
/// each unit the flushed version or one of these, at random: so writes are lost, torn at units, or reordered, and nothing
/// worse.
#[derive(Debug)]
pub struct Cached<M> {
    medium: M,
    unit: u64,
    capacity: u64,
    /// The versions of units since the last flush, the newest last.
    versions: BTreeMap<u64, Vec<Box<[u8]>>>,
    /// Bytes of all versions.
    held: u64,
    /// The medium did not take a version, which is lost: all flushes fail.
    has_lost_writes: bool,
}

impl<M: Media> Cached<M> {
    /// Puts a cache of `capacity` bytes in front of `medium`, which is accessed in units of `unit` bytes, a block for example. A
    /// full cache is written to the medium.
    pub fn new(medium: M, unit: u64, capacity: u64) -> Self {
        let (versions, held, has_lost_writes) = (BTreeMap::new(), 0, false);
        Self { medium, unit: unit.max(1), capacity, versions, held, has_lost_writes }
    }

    /// Returns the medium behind the cache.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// Calls `each` for the parts of a range in each unit: with the unit, the offset in it, and the position in the
    /// range.
    fn units(
        unit: u64,
        offset: u64,
        len: usize,
        mut each: impl FnMut(u64, usize, usize, usize) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % unit) as usize;
            let part = (len - done).min(unit as usize - within);
            each(at / unit, within, done, part)?;
            done += part;
        }
        Ok(())
    }

    /// Returns the present version of a unit.
    fn newest(&mut self, index: u64) -> Result<Box<[u8]>, Status> {
        if let Some(newest) = self.versions.get(&index).and_then(|versions| versions.last()) {
            return Ok(newest.clone());
        }
        let mut bytes = vec![0; self.unit as usize];
        let len = bytes.len();
        self.medium.read(&mut Bytes(&mut bytes), index * self.unit, 0, len)?;
        Ok(bytes.into())
    }

    fn add(&mut self, index: u64, version: Box<[u8]>) {
        self.held += version.len() as u64;
        self.versions.entry(index).or_default().push(version);
    }

    /// Writes a version of each unit to the medium, by `choose` from the number of versions: `None` keeps the flushed
    /// one.
    fn settle(&mut self, mut choose: impl FnMut(usize) -> Option<usize>) -> Result<(), Status> {
        let (unit, mut result) = (self.unit, Ok(()));
        for (index, mut versions) in std::mem::take(&mut self.versions) {
            let chosen = choose(versions.len()).and_then(|chosen| versions.get_mut(chosen));
            if let Some(version) = chosen {
                let len = version.len();
                let written = self.medium.write(&mut Bytes(version), index * unit, 0, len);
                result = result.and(written);
            }
        }
        self.held = 0;
        self.has_lost_writes |= result.is_err();
        result
    }

    /// Writes everything to the medium if the cache is full.
    fn make_room(&mut self) -> Result<(), Status> {
        if self.held > self.capacity { self.settle(|count| Some(count - 1)) } else { Ok(()) }
    }
}

// SAFETY: `read` writes, and `write` reads, the parts of the call's `len` bytes at `iova`, before it returns. The medium behind it
// is given bytes of the cache in place of the host's memory.
unsafe impl<M: Media> Media for Cached<M> {
    fn moves_data(&self) -> bool {
        self.medium.moves_data()
    }

    fn is_volatile(&self) -> bool {
        true
    }

    #[inline(never)]
    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        Self::units(self.unit, offset, len, |index, within, done, part| {
            let newest = self.newest(index)?;
            let bytes = newest.get(within..within + part).ok_or(Status::INTERNAL_ERROR)?;
            host.write(iova + done as u64, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
        })
    }

    #[inline(never)]
    fn write(
        &mut self,
        host: &mut impl HostMemory,
        offset: u64,
        iova: u64,
        len: usize,
    ) -> Result<(), Status> {
        Self::units(self.unit, offset, len, |index, within, done, part| {
            let mut version = self.newest(index)?;
            let bytes = version.get_mut(within..within + part).ok_or(Status::INTERNAL_ERROR)?;
            host.read(iova + done as u64, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            self.add(index, version);
            Ok(())
        })?;
        self.make_room()
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        if len >= self.capacity / 2 {
            // Too much for the cache: the medium has it at once. A long command comes in pieces.
            self.settle(|count| Some(count - 1))?;
            return self.medium.zero(offset, len);
        }
        Self::units(self.unit, offset, len as usize, |index, within, _, part| {
            let mut version = self.newest(index)?;
            version.get_mut(within..within + part).ok_or(Status::INTERNAL_ERROR)?.fill(0);
            self.add(index, version);
            Ok(())
        })?;
        self.make_room()
    }

    fn erase(&mut self, offset: u64, len: u64, most: u64) -> Result<u64, Status> {
        // The medium has it at once: versions of erased units must not come back with a power cut.
        self.settle(|count| Some(count - 1))?;
        self.medium.erase(offset, len, most)
    }

    fn flush(&mut self) -> Result<(), Status> {
        let settled = self.settle(|count| Some(count - 1));
        let flushed = self.medium.flush();
        if self.has_lost_writes {
            return Err(Status::WRITE_FAULT.with_do_not_retry());
        }
        settled.and(flushed)
    }

    fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        let lost =
            self.settle(|count| (random() % (count as u64 + 1)).checked_sub(1).map(|chosen| chosen as usize));
        if let Err(status) = lost {
            tracing::error!(%status, "writing what survives a power cut failed");
        }
        self.medium.lose_power(random);
    }

    fn forget_host(&mut self) {
        self.medium.forget_host();
    }
}

/// Bytes of this process as a host's memory from address 0 on, for a medium to copy.
#[derive(Debug)]
pub struct Bytes<'b>(pub &'b mut [u8]);

impl Bytes<'_> {
    fn part(&mut self, iova: u64, len: usize) -> io::Result<&mut [u8]> {
        let start = usize::try_from(iova).map_err(|_| Errno::EFAULT)?;
        let part = start.checked_add(len).and_then(|end| self.0.get_mut(start..end));
        Ok(part.ok_or(Errno::EFAULT)?)
    }
}

// SAFETY: it translates nothing.
unsafe impl HostMemory for Bytes<'_> {
    fn translate(&mut self, _iova: u64, _len: usize) -> Option<NonNull<u8>> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(self.part(iova, data.len())?);
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        self.part(iova, data.len())?.copy_from_slice(data);
        Ok(())
    }
}
