//! Numbers and texts at offsets of a structure's bytes.

use serde_json::{Map, Value as Json};

/// nvme-cli's name of a field, its first byte, and its bytes: 1 to 16, little endian.
pub type Number = (&'static str, usize, usize);

/// Returns the number of `len` bytes at `at`.
pub fn number(bytes: &[u8], at: usize, len: usize) -> Option<u128> {
    let mut number = [0; 16];
    number.get_mut(..len)?.copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    Some(u128::from_le_bytes(number))
}

/// Returns a number as JSON: digits in a string where it exceeds 64 bits.
pub fn json(number: u128) -> Json {
    u64::try_from(number).map_or_else(|_| number.to_string().into(), Json::from)
}

/// Adds numbers to an object, in their order.
pub fn add(object: &mut Map<String, Json>, bytes: &[u8], numbers: &[Number]) -> Option<()> {
    for &(name, at, len) in numbers {
        object.insert(name.into(), json(number(bytes, at, len)?));
    }
    Some(())
}

/// Returns the text of `len` bytes at `at`: all of them, or those before the first 0.
pub fn text(bytes: &[u8], at: usize, len: usize) -> Option<String> {
    let text = bytes.get(at..at.checked_add(len)?)?;
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(len);
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}
