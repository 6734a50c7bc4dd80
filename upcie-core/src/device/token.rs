//! The token that the users of a physical function and of its virtual ones share.

use crate::Error;
use std::{fmt, str::FromStr};

/// A VF token: 16 bytes, written as a UUID. VFIO demands the same one of the user of a physical function and of the users of
/// its virtual functions (PCI Express Base 6.0, "Single Root I/O Virtualization"), since they depend on each other. Whoever opens
/// the physical function first chooses it.
///
/// ```
/// let token: upcie_core::device::VfToken = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3".parse()?;
/// assert_eq!(token.to_string(), "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3");
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VfToken([u8; 16]);

/// Digits in each group of a UUID (RFC 9562, 4).
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

impl VfToken {
    /// Makes a token of 16 bytes, in the order of their digits.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, in the order of their digits.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for VfToken {
    type Err = Error;

    /// Parses `bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3`.
    fn from_str(input: &str) -> Result<Self, Error> {
        let groups: Vec<&str> = input.split('-').collect();
        let fits = groups.iter().map(|group| group.len()).eq(GROUPS)
            && input.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(&groups.concat(), 16).ok().filter(|_| fits);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| {
            let reason =
                "a VF token is a UUID: 32 hexadecimal digits in groups of 8-4-4-4-12 (`uuidgen` makes one)";
            Error::address(input, reason, "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3")
        })
    }
}

impl fmt::Display for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let mut rest = digits.as_str();
        for (index, length) in GROUPS.into_iter().enumerate() {
            let (group, after) = rest.split_at(length);
            rest = after;
            write!(f, "{}{group}", if index == 0 { "" } else { "-" })?;
        }
        Ok(())
    }
}

/// Hides the token, which is a secret between the users.
impl fmt::Debug for VfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VfToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::VfToken;

    #[test]
    fn a_token_parses_and_prints_itself() {
        let text = "0d8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
        let token: VfToken = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
        assert_eq!((token.bytes()[0], token.bytes()[15]), (0x0d, 0xf3));
        assert_eq!("0D8D9D2B-5A5F-4F5A-A211-F591514BA1F3".parse::<VfToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("5a5f"), "a secret");
    }

    #[test]
    fn another_text_is_refused_with_the_form() {
        for text in [
            "",
            "1",
            "0d8d9d2b5a5f4f5aa211f591514ba1f3",
            "0d8d9d2b-5a5f-4f5a-a211-f591514ba1f",
            "0d8d9d2b-5a5f-4f5a-a211-f591514ba1fg",
            "+d8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
            "0d8d9d2b-5a5f-4f5a-a211-f591514ba1f3-",
        ] {
            let error = text.parse::<VfToken>().unwrap_err().to_string();
            assert!(error.contains("8-4-4-4-12"), "{error}");
        }
    }
}
