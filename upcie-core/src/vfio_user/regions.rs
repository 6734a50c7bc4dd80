//! A server's regions, as the client reaches them: mapped, or by message.

use super::{
    connection::Connection,
    wire::{RegionAccess, RegionDescription, RegionInfo, command, parse_region_info},
};
use crate::{Error, Result, mmio::Mapping, transport::RegionIo};
use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};
use zerocopy::IntoBytes;

/// What a region's description may take.
const MAX_DESCRIPTION: u32 = 64 << 10;

/// What a region is, and the file to map.
pub fn region(connection: &Connection, index: u32) -> Result<(RegionDescription, Vec<OwnedFd>)> {
    let operation = format!("asking for region {index}'s description");
    // Room for the usual chain of capabilities; a server with more says how much, once.
    for argsz in [1024, MAX_DESCRIPTION] {
        let asked = RegionInfo { argsz, index, ..RegionInfo::default() };
        let reply = connection.request(command::GET_REGION_INFO, &operation, &[asked.as_bytes()], &[])?;
        let (info, _) = connection.parse::<RegionInfo>(&operation, &reply.payload)?;
        if info.index != index || reply.payload.len() > argsz as usize {
            return Err(connection.protocol(&operation, "another description than was asked for"));
        }
        if info.argsz <= argsz {
            let region = parse_region_info(&reply.payload);
            let region = region.map_err(|reason| connection.protocol(&operation, reason))?;
            return Ok((region, reply.fds));
        }
    }
    Err(connection.protocol(&operation, "a description that is longer than all"))
}

/// The most of a region that is mapped in one piece. Mapping fills the page tables, and what a server offers may be a file
/// that has no pages yet: it must not take all memory.
const MAX_AREA: u64 = 1 << 30;

/// Maps `len` bytes of a region from `offset` on: they are at `base + offset` in the file.
pub fn map_area(
    connection: &Connection,
    operation: &str,
    fd: &OwnedFd,
    base: u64,
    offset: u64,
    len: u64,
) -> Result<Mapping> {
    let bad = |reason: &str| connection.protocol(operation, reason);
    let at = base.checked_add(offset).ok_or_else(|| bad("a mappable area beyond all files"))?;
    let size = usize::try_from(len).map_err(|_| bad("a mappable area larger than memory"))?;
    let end = at.checked_add(len).ok_or_else(|| bad("a mappable area beyond all files"))?;
    let file = fd.try_clone().map(File::from).and_then(|file| file.metadata());
    let file = file.map_err(|e| Error::os(connection.name(), operation, e))?;
    if len > MAX_AREA {
        return Err(bad("a mappable area of more than 1 GiB"));
    }
    // Beyond a file's end an access would fault. A server can still cut the file later: that it doesn't is trusted.
    if file.is_file() && file.len() < end {
        return Err(bad("a mappable area beyond its file's end"));
    }
    Mapping::new(fd.as_fd(), at, size, connection.name())
}

/// A region by message.
pub struct RegionAccessor {
    pub connection: Arc<Connection>,
    pub region: u32,
    pub size: u64,
}

impl RegionAccessor {
    fn check(&self, operation: &str, offset: u64, len: usize) -> Result<()> {
        match offset.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::OutOfRange {
                device: self.connection.name().into(),
                operation: operation.into(),
                offset,
                len: len as u64,
                size: self.size,
            }),
        }
    }
}

impl RegionIo for RegionAccessor {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let operation = format!("reading region {}", self.region);
        self.check(&operation, offset, data.len())?;
        let mut offset = offset;
        for part in data.chunks_mut(self.connection.max_data()) {
            let access = RegionAccess { offset, region: self.region, count: part.len() as u32 };
            let reply =
                self.connection.request(command::REGION_READ, &operation, &[access.as_bytes()], &[])?;
            let (echo, bytes) = self.connection.parse::<RegionAccess>(&operation, &reply.payload)?;
            if echo != access || bytes.len() != part.len() {
                return Err(self.connection.protocol(&operation, "other bytes than were asked for"));
            }
            part.copy_from_slice(bytes);
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let operation = format!("writing region {}", self.region);
        self.check(&operation, offset, data.len())?;
        let mut offset = offset;
        for part in data.chunks(self.connection.max_data()) {
            let access = RegionAccess { offset, region: self.region, count: part.len() as u32 };
            let parts = [access.as_bytes(), part];
            let reply = self.connection.request(command::REGION_WRITE, &operation, &parts, &[])?;
            let (echo, _) = self.connection.parse::<RegionAccess>(&operation, &reply.payload)?;
            if echo != access {
                return Err(self.connection.protocol(&operation, "other bytes than were sent"));
            }
            offset += part.len() as u64;
        }
        Ok(())
    }
}
