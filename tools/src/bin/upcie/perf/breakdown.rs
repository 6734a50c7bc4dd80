//! `--latency-breakdown`: the parts of an I/O's latency. It reads the clock three times more per I/O, so it
//! is optional.

use super::latencies::histogram;
use hdrhistogram::Histogram;

/// Names of the parts, in order. `submit`: from building the entry to ringing the doorbell; `device`: until
/// the start of the turn that found the completion; `reap`: until that turn took the completion.
pub const PARTS: [&str; 3] = ["submit", "device", "reap"];

/// Parts of one queue pair's I/Os, and the times of the I/Os in flight.
#[derive(Debug)]
pub struct Breakdown {
    /// Histograms of nanoseconds, one for each of [`PARTS`].
    pub parts: [Histogram<u64>; 3],
    /// Time by number of the I/O in flight: when it was begun, later when its doorbell was rung.
    times: Vec<u64>,
    /// Numbers of the I/Os that the open turn has built.
    building: Vec<u16>,
}

impl Breakdown {
    /// Makes a breakdown for `depth` I/Os in flight.
    pub fn new(depth: u32) -> anyhow::Result<Self> {
        let parts = [histogram()?, histogram()?, histogram()?];
        let building = Vec::with_capacity(depth as usize);
        Ok(Self { parts, times: vec![0; depth as usize], building })
    }

    /// Records that an I/O is about to be built.
    #[inline]
    pub fn begin(&mut self, number: u16, now: u64) {
        self.times[usize::from(number)] = now;
        self.building.push(number);
    }

    /// Records that the turn's doorbell was rung.
    #[inline]
    pub fn rung(&mut self, now: u64) {
        for number in self.building.drain(..) {
            let time = &mut self.times[usize::from(number)];
            self.parts[0].saturating_record(now - *time);
            *time = now;
        }
    }

    /// Records that the I/O's completion was taken at `now`, in a turn that began at `seen`.
    #[inline]
    pub fn end(&mut self, number: u16, seen: u64, now: u64) {
        self.parts[1].saturating_record(seen.saturating_sub(self.times[usize::from(number)]));
        self.parts[2].saturating_record(now - seen);
    }

    /// Forgets all measurements.
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
        breakdown.begin(0, 100);
        breakdown.begin(1, 150);
        breakdown.rung(200);
        breakdown.end(1, 700, 710);
        breakdown.begin(1, 720);
        breakdown.rung(725);
        breakdown.end(0, 1200, 1201);
        let [submit, device, reap] = &breakdown.parts;
        assert_eq!((submit.min(), submit.max(), submit.len()), (5, 100, 3));
        assert_eq!((device.min(), device.max(), device.len()), (500, 1000, 2));
        assert_eq!((reap.min(), reap.max()), (1, 10));
        breakdown.reset();
        assert!(breakdown.parts.iter().all(Histogram::is_empty));
    }
}
