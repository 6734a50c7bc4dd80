//! The run in intervals.

use super::tally::Tally;
use serde::{Deserialize, Serialize};

/// The shortest interval that is chosen without being asked for.
const SHORTEST: u64 = 20_000_000;
/// And the longest, while the end is not known: intervals get longer when there are many.
const LONGEST: u64 = 1_000_000_000;
/// Into how many parts a run is cut.
const PARTS: u64 = 100;

/// What was done in an interval, of all devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Since the first submission.
    pub start_ns: u64,
    /// The same.
    pub end_ns: u64,
    /// I/Os that succeeded.
    pub ios: u64,
    /// Their bytes.
    pub bytes: u64,
    /// I/Os that failed or brought wrong data.
    pub errors: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// The median latency; none without I/Os.
    pub p50_ns: Option<u64>,
    /// The 99th percentile.
    pub p99_ns: Option<u64>,
}

impl Interval {
    /// From what was counted in it.
    pub fn new(start_ns: u64, end_ns: u64, tally: &Tally) -> anyhow::Result<Self> {
        let (ios, bytes) = (tally.ios(), tally.bytes.iter().sum::<u64>());
        let latency = if ios > 0 { Some(tally.all()?) } else { None };
        let at = |quantile| latency.as_ref().map(|latency| latency.value_at_quantile(quantile));
        let mut interval = Self {
            start_ns,
            end_ns,
            ios,
            bytes,
            errors: tally.errors,
            iops: 0.0,
            bytes_per_second: 0.0,
            p50_ns: at(0.5),
            p99_ns: at(0.99),
        };
        interval.end_at(end_ns);
        Ok(interval)
    }

    /// Ends it at another time.
    pub fn end_at(&mut self, time: u64) {
        self.end_ns = time.max(self.start_ns);
        let seconds = (self.end_ns - self.start_ns) as f64 / 1e9;
        // In no time there is no rate.
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        (self.iops, self.bytes_per_second) = (rate(self.ios), rate(self.bytes));
    }
}

/// When intervals end.
#[derive(Debug, Clone)]
pub struct Schedule {
    length: u64,
    /// It was not asked for: it may grow.
    grows: bool,
    /// The planned end.
    end: Option<u64>,
    count: u64,
    /// The end of the one that has begun.
    next: u64,
}

impl Schedule {
    /// Of intervals as long as was asked for, or as suits; `end` is when the run ends, if that is known.
    pub fn new(asked: Option<u64>, end: Option<u64>) -> Self {
        let suited = end.map_or(SHORTEST, |end| end / PARTS).clamp(SHORTEST, LONGEST);
        let length = asked.unwrap_or(suited);
        Self { length, grows: asked.is_none() && end.is_none(), end, count: 0, next: length }
    }

    /// When the interval that has begun ends; `None` when that is the end of the run. What would be left over is no
    /// interval of its own if it is less than half of one.
    pub fn next(&self) -> Option<u64> {
        let last = self.end.is_some_and(|end| self.next + self.length / 2 > end);
        (!last).then_some(self.next)
    }

    /// An interval has ended, at `now` or before.
    pub fn advance(&mut self, now: u64) {
        self.count += 1;
        if self.grows && self.count.is_multiple_of(2 * PARTS) {
            self.length *= 2;
        }
        // One that was missed is not made up for.
        self.next = (now / self.length + 1) * self.length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(mut schedule: Schedule, until: u64) -> Vec<u64> {
        let mut ends = Vec::new();
        while let Some(next) = schedule.next().filter(|&next| next < until) {
            ends.push(next);
            schedule.advance(next);
        }
        ends
    }

    #[test]
    fn intervals_asked_for_are_kept_and_the_rest_joins_the_last() {
        const S: u64 = 1_000_000_000;
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S)), 9 * S), [S, 2 * S]);
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S + S / 4)), 9 * S), [S, 2 * S]);
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S + S / 2)), 9 * S), [S, 2 * S, 3 * S]);
        assert!(ends(Schedule::new(Some(S), Some(S / 10)), 9 * S).is_empty());
    }

    #[test]
    fn a_run_without_a_planned_end_has_ever_longer_intervals() {
        let ends = ends(Schedule::new(None, None), 24 * 3600 * 1_000_000_000);
        assert!((1000..4000).contains(&ends.len()), "{}", ends.len());
        assert!(ends.is_sorted() && ends[0] == SHORTEST);
        let timed = self::ends(Schedule::new(None, Some(5_000_000_000)), u64::MAX);
        assert_eq!((timed.len(), timed[0]), (99, 50_000_000));
    }

    #[test]
    fn a_missed_interval_is_not_made_up_for() {
        let mut schedule = Schedule::new(Some(100), None);
        schedule.advance(350);
        assert_eq!(schedule.next(), Some(400));
    }

    #[test]
    fn an_interval_without_ios_has_no_percentiles() {
        let tally = Tally::new().unwrap();
        let interval = Interval::new(5, 5, &tally).unwrap();
        assert_eq!((interval.p50_ns, interval.iops), (None, 0.0));
    }

    #[test]
    fn rates_are_those_of_the_time_that_is_left() {
        let mut tally = Tally::new().unwrap();
        tally.latency[1].saturating_record(7);
        tally.bytes = [0, 512];
        let mut interval = Interval::new(0, 2_000_000_000, &tally).unwrap();
        assert_eq!((interval.iops, interval.bytes_per_second), (0.5, 256.0));
        interval.end_at(500_000_000);
        assert_eq!((interval.iops, interval.end_ns, interval.p99_ns), (2.0, 500_000_000, Some(7)));
        interval.end_at(4_000_000_000);
        assert_eq!((interval.iops, interval.end_ns), (0.25, 4_000_000_000));
        assert_eq!(Interval::new(9, 9, &tally).unwrap().iops, 0.0, "none that could be told");
    }
}
