//! The message that describes a region: its bytes, and their checks. No I/O happens here.
//!
//! It consists of a header, the table of addresses, and the device's name, in host byte order, because both ends are on
//! one host. The descriptor of the region's file comes with the first byte.

use crate::{dma::Addresses, page::PageSize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: [u8; 8] = *b"uPCIe-DM";

/// The format's version, which changes with every change of the format.
pub const VERSION: u16 = 1;

/// The addresses are physical.
const PHYSICAL: u16 = 1 << 0;
/// The table has an address for each page; otherwise it has one for all.
const PAGES: u16 = 1 << 1;

/// Limit on addresses in a table: 2 TiB of 2 MiB pages.
const MAX_ADDRESSES: u32 = 1 << 20;
/// Limit on bytes of a device's name.
pub const MAX_NAME: usize = 256;

/// Size of a header in bytes.
pub const HEADER: usize = size_of::<Header>();

/// The start of every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    magic: [u8; 8],
    version: u16,
    flags: u16,
    /// Bytes of the name.
    name: u32,
    /// Entries of the table.
    addresses: u32,
    reserved: u32,
    /// The region's id in its owner.
    pub id: u64,
    /// The region's length in bytes.
    pub len: u64,
    /// Bytes of its pages.
    page: u64,
}

/// The reason why a message is invalid.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    /// The message has another version.
    Version(u16),
    /// The content of the message is invalid in version 1.
    Content(&'static str),
}

/// A region as its owner describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub id: u64,
    pub len: usize,
    pub page: PageSize,
    pub physical: bool,
    pub addresses: Addresses,
    pub device: String,
}

impl Header {
    /// Parses a header and checks it, so that the length of the rest is bounded.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, Bad> {
        let header = Self::read_from_bytes(bytes).map_err(|_| Bad::Content("a header of another size"))?;
        if header.magic != MAGIC {
            return Err(Bad::Content("not the description of a region"));
        }
        if header.version != VERSION {
            return Err(Bad::Version(header.version));
        }
        let sound = |is: bool, why| if is { Ok(()) } else { Err(Bad::Content(why)) };
        sound(header.flags & !(PHYSICAL | PAGES) == 0 && header.reserved == 0, "unknown flags")?;
        sound(header.name as usize <= MAX_NAME, "a name of too many bytes")?;
        sound(header.addresses <= MAX_ADDRESSES, "more addresses than a region can have")?;
        let page = header.page_size().ok_or(Bad::Content("pages of an unknown size"))?;
        let bytes = page.bytes() as u64;
        sound(isize::try_from(header.len).is_ok(), "more bytes than memory can have")?;
        sound(header.len > 0 && header.len % bytes == 0, "a length that is not in whole pages")?;
        let wanted = if header.flags & PAGES == 0 { 1 } else { header.len / bytes };
        sound(u64::from(header.addresses) == wanted, "a table of another length than the region's")?;
        Ok(header)
    }

    /// Returns the bytes that follow the header.
    pub fn tail(&self) -> usize {
        self.addresses as usize * 8 + self.name as usize
    }

    fn page_size(&self) -> Option<PageSize> {
        let sizes = [PageSize::Small, PageSize::Huge2M, PageSize::Huge1G];
        sizes.into_iter().find(|size| size.bytes() as u64 == self.page)
    }

    /// Parses the whole message: the header with the `tail` that came with it.
    pub fn describe(&self, tail: &[u8]) -> Result<Description, Bad> {
        let bad = Bad::Content;
        let page = self.page_size().ok_or(bad("pages of an unknown size"))?;
        let len = usize::try_from(self.len).map_err(|_| bad("more bytes than memory can have"))?;
        let (table, name) = tail
            .split_at_checked(self.addresses as usize * 8)
            .filter(|(_, name)| name.len() == self.name as usize)
            .ok_or(bad("cut short"))?;
        let words = table.chunks_exact(8).filter_map(|word| word.try_into().ok());
        let table: Vec<u64> = words.map(u64::from_ne_bytes).collect();
        let each = if self.flags & PAGES == 0 { self.len } else { self.page };
        if table.iter().any(|&first| first % self.page != 0 || first.checked_add(each - 1).is_none()) {
            return Err(bad("an address that is not aligned, or overflows"));
        }
        let device = std::str::from_utf8(name).ok().filter(|name| !name.contains(char::is_control));
        let device = device.ok_or(bad("a name that is not text"))?.to_owned();
        let addresses = match self.flags & PAGES {
            0 => Addresses::Linear(*table.first().ok_or(bad("no address"))?),
            _ => Addresses::Pages { shift: self.page.ilog2(), pages: table.into() },
        };
        let physical = self.flags & PHYSICAL != 0;
        Ok(Description { id: self.id, len, page, physical, addresses, device })
    }
}

impl Description {
    /// Encodes the description as a message; `None` if it has more pages than a message can name.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (kind, table) = match &self.addresses {
            Addresses::Linear(first) => (0, std::slice::from_ref(first)),
            Addresses::Pages { pages, .. } => (PAGES, &pages[..]),
        };
        let addresses = u32::try_from(table.len()).ok().filter(|&count| count <= MAX_ADDRESSES)?;
        // The name is for log messages only, so a long one is cut.
        let mut name = String::new();
        for letter in self.device.chars().map(|c| if c.is_control() { '?' } else { c }) {
            if name.len() + letter.len_utf8() > MAX_NAME {
                break;
            }
            name.push(letter);
        }
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            flags: kind | if self.physical { PHYSICAL } else { 0 },
            name: name.len() as u32,
            addresses,
            reserved: 0,
            id: self.id,
            len: self.len as u64,
            page: self.page.bytes() as u64,
        };
        Some([header.as_bytes(), table.as_bytes(), name.as_bytes()].concat())
    }
}
