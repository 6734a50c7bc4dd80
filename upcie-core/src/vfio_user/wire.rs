//! The bytes of messages: structures, constants, and the parsing of a peer's data. No I/O happens here.
//!
//! The protocol is libvfio-user's, version 0.1: host byte order, a header of 16 bytes, a payload per command.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The major version of the protocol.
pub const MAJOR: u16 = 0;
/// The newest supported minor version.
pub const MINOR: u16 = 1;

/// PCI regions, numbered as in VFIO: BAR 0–5, then these.
pub const CONFIG_REGION: u32 = 7;

/// Bytes of data that this side accepts in one message.
pub const MAX_DATA: u64 = 1 << 20;

/// Size of a header in bytes.
pub const HEADER: usize = size_of::<Header>();

/// Largest fixed part of a payload, beside `max_data_xfer_size` bytes of data.
pub const FIXED_PAYLOAD: usize = 64;

/// Commands.
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const GET_INFO: u16 = 4;
    pub const GET_REGION_INFO: u16 = 5;
    pub const GET_REGION_IO_FDS: u16 = 6;
    pub const GET_IRQ_INFO: u16 = 7;
    pub const SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DMA_READ: u16 = 11;
    pub const DMA_WRITE: u16 = 12;
    pub const RESET: u16 = 13;

    /// Returns the command's name, for messages.
    pub fn name(command: u16) -> &'static str {
        match command {
            VERSION => "VERSION",
            DMA_MAP => "DMA_MAP",
            DMA_UNMAP => "DMA_UNMAP",
            GET_INFO => "DEVICE_GET_INFO",
            GET_REGION_INFO => "DEVICE_GET_REGION_INFO",
            GET_REGION_IO_FDS => "DEVICE_GET_REGION_IO_FDS",
            GET_IRQ_INFO => "DEVICE_GET_IRQ_INFO",
            SET_IRQS => "DEVICE_SET_IRQS",
            REGION_READ => "REGION_READ",
            REGION_WRITE => "REGION_WRITE",
            DMA_READ => "DMA_READ",
            DMA_WRITE => "DMA_WRITE",
            RESET => "DEVICE_RESET",
            _ => "an unknown command",
        }
    }
}

/// Flags of a header.
pub mod flags {
    /// The bits of the message's type.
    pub const TYPE: u32 = 0xf;
    /// The type of a request.
    pub const COMMAND: u32 = 0;
    /// The type of a reply.
    pub const REPLY: u32 = 1;
    /// The request needs no reply.
    pub const NO_REPLY: u32 = 1 << 4;
    /// The reply reports a failed request.
    pub const ERROR: u32 = 1 << 5;
}

/// Flags of a DMA mapping.
pub mod dma {
    /// The device may read.
    pub const READ: u32 = 1 << 0;
    /// The device may write.
    pub const WRITE: u32 = 1 << 1;
    /// The descriptor may be mapped, which is the purpose of every descriptor here.
    pub const MMAP: u32 = 1 << 2;
    /// Unmap everything (a flag of DMA_UNMAP).
    pub const UNMAP_ALL: u32 = 1 << 1;
}

/// Flags and capabilities of devices, regions and interrupts: the kernel's `VFIO_*` numbers.
pub mod vfio {
    pub const DEVICE_RESET: u32 = 1 << 0;
    pub const DEVICE_PCI: u32 = 1 << 1;

    pub const REGION_READ: u32 = 1 << 0;
    pub const REGION_WRITE: u32 = 1 << 1;
    pub const REGION_MMAP: u32 = 1 << 2;
    pub const REGION_CAPS: u32 = 1 << 3;
    pub const CAP_SPARSE_MMAP: u16 = 1;
    pub const CAP_MSIX_MAPPABLE: u16 = 3;

    pub const IRQ_EVENTFD: u32 = 1 << 0;
    pub const IRQ_MASKABLE: u32 = 1 << 1;
    pub const IRQ_AUTOMASKED: u32 = 1 << 2;

    pub const SET_NONE: u32 = 1 << 0;
    pub const SET_BOOL: u32 = 1 << 1;
    pub const SET_EVENTFD: u32 = 1 << 2;
    pub const SET_DATA: u32 = SET_NONE | SET_BOOL | SET_EVENTFD;
    pub const SET_MASK: u32 = 1 << 3;
    pub const SET_UNMASK: u32 = 1 << 4;
    pub const SET_TRIGGER: u32 = 1 << 5;
    pub const SET_ACTION: u32 = SET_MASK | SET_UNMASK | SET_TRIGGER;
}

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident[$size:literal] { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )* };
}

