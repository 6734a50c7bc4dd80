//! Sizes and times as people write them: in the options of an embedded controller, and in the tools.

use std::{fmt, time::Duration};

/// Parses a number of bytes: `4096`, `64K`, `1.5G`, `2GiB`, `0x1000`. K, M, G and T are powers of 1024, with
/// `B` or `iB` behind them and without, as in fio.
///
/// # Errors
/// Says what a size looks like, or why this text is not one.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is not a size: use bytes, or K, M, G, T (powers of 1024): 4096, 64K, 1.5G");
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map_err(|_| wrong());
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let whole = whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))?;
    if fraction.is_empty() {
        return if digits.contains('.') { Err(wrong()) } else { Ok(whole) };
    }
    if fraction.len() > 9 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let scale = 10_u128.pow(fraction.len() as u32);
    let part = fraction.parse::<u128>().map_err(|_| wrong())? << shift;
    if part % scale != 0 {
        return Err(format!("{text:?} is not a whole number of bytes"));
    }
    whole.checked_add((part / scale) as u64).ok_or_else(|| format!("{text:?} is too large"))
}

/// Parses a time: `300ms`, `0.5us`, `20s`, `2m`, `1h`. A number without a unit means `bare` seconds each; with `None` it
/// is refused, except for 0. At most a year.
///
/// # Errors
/// Says what a time looks like, or why this text is not one.
pub fn parse_time(text: &str, bare: Option<f64>) -> Result<Duration, String> {
    let units = match bare {
        Some(_) => "use seconds (2, 0.5), or ns, us, ms, s, m, h (300ms)",
        None => "a number with its unit is needed: ns, us, ms, s, m, h (50us, 0.5ms)",
    };
    let wrong = || format!("{text:?} is not a time: {units}");
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return Err(wrong());
    }
    let count = digits.parse::<f64>().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" if count == 0.0 => 1.0,
        "" => bare.ok_or_else(|| format!("{text:?} has no unit: {text}us, {text}ms or {text}s is meant"))?,
        _ => return Err(wrong()),
    };
    let time = Duration::try_from_secs_f64(count * unit).map_err(|_| wrong())?;
    if time > Duration::from_secs(366 * 86400) {
        return Err(format!("{text:?} is more than a year"));
    }
    Ok(time)
}

/// Prints bytes in the form that [`parse_bytes`] takes.
pub(super) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trailing_zeros() {
            40.. => write!(f, "{}T", self.0 >> 40),
            30.. => write!(f, "{}G", self.0 >> 30),
            20.. => write!(f, "{}M", self.0 >> 20),
            10.. => write!(f, "{}K", self.0 >> 10),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// Prints a time in the form that [`parse_time`] takes.
pub(super) struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        match () {
            () if ns % 1_000_000_000 == 0 => write!(f, "{}s", ns / 1_000_000_000),
            () if ns % 1_000_000 == 0 => write!(f, "{}ms", ns / 1_000_000),
            () if ns % 1_000 == 0 => write!(f, "{}us", ns / 1_000),
            () => write!(f, "{ns}ns"),
        }
    }
}

/// Parses a number from `min` to `max`.
pub(super) fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_exact() {
        for (text, value) in [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("4KiB", 4096),
            ("4KB", 4096),
            ("1.5G", 3 << 29),
            ("0x1000", 4096),
            ("16T", 16 << 40),
            ("100b", 100),
        ] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for text in ["", "k", "-1", "1.", ".5K", "1.3", "12X", "1e3", "0xzz", "20000000T", "1 K K"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_take_units_and_fractions() {
        for (text, ns) in
            [("300ms", 300_000_000), ("0.5ms", 500_000), ("1500ns", 1500), ("2m", 120_000_000_000), ("0", 0)]
        {
            assert_eq!(parse_time(text, None), Ok(Duration::from_nanos(ns)), "{text}");
        }
        assert_eq!(parse_time("0.25", Some(1.0)), Ok(Duration::from_millis(250)));
        assert!(parse_time("5", None).unwrap_err().contains("5us, 5ms or 5s"));
        for text in ["", "s", "-1", "1e3", "nan", "inf", "5 parsecs", "1000000h"] {
            assert!(parse_time(text, Some(1.0)).is_err(), "{text}");
        }
    }
}
