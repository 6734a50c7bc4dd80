//! A server's regions, accessed by the client through mappings or messages.

use super::connection::Connection;
use crate::{
    Error, Result,
    deadline::Budget,
    memory::MemoryFile,
    mmio::{Area, Mapping, RegionIo, is_installed},
    vfio_user::wire::{RegionAccess, RegionDescription, RegionInfo, command, parse_region_info},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};
use zerocopy::IntoBytes;

/// Limit on the size of a region's description in bytes.
const MAX_DESCRIPTION: u32 = 64 << 10;

/// The file behind a region, as received from its server.
#[derive(Debug)]
pub enum File {
    None,
    Memory(OwnedFd),
    /// A descriptor that was not accepted, because it is not memory.
    Refused,
}

/// Requests a region's description and the file to map.
pub fn region(connection: &Connection, index: u32) -> Result<(RegionDescription, File)> {
    let operation = format!("requesting region {index}'s description");
    // The first size fits a usual chain of capabilities; a server with a longer one reports its size, once.
    for argsz in [1024, MAX_DESCRIPTION] {
        let asked = RegionInfo { argsz, index, ..RegionInfo::default() };
        let reply = connection.request(command::GET_REGION_INFO, &operation, &[asked.as_bytes()], &[])?;
        let (info, _) = connection.parse::<RegionInfo>(&operation, &reply.payload)?;
        if info.index != index || reply.payload.len() > argsz as usize {
            return Err(connection.protocol(&operation, "another description than the requested one"));
        }
        if info.argsz <= argsz {
            let region = parse_region_info(&reply.payload);
            let region = region.map_err(|reason| connection.protocol(&operation, reason))?;
            let file = match reply.fds.into_iter().next() {
                Some(fd) => File::Memory(fd),
                None if reply.refused > 0 => File::Refused,
                None => File::None,
            };
            return Ok((region, file));
        }
    }
    Err(connection.protocol(&operation, "a description that is too long"))
}

/// Limit on the mapped bytes of a region. A server's file may have no pages yet: mapping it must not use up memory, not
/// even for page tables.
const MAX_MAPPED: u64 = 1 << 30;

/// Returns offset and length of a region's mappable parts in ascending order: the areas that its server lists, or the
/// whole region. Checks that they do not overlap and are within the limit together.
fn areas(region: &RegionDescription) -> std::result::Result<Vec<(u64, u64)>, &'static str> {
    let mut areas = region.areas.clone().unwrap_or_else(|| vec![(0, region.info.size)]);
    areas.sort_unstable();
    // Parsing has checked their number, and that each lies within the region.
    if areas.windows(2).any(|pair| pair[0].0.saturating_add(pair[0].1) > pair[1].0) {
        return Err("mappable areas that overlap");
    }
    let sum = areas.iter().try_fold(0_u64, |sum, &(_, len)| sum.checked_add(len));
    if sum.is_none_or(|sum| sum > MAX_MAPPED) {
        return Err("more than 1 GiB of mappable areas in one region");
    }
    Ok(areas)
}

