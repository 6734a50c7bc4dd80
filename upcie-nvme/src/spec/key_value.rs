//! Keys and values: the Key Value Command Set Specification ("KV"), "I/O Commands for the Key Value Command Set".

use core::fmt;

use super::command::Command;
use super::macros::named_values;
use super::opcode::{DataDirection, NvmOpcode};

named_values! {
    /// The opcode of a command of the key value command set. The numbers mean other commands in the NVM command set.
    KeyValueOpcode(u8) {
        FLUSH = 0x00, "Flush";
        STORE = 0x01, "Store";
        RETRIEVE = 0x02, "Retrieve";
        LIST = 0x06, "List";
        DELETE = 0x10, "Delete";
        EXIST = 0x14, "Exist";
    }
}

impl KeyValueOpcode {
    /// Returns the direction of data that the opcode's low bits state.
    #[must_use]
    pub const fn direction(self) -> DataDirection {
        NvmOpcode(self.0).direction()
    }
}

bitflags::bitflags! {
    /// Options of a Store (SO).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct StoreOptions: u8 {
        /// The value is stored only if the key exists: an update.
        const MUST_EXIST = 1 << 0;
        /// The value is stored only if the key does not exist: an addition.
        const MUST_NOT_EXIST = 1 << 1;
        /// The controller does not compress the value.
        const UNCOMPRESSED = 1 << 2;
    }
}

bitflags::bitflags! {
    /// Options of a Retrieve (RO).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct RetrieveOptions: u8 {
        /// The controller returns the value as it is stored, without decompressing it.
        const RAW = 1 << 0;
    }
}

/// A key: 1 to 16 bytes. Keys of different lengths are different keys, whatever their bytes.
///
/// ```
/// use upcie_nvme::spec::Key;
///
/// let key = Key::new(b"user:17")?;
/// assert_eq!((key.as_bytes(), key.to_string()), (&b"user:17"[..], r#""user:17""#.to_owned()));
/// assert_eq!(Key::new(&[0xff, 1])?.to_string(), "0xff01");
/// assert!(Key::new(b"").is_err() && Key::new(&[7; 17]).is_err());
/// # Ok::<(), upcie_nvme::spec::InvalidKey>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Bytes beyond the length are 0, so that the order is that of the keys' bytes.
    bytes: [u8; Self::MOST],
    len: u8,
}

/// The error for a key of no bytes, or of too many: their number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InvalidKey(pub usize);

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key has 1 to {} bytes, and this one {}", Key::MOST, self.0)
    }
}

impl fmt::Debug for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for InvalidKey {}

impl Key {
    /// The most bytes of a key that commands have room for; a namespace may take fewer.
    pub const MOST: usize = 16;

    /// Makes a key of 1 to 16 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`] for any other number of bytes.
    pub const fn new(key: &[u8]) -> Result<Self, InvalidKey> {
        if key.is_empty() || key.len() > Self::MOST {
            return Err(InvalidKey(key.len()));
        }
        let (mut bytes, mut at) = ([0; Self::MOST], 0);
        while at < key.len() {
            bytes[at] = key[at];
            at += 1;
        }
        Ok(Self { bytes, len: key.len() as u8 })
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Returns the number of bytes, 1 to 16.
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns the dwords of the key in a command: 2, 3, 14 and 15.
    const fn dwords(&self) -> [u32; 4] {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15] = self.bytes;
        [
            u32::from_le_bytes([b0, b1, b2, b3]),
            u32::from_le_bytes([b4, b5, b6, b7]),
            u32::from_le_bytes([b8, b9, b10, b11]),
            u32::from_le_bytes([b12, b13, b14, b15]),
        ]
    }
}

impl From<[u8; Key::MOST]> for Key {
    fn from(bytes: [u8; Key::MOST]) -> Self {
        Self { bytes, len: Self::MOST as u8 }
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = InvalidKey;

    fn try_from(key: &[u8]) -> Result<Self, InvalidKey> {
        Self::new(key)
    }
}

impl TryFrom<&str> for Key {
    type Error = InvalidKey;

