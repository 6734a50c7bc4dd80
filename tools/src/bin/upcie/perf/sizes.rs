//! Sizes of the I/Os: one, or several with their shares.

use crate::units;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Largest number of sizes.
const MOST: usize = 16;

/// A size and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Bytes of an I/O.
    pub bytes: u64,
    /// Percentage of the I/Os that have this size.
    pub percent: u8,
}

/// One or several sizes: all different, 100 % together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    shares: Vec<Share>,
    /// Text of each size on the command line, for messages.
    typed: Vec<String>,
}

impl Sizes {
    /// Makes a single size.
    pub fn one(bytes: u64) -> Self {
        Self { shares: vec![Share { bytes, percent: 100 }], typed: vec![bytes.to_string()] }
    }

    /// Returns the size if there is only one.
    pub fn single(&self) -> Option<u64> {
        match self.shares.as_slice() {
            [share] => Some(share.bytes),
            _ => None,
        }
    }

    /// Returns all sizes with their shares.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Lists the bytes of each size, and its text on the command line.
    pub fn typed(&self) -> impl Iterator<Item = (u64, &str)> {
        self.shares.iter().zip(&self.typed).map(|(share, typed)| (share.bytes, typed.as_str()))
    }

    /// Returns the largest size in bytes.
    pub fn largest(&self) -> u64 {
        self.shares.iter().map(|share| share.bytes).max().unwrap_or(0)
    }

    /// Makes a table of a hundred I/Os that holds the index of each one's size.
    pub fn size_table(&self) -> [u8; 100] {
        let mut table = [0; 100];
        let indices = (0_u8..).zip(&self.shares).flat_map(|(i, share)| (0..share.percent).map(move |_| i));
        for (place, index) in table.iter_mut().zip(indices) {
            *place = index;
        }
        table
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// Parses `4096`, `4K` or `4k:60,64k:40`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares: Vec<Share> = Vec::new();
        let mut typed = Vec::new();
        let several = text.contains(',');
        for item in text.split(',') {
            let (size, percent) = match item.split_once(':') {
                Some((size, percent)) => (size, percent),
                None if several => {
                    return Err(format!(
                        "{item:?} lacks its share of the I/Os: use SIZE:PERCENT, as in 4k:60,64k:40"
                    ));
                }
                None => (item, "100"),
            };
            let bytes = units::parse_bytes(size)?;
            if bytes == 0 {
                return Err(format!("{item:?}: an I/O must have at least one block"));
            }
            let percent: u8 =
                percent.parse().ok().filter(|percent| (1..=100).contains(percent)).ok_or_else(|| {
                    format!(
                        "{item:?}: {percent:?} is not a share of the I/Os: use a whole number from 1 to 100"
                    )
                })?;
            if shares.iter().any(|share| share.bytes == bytes) {
                return Err(format!("{} is given twice", units::bytes(bytes)));
            }
            shares.push(Share { bytes, percent });
            typed.push(size.to_owned());
        }
        let sum: u32 = shares.iter().map(|share| u32::from(share.percent)).sum();
        match sum {
            100 if shares.len() <= MOST => Ok(Self { shares, typed }),
            100 => Err(format!("{} sizes are given: the most is {MOST}", shares.len())),
            sum => Err(format!("the shares add up to {sum} %, not to 100 %")),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shares(&self.shares, f)
    }
}

/// Writes `4 KiB`, or `60 % 4 KiB + 40 % 64 KiB`.
pub fn write_shares(shares: &[Share], f: &mut impl fmt::Write) -> fmt::Result {
    if let [share] = shares {
        return f.write_str(&units::bytes(share.bytes));
    }
    for (i, share) in shares.iter().enumerate() {
        let plus = if i == 0 { "" } else { " + " };
        write!(f, "{plus}{} % {}", share.percent, units::bytes(share.bytes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_size_or_several_with_their_shares() {
        assert_eq!("4k".parse::<Sizes>().unwrap().typed().collect::<Vec<_>>(), [(4096, "4k")]);
        let mixed: Sizes = "4k:60,64k:40".parse().unwrap();
        assert_eq!((mixed.single(), mixed.largest()), (None, 65536));
        assert_eq!(mixed.to_string(), "60 % 4 KiB + 40 % 64 KiB");
        let table = mixed.size_table();
        assert_eq!([0, 1].map(|class| table.iter().filter(|&&c| c == class).count()), [60, 40]);
    }

    #[test]
    fn invalid_sizes_are_refused_with_the_reason() {
        for (text, part) in [
            ("4k:60,64k:41", "101 %"),
            ("4k:60", "60 %"),
            ("4k,8k", "lacks its share"),
            ("4k:0,8k:100", "from 1 to 100"),
            ("4k:x,8k:50", "\"x\""),
            ("4k:50,4096:50", "twice"),
            ("0", "at least one block"),
            ("", "is not a size"),
            ("4k:50,:50", "is not a size"),
            ("4k:300", "from 1 to 100"),
        ] {
            let error = text.parse::<Sizes>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many: Vec<_> = (1..=17).map(|i| format!("{}:{}", i * 512, if i == 1 { 84 } else { 1 })).collect();
        assert!(many.join(",").parse::<Sizes>().unwrap_err().contains("the most is 16"));
    }
}
