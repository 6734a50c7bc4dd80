//! Wrong protection information, by the field that is wrong.

use crate::spec::ProtectionField;
use std::fmt;

/// A block whose protection information is not the expected one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtectionError {
    /// The number of the block in its namespace.
    pub block: u64,
    /// The field that is wrong.
    pub kind: ProtectionField,
    /// The value of the field by the data, or by the tags of the command. Of an application or storage tag: the bits that
    /// are compared.
    pub expected: u64,
    /// The value that the block has.
    pub found: u64,
}

impl fmt::Display for ProtectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, kind, expected, found } = self;
        let kind = kind.name().unwrap_or("protection information");
        write!(f, "block {block}: the {kind} is {found:#x}, and {expected:#x} was expected")
    }
}

impl fmt::Debug for ProtectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ProtectionError {}
