//! A bench's result, and the formats of its numbers.

use serde::{Deserialize, Serialize};

/// One result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub unit: String,
    pub better: Better,
    pub ours: f64,
    /// Number of the peer, if there is a peer.
    pub theirs: Option<f64>,
    /// Our number divided by the peer's.
    pub ratio: Option<f64>,
    pub spread: f64,
    pub runs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

impl Entry {
    /// Formats the unit with the better direction.
    pub fn unit(&self) -> String {
        let better = if self.better == Better::Lower { "lower" } else { "higher" };
        format!("{}, {better} is better", self.unit)
    }
}

pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values {
        [] => None,
        _ if values.len() % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Formats a number with four significant digits.
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor() + 1.0;
    format!("{value:.*}", (4.0 - digits).clamp(0.0, 9.0) as usize)
}

#[cfg(test)]
mod tests {
    use super::{Entry, median, number};

    #[test]
    fn numbers_have_four_digits() {
        let cases =
            [(0.01234, "0.01234"), (1.0, "1.000"), (15.51, "15.51"), (1234.5, "1234"), (1e7, "10000000")];
        for (value, text) in cases {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "-");
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn an_entry_without_a_peer_is_read() {
        let text = r#"{"name": "a/b", "unit": "ns", "better": "lower", "ours": 6.4, "theirs": null,
            "ratio": null, "spread": 0.01, "runs": 5}"#;
        let entry: Entry = serde_json::from_str(text).expect("the documented form");
        assert_eq!(entry.ratio, None);
    }
}