structures! {
    /// The start of every message.
    Header[16] { id: u16, command: u16, size: u32, flags: u32, error: u32 }
    /// VERSION, in both directions, before the capabilities' JSON.
    Version[4] { major: u16, minor: u16 }
    /// DMA_MAP.
    DmaMap[32] { argsz: u32, flags: u32, offset: u64, address: u64, size: u64 }
    /// DMA_UNMAP, in both directions.
    DmaUnmap[24] { argsz: u32, flags: u32, address: u64, size: u64 }
    /// DEVICE_GET_INFO, in both directions.
    DeviceInfo[16] { argsz: u32, flags: u32, regions: u32, irqs: u32 }
    /// DEVICE_GET_REGION_INFO, in both directions; capabilities follow in a reply.
    RegionInfo[32] { argsz: u32, flags: u32, index: u32, cap_offset: u32, size: u64, offset: u64 }
    /// A capability of a region.
    CapHeader[8] { id: u16, version: u16, next: u32 }
    /// The sparse mmap capability after its header; the areas follow.
    SparseHeader[8] { areas: u32, reserved: u32 }
    /// An area that can be mapped.
    SparseArea[16] { offset: u64, size: u64 }
    /// DEVICE_GET_IRQ_INFO, in both directions.
    IrqInfo[16] { argsz: u32, flags: u32, index: u32, count: u32 }
    /// DEVICE_SET_IRQS; booleans may follow.
    SetIrqs[20] { argsz: u32, flags: u32, index: u32, start: u32, count: u32 }
    /// REGION_READ and REGION_WRITE, in both directions; data follows a write and the reply to a read.
    RegionAccess[16] { offset: u64, region: u32, count: u32 }
    /// DMA_READ and DMA_WRITE, in both directions; data follows a write and the reply to a read.
    DmaAccess[16] { address: u64, count: u64 }
}

impl Header {
    /// Parses a header, and checks that its message has a valid type, at least a header and at most `limit` bytes.
    pub fn parse(bytes: &[u8; HEADER], limit: usize) -> Result<Self, &'static str> {
        let header = Self::read_from_bytes(bytes).map_err(|_| "a short header")?;
        if (header.size as usize) < HEADER {
            return Err("a message shorter than its header");
        }
        if header.size as usize > limit {
            return Err("a message longer than was agreed");
        }
        match header.flags & flags::TYPE {
            flags::COMMAND | flags::REPLY => Ok(header),
            _ => Err("a message that is neither a command nor a reply"),
        }
    }

    /// Returns whether the message is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & flags::TYPE == flags::REPLY
    }
}

/// Parses the structure at the start of a payload and returns it with the rest.
pub fn split<T: FromBytes>(payload: &[u8]) -> Result<(T, &[u8]), &'static str> {
    T::read_from_prefix(payload).map_err(|_| "a payload that is too short")
}

/// A region as its server describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionDescription {
    /// The fixed part.
    pub info: RegionInfo,
    /// Offset and size of each mappable part; `None` if no capability lists them, so that the whole region is mappable.
    pub areas: Option<Vec<(u64, u64)>>,
    /// Set if the pages of the MSI-X table may be mapped.
    pub msix_mappable: bool,
}

/// The largest number of mapped parts of a region: doorbells, memory buffers, and the parts between MSI-X tables.
const MAX_AREAS: u32 = 64;

/// Parses the reply to DEVICE_GET_REGION_INFO. The server's chain of capabilities may be cut short, loop, or point
/// anywhere.
pub fn parse_region_info(payload: &[u8]) -> Result<RegionDescription, &'static str> {
    let (info, _) = split::<RegionInfo>(payload)?;
    let mut region = RegionDescription { info, ..RegionDescription::default() };
    if info.flags & vfio::REGION_CAPS == 0 {
        return Ok(region);
    }
    let mut at = info.cap_offset as usize;
    // Each capability has a header of its own, so a chain with more steps than headers fit is a loop.
    for _ in 0..=payload.len() / size_of::<CapHeader>() {
        if at == 0 {
            return Ok(region);
        }
        if at < size_of::<RegionInfo>() {
            return Err("a capability inside of the region's description");
        }
        let rest = payload.get(at..).ok_or("a capability beyond the message's end")?;
        let (cap, body) = split::<CapHeader>(rest)?;
        match cap.id {
            vfio::CAP_SPARSE_MMAP => {
                let (sparse, mut rest) = split::<SparseHeader>(body)?;
                if sparse.areas > MAX_AREAS {
                    return Err("more than 64 mappable areas of one region");
                }
                let mut areas = Vec::new();
                for _ in 0..sparse.areas {
                    let (area, after) = split::<SparseArea>(rest)?;
                    if area.offset.checked_add(area.size).is_none_or(|end| end > info.size) {
                        return Err("a mappable area beyond the region's end");
                    }
                    if area.size != 0 {
                        areas.push((area.offset, area.size));
                    }
                    rest = after;
                }
                region.areas = Some(areas);
            }
            vfio::CAP_MSIX_MAPPABLE => region.msix_mappable = true,
            _ => {}
        }
        at = cap.next as usize;
    }
    Err("a chain of capabilities that loops")
}

