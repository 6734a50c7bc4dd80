//! Tags of commands: one word, so that the slots of a queue stay small.

/// Bits of a start time: latencies below 39 hours are exact.
const START_BITS: u32 = 47;
/// Bit 0 is the direction; the start follows, then the number.
const NUMBER_SHIFT: u32 = START_BITS + 1;

/// Start of a command, in nanoseconds on the run's clock, its direction, and its number among those in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    /// Makes the tag of a command with number 0.
    #[inline(always)]
    pub fn new(start: u64, write: bool) -> Self {
        Self(start << (u64::BITS - START_BITS) >> (u64::BITS - NUMBER_SHIFT) | u64::from(write))
    }

    /// Sets the number.
    #[inline(always)]
    pub fn numbered(self, number: u16) -> Self {
        Self(
            self.0 << (u64::BITS - NUMBER_SHIFT) >> (u64::BITS - NUMBER_SHIFT)
                | u64::from(number) << NUMBER_SHIFT,
        )
    }

    /// Returns the nanoseconds from the command's start to `now`.
    #[inline(always)]
    pub fn latency(self, now: u64) -> u64 {
        now.wrapping_sub(self.0 >> 1) & ((1 << START_BITS) - 1)
    }

    /// Returns true for a write or trim, false for a read.
    #[inline(always)]
    pub fn is_write(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns the number.
    #[inline(always)]
    pub fn number(self) -> u16 {
        (self.0 >> NUMBER_SHIFT) as u16
    }
}

/// State of a numbered I/O in flight.
#[derive(Debug, Clone, Copy, Default)]
pub struct Numbered {
    /// Index of its size.
    pub size: u8,
    /// Index of the I/O's unit in the ledger.
    pub unit: u32,
}

/// Numbered I/Os of a queue pair. The plain loop numbers none: its I/Os have one size and no ledger.
#[derive(Debug)]
pub struct Numbers {
    ios: Vec<Numbered>,
    free: Vec<u16>,
}

impl Numbers {
    /// Makes numbers for `depth` I/Os in flight, at most 65,536.
    pub fn new(depth: u32) -> Self {
        let free = (0..=u16::MAX).take(depth as usize).collect();
        Self { ios: vec![Numbered::default(); depth as usize], free }
    }

    /// Numbers an I/O.
    #[inline]
    pub fn begin(&mut self, io: Numbered) -> u16 {
        // There are as many numbers as I/Os in flight, so one is always free.
        let number = self.free.pop().unwrap_or(0);
        self.ios[usize::from(number)] = io;
        number
    }

    /// Ends the I/O; returns its state.
    #[inline]
    pub fn end(&mut self, number: u16) -> Numbered {
        self.free.push(number);
        self.ios[usize::from(number)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_start_direction_and_number_apart() {
        for start in [0, 1, 12_345_678_901, (1 << START_BITS) - 1, 1 << START_BITS, u64::MAX - 5000] {
            for write in [false, true] {
                for number in [0, 1, u16::MAX] {
                    let tag = Tag::new(start, write).numbered(number);
                    assert_eq!((tag.is_write(), tag.number()), (write, number), "{start}");
                    assert_eq!([0, 4096].map(|ns| tag.latency(start + ns)), [0, 4096], "{start}");
                }
            }
        }
    }

    #[test]
    fn a_number_is_used_again_after_its_io() {
        let mut numbers = Numbers::new(2);
        let io = |unit| Numbered { size: 1, unit };
        let (first, second) = (numbers.begin(io(5)), numbers.begin(io(6)));
        assert_ne!(first, second);
        assert_eq!(numbers.end(second).unit, 6);
        assert_eq!(numbers.begin(io(7)), second);
        assert_eq!((numbers.end(first).unit, numbers.end(second).unit), (5, 7));
    }
}
