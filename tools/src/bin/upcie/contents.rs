//! The bytes of a buffer: in place, or in a copy where the device may write to the buffer at any time.

use std::borrow::Cow;
use upcie_nvme::DmaBuf;

/// Returns the bytes.
pub fn of(buffer: &DmaBuf) -> Cow<'_, [u8]> {
    match buffer.as_slice() {
        Some(bytes) => Cow::Borrowed(bytes),
        None => Cow::Owned(buffer.to_vec()),
    }
}

/// Lets `change` write to the bytes.
pub fn change<R>(buffer: &mut DmaBuf, change: impl FnOnce(&mut [u8]) -> R) -> R {
    if let Some(bytes) = buffer.as_mut_slice() {
        return change(bytes);
    }
    let mut bytes = buffer.to_vec();
    let result = change(&mut bytes);
    buffer.write_at(0, &bytes);
    result
}
