//! Parses and formats sizes, times and counts.

use std::{fmt, str::FromStr, time::Duration};
use upcie_nvme::emu::units;

pub use units::parse_bytes;

/// A number of bytes, which is displayed as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes {
    /// Number of bytes.
    pub bytes: u64,
    typed: String,
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { bytes: parse_bytes(text)?, typed: text.into() })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// Parses a count: `500`, `50k`, `1.5M`; powers of 1000.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a number: use digits, or k, M (powers of 1000): 500, 50k, 1.5M");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1_000,
        "M" | "m" => 1_000_000,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if fraction.is_empty() || fraction.len() > 6 || !digits.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return Err(wrong());
    }
    let scale = 10_u64.pow(fraction.len() as u32);
    let part = fraction.parse::<u64>().map_err(|_| wrong())? * factor;
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(factor)).ok_or_else(wrong)?;
    if part % scale != 0 {
        return Err(format!("{text:?} is not a whole number"));
    }
    whole.checked_add(part / scale).ok_or_else(wrong)
}

/// Parses a time: `5`, `0.5`, `300ms`, `20us`, `2m`; seconds without a unit. The time must be above 0, and a
/// year at most.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    match units::parse_time(text, Some(1.0))? {
        Duration::ZERO => Err(format!("{text:?}: the time must be above 0")),
        time => Ok(time),
    }
}

/// Formats bytes: `1536` as `1.50 KiB`, exact sizes without a fraction.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (value.max(1).ilog2() / 10) as usize;
    let scaled = value as f64 / (1_u64 << (unit * 10)) as f64;
    if scaled.fract() == 0.0 {
        format!("{scaled} {}", UNITS[unit])
    } else {
        format!("{scaled:.2} {}", UNITS[unit])
    }
}

/// Formats a number with separators: `1234567` as `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of things: `1 thread`, `2,000 threads`.
pub fn number(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Returns the degrees Celsius of a temperature in kelvins, as the specification rounds them.
pub fn celsius(kelvins: i64) -> i64 {
    kelvins - 273
}

/// Returns the greatest number that divides both; the other one if one is 0.
pub fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Formats a count with three digits: `1234567.0` as `1.23M`.
pub fn count(value: f64) -> String {
    // A value that rounds up to 1000 gets the next unit.
    let (scaled, unit) = match value {
        v if v >= 999.5e6 => (v / 1e9, "G"),
        v if v >= 999.5e3 => (v / 1e6, "M"),
        v if v >= 9999.5 => (v / 1e3, "k"),
        v => return format!("{v:.0}"),
    };
    format!("{:.*}{unit}", fraction(scaled), scaled)
}

/// Formats nanoseconds with a fitting unit: `850 ns`, `12.3 µs`, `1.20 s`.
pub fn nanos(value: f64) -> String {
    // A value that rounds up to 1000 gets the next unit.
    let (scaled, unit) = match value {
        v if v >= 999.5e6 => (v / 1e9, "s"),
        v if v >= 999.5e3 => (v / 1e6, "ms"),
        v if v >= 999.5 => (v / 1e3, "µs"),
        v => return format!("{v:.0} ns"),
    };
    format!("{:.*} {unit}", fraction(scaled), scaled)
}

/// Returns the number of decimals for three digits. A value that rounds up to one more digit has one decimal
/// less.
fn fraction(scaled: f64) -> usize {
    match scaled {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    }
}

/// Drops trailing zeros from a figure of [`nanos`] or [`count`], for an axis.
pub fn short(figure: &str) -> String {
    let unit = figure.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(figure.len());
    let (number, unit) = figure.split_at(unit);
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_separators_and_things_a_plural() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!(
            [1, 0, 2000].map(|count| number(count, "thread")),
            ["1 thread", "0 threads", "2,000 threads"]
        );
    }

    #[test]
    fn counts_are_decimal_and_whole() {
        for (text, value) in [("0", 0), ("500", 500), ("50k", 50_000), ("1.5M", 1_500_000), ("0.25k", 250)] {
            assert_eq!(parse_count(text), Ok(value), "{text}");
        }
        for text in
            ["", "k", "-1", "1.", ".5k", "1.5", "2G", "1e3", "99999999999999999999", "99999999999999999M"]
        {
            assert!(parse_count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_take_units_and_fractions() {
        for (text, ns) in
            [("5", 5_000_000_000), ("0.25", 250_000_000), ("300ms", 300_000_000), ("20us", 20_000)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1", "0", "1e3", "nan", "inf", "5 parsecs", "1000000h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(count(1_234_567.0), "1.23M");
        assert_eq!(count(9999.0), "9999");
        assert_eq!(count(123_456.0), "123k");
        assert_eq!(nanos(850.0), "850 ns");
        assert_eq!(nanos(12_345.0), "12.3 µs");
        assert_eq!(nanos(1.2e9), "1.20 s");
        assert_eq!((nanos(999_999_999.0), nanos(999.6)), ("1.00 s".into(), "1.00 µs".into()));
        assert_eq!((count(999_999.0), count(9_999.7)), ("1.00M".into(), "10.0k".into()));
        for (figure, text) in
            [("1.00 ms", "1 ms"), ("1.50 µs", "1.5 µs"), ("100 ns", "100 ns"), ("10.0M", "10M"), ("0", "0")]
        {
            assert_eq!(short(figure), text);
        }
    }
}
