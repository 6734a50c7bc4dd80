//! Completion status: Base, "Status Field Definition".

mod codes;

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::macros::named_values;

named_values! {
    /// Status code type: the table that a status code belongs to.
    StatusType(u8) {
        GENERIC = 0, "Generic Command Status";
        COMMAND_SPECIFIC = 1, "Command Specific Status";
        MEDIA = 2, "Media and Data Integrity Errors";
        PATH = 3, "Path Related Status";
        VENDOR = 7, "Vendor Specific";
    }
}

/// The result of a command: bits 15:1 of a completion's last word, that is without the phase tag.
///
/// Bits 7:0 are the code, 10:8 its type, 12:11 the retry delay, 13 More, 14 Do Not Retry. Two statuses are
/// equal if type and code are equal: `status == Status::LBA_OUT_OF_RANGE` holds with or without the retry
/// bits. [`into_bits`](Status::into_bits) returns all bits.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(u16);

impl Status {
    /// Makes the status with a type and code, all other bits 0.
    #[must_use]
    pub const fn new(sct: StatusType, sc: u8) -> Self {
        Self(((sct.0 & 7) as u16) << 8 | sc as u16)
    }

    /// Makes the status from 15 bits; bit 15 is dropped.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// Returns the 15 bits.
    #[inline]
    #[must_use]
    pub const fn into_bits(self) -> u16 {
        self.0
    }

    /// Returns the last word of a completion with this status, as a controller writes it.
    #[inline]
    #[must_use]
    pub const fn with_phase(self, phase: bool) -> u16 {
        self.0 << 1 | phase as u16
    }

    /// Returns the same status with the Do Not Retry bit.
    #[must_use]
    pub const fn with_do_not_retry(self) -> Self {
        Self(self.0 | 1 << 14)
    }

    /// Returns the status code type (SCT).
    #[must_use]
    pub const fn code_type(self) -> StatusType {
        StatusType((self.0 >> 8 & 7) as u8)
    }

    /// Returns the status code (SC); its meaning depends on the type.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0 as u8
    }

    /// Returns `true` if the command succeeded.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.type_and_code() == 0
    }

    /// Returns `true` if the path to the namespace failed the command, which another controller of the NVM subsystem may carry out
    /// (status code type 3h).
    #[must_use]
    pub const fn is_path_related(self) -> bool {
        self.code_type().0 == StatusType::PATH.0
    }

    /// Returns `true` if the same command would fail again (DNR).
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & 1 << 14 != 0
    }

    /// Returns `true` if the error log says more about this command (M).
    #[must_use]
    pub const fn more(self) -> bool {
        self.0 & 1 << 13 != 0
    }

    /// Returns the command retry delay (CRD): 0 for none, 1 to 3 for CRDT1 to CRDT3 of Identify Controller.
    #[must_use]
    pub const fn retry_delay(self) -> u8 {
        (self.0 >> 11 & 3) as u8
    }

    /// Returns the status as a result.
    ///
    /// # Errors
    ///
    /// The status itself, unless the command succeeded.
    #[inline]
    pub const fn result(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }

    const fn type_and_code(self) -> u16 {
        self.0 & 0x7ff
    }
}

impl PartialEq for Status {
    fn eq(&self, other: &Self) -> bool {
        self.type_and_code() == other.type_and_code()
    }
}

impl Eq for Status {}

impl core::hash::Hash for Status {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.type_and_code().hash(state);
    }
}

impl Status {
    /// Returns the specification's name for this status, if it assigns one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self.texts() {
            Some((name, _)) => Some(name),
            None => None,
        }
    }

    /// Explains the status to a person: a clause without a full stop.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match (self.texts(), self.code_type()) {
            (Some((_, meaning)), _) => meaning,
            (None, StatusType::VENDOR) => "only the vendor's documentation says what this means",
            (None, _) if self.code() >= 0xc0 => "only the vendor's documentation says what this means",
            (None, _) => "the specification that this driver knows doesn't assign it",
        }
    }
}

/// `LBA Out of Range (00/80h): the range goes past the end of the namespace`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("unknown status");
        write!(f, "{name} ({:02x}/{:02x}h): {}", self.code_type().0, self.code(), self.meaning())
    }
}

/// The text of `Display` and the bits about another try, so that a `main` that returns the status shows its meaning:
/// `LBA Out of Range (00/80h): the range goes past the end of the namespace, do not retry`.
impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.retry_delay() != 0 {
            write!(f, ", retry delay {}", self.retry_delay())?;
        }
        f.write_str(if self.more() { ", more" } else { "" })?;
        f.write_str(if self.do_not_retry() { ", do not retry" } else { "" })
    }
}

impl std::error::Error for Status {}