    fn try_from(key: &str) -> Result<Self, InvalidKey> {
        Self::new(key.as_bytes())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Prints text in quotes, and any other bytes in hexadecimal: `"user:17"`, `0xff01`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_text = self.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"');
        match core::str::from_utf8(self.as_bytes()) {
            Ok(text) if is_text => write!(f, "\"{text}\""),
            _ => {
                f.write_str("0x")?;
                self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Commands of the key value command set.
impl Command {
    /// Makes a Store command: the first `bytes` bytes of its data become the value of `key`, in place of a former one.
    #[must_use]
    pub const fn store(nsid: u32, key: Key, bytes: u32, options: StoreOptions) -> Self {
        Self::of_key(KeyValueOpcode::STORE, nsid, Some(key), bytes, options.bits())
    }

    /// Makes a Retrieve command, which returns the first `bytes` bytes of the value of `key`, or all of it if it is
    /// shorter. Dword 0 of the completion is the length of the whole value.
    #[must_use]
    pub const fn retrieve(nsid: u32, key: Key, bytes: u32, options: RetrieveOptions) -> Self {
        Self::of_key(KeyValueOpcode::RETRIEVE, nsid, Some(key), bytes, options.bits())
    }

    /// Makes a List command, which returns as many keys as `bytes` bytes have room for, a [`KeyList`], in an order of
    /// the controller's choice. `from` is the first one if it exists, otherwise the controller chooses; without it the
    /// command has a key of no bytes.
    #[must_use]
    pub const fn list_keys(nsid: u32, from: Option<Key>, bytes: u32) -> Self {
        Self::of_key(KeyValueOpcode::LIST, nsid, from, bytes, 0)
    }

    /// Makes a Delete command, which removes `key` and its value.
    #[must_use]
    pub const fn delete_key(nsid: u32, key: Key) -> Self {
        Self::of_key(KeyValueOpcode::DELETE, nsid, Some(key), 0, 0)
    }

    /// Makes an Exist command, which succeeds if `key` has a value.
    #[must_use]
    pub const fn key_exists(nsid: u32, key: Key) -> Self {
        Self::of_key(KeyValueOpcode::EXIST, nsid, Some(key), 0, 0)
    }

    const fn of_key(opcode: KeyValueOpcode, nsid: u32, key: Option<Key>, bytes: u32, options: u8) -> Self {
        let (dwords, len) = match key {
            Some(key) => (key.dwords(), key.len),
            None => ([0; 4], 0),
        };
        let [cdw2, cdw3, cdw14, cdw15] = dwords;
        Self {
            cdw2,
            cdw3,
            cdw10: bytes,
            cdw11: len as u32 | (options as u32) << 8,
            cdw14,
            cdw15,
            ..Self::io(NvmOpcode(opcode.0), nsid)
        }
    }

    /// Returns the length of the key of a key value command, in bytes (KL).
    #[must_use]
    pub const fn key_length(&self) -> u8 {
        self.cdw11 as u8
    }

    /// Returns the key of a key value command; `None` if its length is 0 or more than 16.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        let dwords = [self.cdw2, self.cdw3, self.cdw14, self.cdw15];
        let mut bytes = [0; Key::MOST];
        for (to, dword) in bytes.chunks_exact_mut(4).zip(dwords) {
            to.copy_from_slice(&dword.to_le_bytes());
        }
        Key::new(bytes.get(..self.key_length().into())?).ok()
    }

    /// Returns the options of a Store or a Retrieve.
    #[must_use]
    pub const fn key_options(&self) -> u8 {
        (self.cdw11 >> 8) as u8
    }
}

/// The keys in the data that a List returned: KV, "List command return data structure". Data that contradicts itself
/// ends the list.
///
/// ```
/// use upcie_nvme::spec::KeyList;
///
/// let data = [2, 0, 0, 0, 3, 0, b'a', b'b', b'c', 0, 0, 0, 1, 0, b'z', 0];
/// let keys: Vec<String> = KeyList::new(&data).map(|key| key.to_string()).collect();
/// assert_eq!(keys, [r#""abc""#, r#""z""#]);
/// ```
#[derive(Debug, Clone)]
pub struct KeyList<'b> {
    rest: &'b [u8],
    left: u32,
}

impl<'b> KeyList<'b> {
    /// Bytes of the number of keys, which the keys follow.
    pub const HEADER: usize = 4;
    /// The most bytes that a key takes in a list: its length in 2, and padding to a multiple of 4.
    pub const ENTRY: usize = (2 + Key::MOST).next_multiple_of(4);

    /// Begins with the first key of `data`.
    #[must_use]
    pub fn new(data: &'b [u8]) -> Self {
        match data.split_first_chunk() {
            Some((count, rest)) => Self { rest, left: u32::from_le_bytes(*count) },
            None => Self { rest: &[], left: 0 },
        }
    }

    /// Returns the bytes behind the keys so far.
    pub(crate) fn room(&self) -> usize {
        self.rest.len()
    }

    /// Adds a key to `list`, the keys without their number.
    #[cfg(feature = "emu")]
    pub(crate) fn push(list: &mut Vec<u8>, key: &Key) {
        list.extend(u16::from(key.len).to_le_bytes());
        list.extend(key.as_bytes());
        list.resize(list.len().next_multiple_of(4), 0);
    }
}

impl Iterator for KeyList<'_> {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.rest.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes(*len));
        let key = rest.get(..len).and_then(|key| Key::new(key).ok());
        if key.is_none() {
            self.left = 0;
            return None;
        }
        self.rest = self.rest.get((2 + len).next_multiple_of(4)..).unwrap_or_default();
        key
    }
}