/// The outcome of mapping a region's areas.
#[derive(Debug)]
pub enum Mapped {
    Areas(Vec<Area>),
    /// The whole region is accessed by message, for this reason.
    Not(&'static str),
}

/// The reason why a file is not mapped.
pub const NO_MEMORY: &str = "the file behind it is not one of memory (memfd, tmpfs, hugetlbfs), and only for such files does the kernel alone \
                             decide when an access returns: let the server keep it in /dev/shm or /run";

/// The reason why a memory file is not mapped.
pub const MAY_FAULT: &str = "the file behind it can't be sealed, so its server may shrink it, or has huge pages, so its server may take \
                             some back, and then an access would end this process (SIGBUS): let the server take a memfd of small \
                             pages that allows seals, or call upcie_core::memory::survive_shrinking before the device is opened";

/// Maps a region's areas of the file received from its server: all of them or none.
pub fn map_areas(
    connection: &Connection,
    operation: &str,
    region: &RegionDescription,
    fd: &OwnedFd,
) -> Result<Mapped> {
    let bad = |reason: &str| connection.protocol(operation, reason);
    let areas = areas(region).map_err(bad)?;
    let Some(file) = MemoryFile::look(fd.as_fd()) else { return Ok(Mapped::Not(NO_MEMORY)) };
    let mut places = Vec::with_capacity(areas.len());
    for (offset, len) in areas {
        let at = region.info.offset.checked_add(offset);
        let end = at.and_then(|at| at.checked_add(len));
        let (Some(at), Some(end)) = (at, end) else {
            return Err(bad("a mappable area beyond the largest file offset"));
        };
        let size = usize::try_from(len).map_err(|_| bad("a mappable area larger than memory"))?;
        // An access beyond a file's end would fault.
        if end > file.len {
            return Err(bad("a mappable area beyond its file's end"));
        }
        places.push((offset, at, size));
    }
    // The SIGBUS handler replaces whole mappings, so with huge pages the areas must be whole huge pages.
    let is_whole = |&(_, _, size): &(u64, u64, usize)| size as u64 % file.step == 0;
    let is_survived = file.never_faults || is_installed() && places.iter().all(is_whole);
    if !is_survived {
        return Ok(Mapped::Not(MAY_FAULT));
    }
    let map = |(offset, at, size)| {
        let make = if file.never_faults { Mapping::unpopulated } else { Mapping::guarded };
        let mapping = make(fd.as_fd(), at, size, connection.name())?;
        Ok(Area { offset, mapping: Arc::new(mapping) })
    };
    places.into_iter().map(map).collect::<Result<_>>().map(Mapped::Areas)
}

/// Access to a region by message.
pub struct RegionAccessor {
    pub connection: Arc<Connection>,
    pub region: u32,
    pub size: u64,
    /// The mapped parts.
    pub areas: Vec<Area>,
}

impl RegionAccessor {
    fn check(&self, operation: &str, offset: u64, len: usize) -> Result<()> {
        if self.areas.iter().any(|area| area.mapping.is_lost()) {
            return Err(Error::gone(
                self.connection.name(),
                format!("{operation} (its server shrank the file behind the region)"),
            ));
        }
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::out_of_range(self.connection.name(), operation, offset, len as u64, self.size)),
        }
    }
}

// SAFETY: messages name this region and offsets within it; no memory of this process is accessed except the data.
unsafe impl RegionIo for RegionAccessor {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let operation = format!("reading region {}", self.region);
        self.check(&operation, offset, data.len())?;
        // One budget for all messages, for a server that accepts few bytes at a time.
        let _budget = Budget::new(self.connection.deadline());
        let mut offset = offset;
        for part in data.chunks_mut(self.connection.max_data()) {
            let access = RegionAccess { offset, region: self.region, count: part.len() as u32 };
            let parts = [access.as_bytes()];
            let reply = self.connection.request(command::REGION_READ, &operation, &parts, &[])?;
            let (echo, bytes) = self.connection.parse::<RegionAccess>(&operation, &reply.payload)?;
            if echo != access || bytes.len() != part.len() {
                return Err(self.connection.protocol(&operation, "other bytes than the requested ones"));
            }
            part.copy_from_slice(bytes);
            offset += part.len() as u64;
        }
        Ok(())
    }

    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let operation = format!("writing region {}", self.region);
        self.check(&operation, offset, data.len())?;
        // One budget for all messages, for a server that accepts few bytes at a time.
        let _budget = Budget::new(self.connection.deadline());
        let mut offset = offset;
        for part in data.chunks(self.connection.max_data()) {
            let access = RegionAccess { offset, region: self.region, count: part.len() as u32 };
            let parts = [access.as_bytes(), part];
            let reply = self.connection.request(command::REGION_WRITE, &operation, &parts, &[])?;
            let (echo, _) = self.connection.parse::<RegionAccess>(&operation, &reply.payload)?;
            if echo != access {
                return Err(self.connection.protocol(&operation, "other bytes than the sent ones"));
            }
            offset += part.len() as u64;
        }
        Ok(())
    }
}
