//! What every log page has in common: an identifier, a length, a form.

use core::fmt;

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, debug, display};
use super::super::identify::IdentifyController;
use super::id::LogPageId;

/// A log page that the library knows.
pub trait LogPage: Structure + Sized {
    /// The identifier of the page.
    const ID: LogPageId;

    /// Returns the length of the page in bytes, by what of it was `read` so far. If the length is not known yet, it
    /// returns the number of bytes to read next, which is more than were read.
    fn len(read: &[u8], identify: &IdentifyController) -> u64;

    /// Makes the page of its bytes; `None` if they are too few. Bytes after the page are ignored.
    fn from_page(bytes: &[u8]) -> Option<Self>;
}

/// The header of a log page of variable length.
pub trait LogHeader: Structure + FromBytes + Copy {
    /// The identifier of the page.
    const ID: LogPageId;

    /// Returns the number of bytes after the header, by those of them that were `read` so far; see [`LogPage::len`].
    fn rest_len(&self, read: &[u8]) -> u64;

    /// Returns the fields in the bytes after the header.
    fn rest_fields(&self, rest: &[u8]) -> Vec<Field>;
}

/// A log page of variable length: its header, and the bytes after it as the controller sent them.
#[derive(Clone, PartialEq, Eq)]
pub struct VariableLog<H> {
    /// The header.
    pub header: H,
    /// The bytes after the header.
    pub rest: Vec<u8>,
}

impl<H: LogHeader> Structure for VariableLog<H> {
    const TITLE: &'static str = H::TITLE;

    fn fields(&self) -> Vec<Field> {
        let mut all = self.header.fields();
        all.extend(self.header.rest_fields(&self.rest));
        all
    }
}

impl<H: LogHeader> LogPage for VariableLog<H> {
    const ID: LogPageId = H::ID;

    fn len(read: &[u8], _: &IdentifyController) -> u64 {
        let header = size_of::<H>() as u64;
        match H::read_from_prefix(read) {
            Ok((fixed, rest)) => header.saturating_add(fixed.rest_len(rest)),
            Err(_) => header,
        }
    }

    fn from_page(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = H::read_from_prefix(bytes).ok()?;
        Some(Self { header, rest: rest.to_vec() })
    }
}

impl<H: LogHeader> fmt::Display for VariableLog<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(f, &self.fields())
    }
}

impl<H: LogHeader> fmt::Debug for VariableLog<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, H::TITLE, &self.fields())
    }
}

#[cfg(feature = "serde")]
impl<H: LogHeader> serde::Serialize for VariableLog<H> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        super::super::serialize::serialize_fields(&self.fields(), serializer)
    }
}

/// Returns the entries of a kind that the bytes hold, at most `count`.
pub(super) fn entries<T: FromBytes>(bytes: &[u8], count: u64) -> Vec<T> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    bytes
        .chunks_exact(size_of::<T>())
        .take(count)
        .filter_map(|chunk| T::read_from_bytes(chunk).ok())
        .collect()
}

/// Shows structures as a list.
pub(super) fn list<T: Structure>(values: &[T]) -> Value {
    Value::List(values.iter().map(|value| Value::Fields(value.fields())).collect())
}

/// Log pages of a fixed length.
macro_rules! fixed_pages {
    ($($type:ty: $id:ident;)*) => {
        $(
            impl $crate::spec::log::page::LogPage for $type {
                const ID: LogPageId = LogPageId::$id;

                fn len(_: &[u8], _: &IdentifyController) -> u64 {
                    size_of::<Self>() as u64
                }

                fn from_page(bytes: &[u8]) -> Option<Self> {
                    use zerocopy::FromBytes;
                    Some(Self::read_from_prefix(bytes).ok()?.0)
                }
            }
        )*
    };
}
pub(super) use fixed_pages;
