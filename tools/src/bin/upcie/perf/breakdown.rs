//! `--latency-breakdown`: where an I/O's time goes. Three readings of the clock per I/O, so only on request.

use super::tally::histogram;
use hdrhistogram::Histogram;

/// The parts, in order: building the entry and ringing the doorbell; until the turn that saw the completion; until the
/// completion was taken from the ring.
pub const PARTS: [&str; 3] = ["submit", "device", "reap"];

/// The parts of one queue pair's I/Os, and the times of those in flight.
#[derive(Debug)]
pub struct Breakdown {
    /// Nanoseconds of each of [`PARTS`].
    pub parts: [Histogram<u64>; 3],
    /// By the number that an I/O in flight has: when it was begun; then when its doorbell was rung.
    times: Vec<u64>,
    free: Vec<u32>,
    /// Those of the turn that is open.
    building: Vec<u32>,
}

impl Breakdown {
    /// For `depth` I/Os in flight.
    pub fn new(depth: u32) -> anyhow::Result<Self> {
        let parts = [histogram()?, histogram()?, histogram()?];
        let building = Vec::with_capacity(depth as usize);
        Ok(Self { parts, times: vec![0; depth as usize], free: (0..depth).collect(), building })
    }

    /// An I/O is about to be built; gives its number.
    #[inline]
    pub fn begin(&mut self, now: u64) -> u32 {
        // As many as may be in flight: there is always one.
        let number = self.free.pop().unwrap_or(0);
        self.times[number as usize] = now;
        self.building.push(number);
        number
    }

    /// The turn's doorbell was rung.
    #[inline]
    pub fn rung(&mut self, now: u64) {
        for number in self.building.drain(..) {
            let time = &mut self.times[number as usize];
            self.parts[0].saturating_record(now - *time);
            *time = now;
        }
    }

    /// The I/O was taken from the ring at `now`, in a turn that began at `seen`.
    #[inline]
    pub fn end(&mut self, number: u32, seen: u64, now: u64) {
        self.parts[1].saturating_record(seen.saturating_sub(self.times[number as usize]));
        self.parts[2].saturating_record(now - seen);
        self.free.push(number);
    }

    /// What was measured so far is forgotten.
    pub fn reset(&mut self) {
        self.parts.iter_mut().for_each(Histogram::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_time() {
        let mut breakdown = Breakdown::new(2).unwrap();
        let (a, b) = (breakdown.begin(100), breakdown.begin(150));
        assert_ne!(a, b);
        breakdown.rung(200);
        breakdown.end(b, 700, 710);
        let c = breakdown.begin(720);
        assert_eq!(c, b, "its place is free again");
        breakdown.rung(725);
        breakdown.end(a, 1200, 1201);
        let [submit, device, reap] = &breakdown.parts;
        assert_eq!((submit.min(), submit.max(), submit.len()), (5, 100, 3));
        assert_eq!((device.min(), device.max(), device.len()), (500, 1000, 2));
        assert_eq!((reap.min(), reap.max()), (1, 10));
        breakdown.reset();
        assert!(breakdown.parts.iter().all(Histogram::is_empty));
    }
}
