//! Axes for latencies: percentiles by their number of nines, and logarithmic times.

use crate::units;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// Percentiles with a label on the axis.
const NAMED: [&str; 9] = ["0", "50", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999"];

/// An axis of percentiles by their number of nines, `-log10(1 - p)`, from 0 to this number.
#[derive(Debug, Clone)]
pub struct Nines(pub f64);

impl Nines {
    /// Returns the position of a percentile.
    pub fn of(percent: f64) -> f64 {
        // `max` turns -0 into 0.
        (-(1.0 - percent / 100.0).log10()).max(0.0)
    }

    fn named(percent: &str) -> f64 {
        Self::of(percent.parse().unwrap_or(0.0))
    }
}

impl Ranged for Nines {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (value / self.0 * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        NAMED.iter().map(|percent| Self::named(percent)).filter(|at| *at <= self.0 + 1e-6).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0
    }
}

impl ValueFormatter<f64> for Nines {
    fn format_ext(&self, value: &f64) -> String {
        let named = NAMED.iter().find(|percent| (Self::named(percent) - value).abs() < 1e-3);
        named.map_or_else(String::new, |percent| (*percent).into())
    }
}

/// A logarithmic axis of nanoseconds. Both ends are 1, 2 or 5 times a power of ten.
#[derive(Debug, Clone, PartialEq)]
pub struct LogTime {
    low: f64,
    high: f64,
}

/// Marks in a decade.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

impl LogTime {
    /// Makes an axis that covers the values.
    pub fn around(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(1.0);
        let high = values.fold(1.0, f64::max);
        let low = if low.is_finite() { low } else { 1.0 };
        let below = marks(low / 10.0, low).last().copied().unwrap_or(1.0).max(1.0);
        let above = marks(high, high * 10.0).first().copied().unwrap_or(high * 10.0);
        // The axis spans two steps between marks at least, so that it has labels.
        let above = if above < below * 4.0 { marks(below * 4.0, below * 40.0)[0] } else { above };
        Self { low: below, high: above }
    }

    fn decades(&self) -> f64 {
        (self.high / self.low).log10()
    }
}

/// Lists the marks from `low` to `high`, both included.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let first = low.max(1e-3).log10().floor() as i32;
    let last = high.max(1e-3).log10().ceil() as i32;
    let all = (first..=last).flat_map(|decade| STEPS.map(|step| step * 10_f64.powi(decade)));
    all.filter(|mark| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(mark)).collect()
}

impl Ranged for LogTime {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let at = (value.max(1.0) / self.low).log10() / self.decades();
        limit.0 + (at * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let marks = marks(self.low, self.high);
        if self.decades() <= 3.5 {
            return marks;
        }
        let is_decade = |mark: &f64| (mark.log10() - mark.log10().round()).abs() < 1e-6;
        marks.into_iter().filter(is_decade).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for LogTime {
    fn format_ext(&self, value: &f64) -> String {
        units::short(&units::nanos(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::LightPoints;

    fn around(values: &[f64]) -> (f64, f64) {
        let axis = LogTime::around(values.iter().copied());
        (axis.low, axis.high)
    }

    #[test]
    fn ends_are_round_and_hold_the_values() {
        assert_eq!(around(&[1500.0, 73_000.0]), (1000.0, 100_000.0));
        assert_eq!(around(&[1000.0, 1000.0]), (1000.0, 5000.0));
        assert_eq!(around(&[2100.0, 4900.0]), (2000.0, 10_000.0));
        assert_eq!(around(&[0.0, 0.0]), (1.0, 5.0));
        assert_eq!(around(&[]), (1.0, 5.0));
    }

    #[test]
    fn every_mark_has_a_name_and_there_are_few() {
        for values in [[100.0, 900.0], [1.0, 6e11], [3e3, 5e5]] {
            let axis = LogTime::around(values.into_iter());
            let marks = axis.key_points(LightPoints::new(10, 10));
            assert!((3..=13).contains(&marks.len()), "{values:?}: {marks:?}");
        }
        let axis = Nines(4.2);
        let names: Vec<_> =
            axis.key_points(LightPoints::new(10, 10)).iter().map(|at| axis.format_ext(at)).collect();
        assert_eq!(names, ["0", "50", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn nines_are_evenly_spaced() {
        let at = [90.0, 99.0, 99.9].map(Nines::of);
        assert!((at[1] - at[0] - 1.0).abs() < 1e-9 && (at[2] - at[1] - 1.0).abs() < 1e-9, "{at:?}");
        assert_eq!(Nines::of(0.0), 0.0);
    }
}
