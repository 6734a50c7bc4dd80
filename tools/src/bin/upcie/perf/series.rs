//! Intervals of a run.

use super::tally::Tally;
use serde::{Deserialize, Serialize};

/// Length of the shortest default interval, in nanoseconds.
const SHORTEST: u64 = 20_000_000;
/// Length of the longest default interval, in nanoseconds, if the end of the run is known.
const LONGEST: u64 = 1_000_000_000;
/// Number of default intervals in a run.
const PARTS: u64 = 100;

/// Results of all devices in an interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Start, since the first submission.
    pub start_ns: u64,
    /// End, since the first submission.
    pub end_ns: u64,
    /// I/Os that succeeded.
    pub ios: u64,
    /// Bytes of these I/Os.
    pub bytes: u64,
    /// I/Os that failed or returned wrong data.
    pub errors: u64,
    /// I/Os per second.
    pub iops: f64,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Median latency; `None` without I/Os.
    pub p50_ns: Option<u64>,
    /// 99th percentile of the latency.
    pub p99_ns: Option<u64>,
}

impl Interval {
    /// Summarizes the counts of an interval.
    pub fn new(start_ns: u64, end_ns: u64, tally: &Tally) -> anyhow::Result<Self> {
        let (ios, bytes) = (tally.ios(), tally.bytes().iter().sum::<u64>());
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

    /// Moves the end, and computes the rates anew.
    pub fn end_at(&mut self, time: u64) {
        self.end_ns = time.max(self.start_ns);
        let seconds = (self.end_ns - self.start_ns) as f64 / 1e9;
        // An interval without length has no rate.
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        (self.iops, self.bytes_per_second) = (rate(self.ios), rate(self.bytes));
    }
}

/// Plans the ends of intervals.
#[derive(Debug, Clone)]
pub struct Schedule {
    length: u64,
    /// True if the length may grow: it was not asked for, and the end is not known.
    grows: bool,
    /// Planned end of the run.
    end: Option<u64>,
    count: u64,
    /// End of the current interval.
    next: u64,
}

impl Schedule {
    /// Plans intervals of the wanted or a default length; `end` is the end of the run, if it is known.
    pub fn new(asked: Option<u64>, end: Option<u64>) -> Self {
        let suited = end.map_or(SHORTEST, |end| end / PARTS).clamp(SHORTEST, LONGEST);
        let length = asked.unwrap_or(suited);
        Self { length, grows: asked.is_none() && end.is_none(), end, count: 0, next: length }
    }

    /// Returns the end of the current interval; `None` if it lasts until the end of the run. A rest of less
    /// than half an interval joins the last one.
    pub fn next(&self) -> Option<u64> {
        let last = self.end.is_some_and(|end| self.next + self.length / 2 > end);
        (!last).then_some(self.next)
    }

    /// Starts the next interval; the last one ended at `now` or earlier.
    pub fn advance(&mut self, now: u64) {
        self.count += 1;
        if self.grows && self.count.is_multiple_of(2 * PARTS) {
            self.length *= 2;
        }
        // An interval that was missed is skipped.
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
    fn wanted_intervals_are_kept_and_a_rest_joins_the_last() {
        const S: u64 = 1_000_000_000;
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S)), 9 * S), [S, 2 * S]);
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S + S / 4)), 9 * S), [S, 2 * S]);
        assert_eq!(ends(Schedule::new(Some(S), Some(3 * S + S / 2)), 9 * S), [S, 2 * S, 3 * S]);
        assert!(ends(Schedule::new(Some(S), Some(S / 10)), 9 * S).is_empty());
    }

    #[test]
    fn intervals_of_an_open_run_grow() {
        let ends = ends(Schedule::new(None, None), 24 * 3600 * 1_000_000_000);
        assert!((1000..4000).contains(&ends.len()), "{}", ends.len());
        assert!(ends.is_sorted() && ends[0] == SHORTEST);
        let timed = self::ends(Schedule::new(None, Some(5_000_000_000)), u64::MAX);
        assert_eq!((timed.len(), timed[0]), (99, 50_000_000));
    }

    #[test]
    fn a_missed_interval_is_skipped() {
        let mut schedule = Schedule::new(Some(100), None);
        schedule.advance(350);
        assert_eq!(schedule.next(), Some(400));
    }

    #[test]
    fn an_interval_without_ios_has_no_percentiles() {
        let tally = Tally::new();
        let interval = Interval::new(5, 5, &tally).unwrap();
        assert_eq!((interval.p50_ns, interval.iops), (None, 0.0));
    }

    #[test]
    fn rates_follow_a_moved_end() {
        let tally = Tally::of([0, 1], [0, 512], 7);
        let mut interval = Interval::new(0, 2_000_000_000, &tally).unwrap();
        assert_eq!((interval.iops, interval.bytes_per_second), (0.5, 256.0));
        interval.end_at(500_000_000);
        assert_eq!((interval.iops, interval.end_ns, interval.p99_ns), (2.0, 500_000_000, Some(7)));
        interval.end_at(4_000_000_000);
        assert_eq!((interval.iops, interval.end_ns), (0.25, 4_000_000_000));
        assert_eq!(Interval::new(9, 9, &tally).unwrap().iops, 0.0, "no time, no rate");
    }
}
