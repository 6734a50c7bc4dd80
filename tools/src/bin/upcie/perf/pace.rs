//! `--rate`: when the next I/O is to start, whatever became of those before it.

/// The schedule of one queue pair: starts at even distances. An I/O's latency is counted from there, so that one that
/// had to wait because the device was slow is as late as it would be to whoever asked for it.
#[derive(Debug, Clone)]
pub struct Pace {
    /// When the next one is to start, on the run's clock in nanoseconds; and in 2^-32 of one.
    next: (u64, u32),
    period: (u64, u32),
    /// The first one's distance from the start.
    offset: u64,
}

impl Pace {
    /// That of the queue pair `index` of `count` that share `rate` I/Os per second.
    pub fn new(rate: u64, index: u64, count: u64) -> Self {
        let parts = |seconds_by_rate: u64| {
            let ns = (u128::from(seconds_by_rate) * 1_000_000_000) << 32;
            let fixed = ns / u128::from(rate);
            ((fixed >> 32) as u64, fixed as u32)
        };
        Self { next: (0, 0), period: parts(count), offset: parts(index).0 }
    }

    /// The schedule begins.
    pub fn start(&mut self, now: u64) {
        self.next = (now + self.offset, 0);
    }

    /// When the next I/O is due.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        self.next.0
    }

    /// Goes on to the next I/O; gives when this one was to start.
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
    fn a_second_has_as_many_starts_as_the_rate_says() {
        for rate in [1, 3, 7_000, 999_983, 12_345_678] {
            let mut pace = Pace::new(rate, 0, 1);
            pace.start(500);
            let starts =
                std::iter::from_fn(|| Some(pace.take())).take_while(|&at| at < 1_000_000_500).count();
            // Fractions are cut: one may come out a nanosecond early.
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
    fn what_was_late_does_not_move_the_schedule() {
        let mut pace = Pace::new(1000, 0, 1);
        pace.start(0);
        assert_eq!([pace.take(), pace.take()], [0, 1_000_000]);
        assert_eq!(pace.next(), 2_000_000);
    }
}
