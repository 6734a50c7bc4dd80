//! Support code of the benches: a stand-in device, the sides of the comparisons, clocks, and the entries of
//! `summary.json`.

pub mod bare;
pub mod c_path;
pub mod caller;
pub mod cores;
pub mod entry;
pub mod futures;
pub mod hand;
pub mod held;
pub mod libupcie;
pub mod memory;
pub mod ours;
pub mod rings;
pub mod served;
pub mod standin;
pub mod uring;

/// A xorshift generator, whose few instructions both sides of a comparison pay.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Makes a generator with a fixed seed.
    pub fn new() -> Self {
        Self(88_172_645_463_325_252)
    }

    /// Returns the next number.
    #[inline(always)]
    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator to loop over")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the CPU time of the calling thread in nanoseconds. Other processes disturb it less than the wall
/// clock.
pub fn thread_time() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