/// Makes the whole payload of a reply to DEVICE_GET_REGION_INFO.
pub fn region_info(index: u32, size: u64, areas: Option<&[(u64, u64)]>) -> Vec<u8> {
    let mut info = RegionInfo { argsz: size_of::<RegionInfo>() as u32, index, size, ..RegionInfo::default() };
    if size != 0 {
        info.flags = vfio::REGION_READ | vfio::REGION_WRITE;
    }
    let mut caps = Vec::new();
    if let Some(areas) = areas {
        info.flags |= vfio::REGION_MMAP | vfio::REGION_CAPS;
        info.cap_offset = size_of::<RegionInfo>() as u32;
        caps.extend_from_slice(CapHeader { id: vfio::CAP_SPARSE_MMAP, version: 1, next: 0 }.as_bytes());
        caps.extend_from_slice(SparseHeader { areas: areas.len() as u32, reserved: 0 }.as_bytes());
        for &(offset, size) in areas {
            caps.extend_from_slice(SparseArea { offset, size }.as_bytes());
        }
        info.argsz += caps.len() as u32;
    }
    let mut payload = info.as_bytes().to_vec();
    payload.extend_from_slice(&caps);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREAS: [(u64, u64); 2] = [(0x1000, 0x1000), (0x3000, 0x1000)];

    /// Parses a description in which one capability's `next` and the number of areas were overwritten.
    fn forged(next: u32, areas: u32) -> Result<RegionDescription, &'static str> {
        let mut payload = region_info(0, 0x4000, Some(&AREAS));
        payload[36..40].copy_from_slice(&next.to_le_bytes());
        payload[40..44].copy_from_slice(&areas.to_le_bytes());
        parse_region_info(&payload)
    }

    #[test]
    fn written_region_info_is_parsed() {
        let region = parse_region_info(&region_info(3, 0x4000, Some(&AREAS))).unwrap();
        assert_eq!((region.info.index, region.info.argsz), (3, 80));
        assert_eq!(region.areas.as_deref(), Some(&AREAS[..]));
        assert_eq!(parse_region_info(&region_info(3, 0x4000, None)).unwrap().areas, None);
    }

    #[test]
    fn forged_capability_chains_are_errors() {
        assert!(forged(0, 2).is_ok());
        assert!(forged(32, 2).unwrap_err().contains("loops"));
        assert!(forged(8, 2).unwrap_err().contains("inside"));
        for next in [76, 80, 81, u32::MAX] {
            assert!(forged(next, 2).is_err(), "{next}");
        }
        assert!(forged(0, 3).unwrap_err().contains("short"));
        assert!(forged(0, MAX_AREAS).unwrap_err().contains("short"));
        for areas in [MAX_AREAS + 1, u32::MAX] {
            assert!(forged(0, areas).unwrap_err().contains("more than 64"));
        }
        let beyond = region_info(0, 0x4000, Some(&[(0x3000, 0x2000)]));
        assert!(parse_region_info(&beyond).unwrap_err().contains("beyond the region"));
        let wrapped = region_info(0, 0x4000, Some(&[(u64::MAX, 2)]));
        assert!(parse_region_info(&wrapped).is_err());
        for len in 0..80 {
            assert!(parse_region_info(&region_info(0, 0x4000, Some(&AREAS))[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_header_bounds_its_message() {
        let parse = |size, flags| {
            let header = Header { size, flags, ..Header::default() };
            Header::parse(header.as_bytes().try_into().unwrap(), 1000)
        };
        assert!(parse(16, 0).is_ok() && parse(1000, flags::REPLY | flags::ERROR).is_ok());
        assert!(parse(15, 0).is_err() && parse(1001, 0).is_err() && parse(u32::MAX, 0).is_err());
        assert!(parse(16, 2).is_err() && parse(16, 0xf).is_err());
    }
}
