//! `--rate`: the start times of I/Os, independent of earlier completions.

/// Evenly spaced start times of one queue pair. Latency counts from the scheduled start: an I/O that waited
/// behind a slow device counts as late as its user would see it.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Start of the next I/O on the run's clock, in nanoseconds and in 2^-32 of one.
    next: (u64, u32),
    period: (u64, u32),
    /// Delay of the first I/O, in nanoseconds.
    offset: u64,
}

impl Pace {
    /// Makes the schedule of queue pair `index` of `count`, which share `rate` I/Os per second.
    pub fn new(rate: u64, index: u64, count: u64) -> Self {
        let parts = |seconds_by_rate: u64| {
            let ns = (u128::from(seconds_by_rate) * 1_000_000_000) << 32;
            let fixed = ns / u128::from(rate);
            ((fixed >> 32) as u64, fixed as u32)
        };
        Self { next: (0, 0), period: parts(count), offset: parts(index).0 }
    }

    /// Starts the schedule.
    pub fn start(&mut self, now: u64) {
        self.next = (now + self.offset, 0);
    }

    /// Returns the start time of the next I/O.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.next.0
    }

    /// Moves on to the next I/O; returns the start time of this one.
    #[inline(always)]
    pub fn take(&mut self) -> u64 {
        let (at, fraction) = self.next;
        let (fraction, carry) = fraction.overflowing_add(self.period.1);
        self.next = (at + self.period.0 + u64::from(carry), fraction);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_as_many_starts_as_the_rate() {
        for rate in [1, 3, 7_000, 999_983, 12_345_678] {
            let mut pace = Pace::new(rate, 0, 1);
            pace.start(500);
            let starts =
                std::iter::from_fn(|| Some(pace.take())).take_while(|&at| at < 1_000_000_500).count();
            // Fractions are cut off: an I/O may start a nanosecond early.
            assert!((rate..=rate + 1).contains(&(starts as u64)), "{rate}: {starts}");
        }
    }

    #[test]
    fn queue_pairs_share_the_rate_and_take_turns() {
        let mut starts: Vec<_> = (0..4)
            .flat_map(|index| {
                let mut pace = Pace::new(1000, index, 4);
                pace.start(0);
                (0..250).map(move |_| pace.take()).collect::<Vec<_>>()
            })
            .collect();
        starts.sort_unstable();
        let even: Vec<_> = (0..1000).map(|i| i * 1_000_000).collect();
        assert_eq!(starts, even);
    }

    #[test]
    fn a_late_io_does_not_move_the_schedule() {
        let mut pace = Pace::new(1000, 0, 1);
        pace.start(0);
        assert_eq!([pace.take(), pace.take()], [0, 1_000_000]);
        assert_eq!(pace.next(), 2_000_000);
    }
}
