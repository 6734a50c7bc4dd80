//! The time slice of the calling thread.
//!
//! An idle server yields its core repeatedly, in case its driver waits for this core. Since Linux 6.18 a thread that
//! yields gives up the rest of its time slice, about 3 ms. Beside two busy programs on two cores, a polling driver then
//! gets 7,000 I/Os a second at depth 1, and 200,000 with a slice of 100 µs.

use libc::sched_attr;

/// The shortest slice that Linux accepts, in nanoseconds.
const SHORT: u64 = 100_000;

/// A short time slice, until dropped.
#[derive(Debug)]
pub(super) struct Slice {
    /// The former slice in nanoseconds.
    before: u64,
}

impl Slice {
    /// Shortens the slice. Returns `None` if the kernel has no slices per thread (before 6.12), or the thread has
    /// another scheduling policy.
    pub(super) fn short() -> Option<Self> {
        let attributes = get().filter(|now| now.sched_policy == libc::SCHED_OTHER as u32)?;
        let before = attributes.sched_runtime;
        (before > SHORT && set(attributes, SHORT)).then_some(Self { before })
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if let Some(attributes) = get() {
            set(attributes, self.before);
        }
    }
}

/// Returns the scheduling attributes of the calling thread.
fn get() -> Option<sched_attr> {
    let mut attributes = sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of::<sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes, the size of `attributes`.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    (result == 0).then_some(attributes)
}

/// Sets the slice and keeps the other attributes.
fn set(mut attributes: sched_attr, runtime: u64) -> bool {
    attributes.sched_runtime = runtime;
    // SAFETY: the kernel reads as many bytes as it wrote there; the call only changes the scheduling of the calling
    // thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A yield of the controller's thread must not cost a whole slice of 3 ms.
    #[test]
    fn a_slice_is_short_while_it_is_held() {
        let runtime = || get().map_or(0, |attributes| attributes.sched_runtime);
        let before = runtime();
        let slice = Slice::short();
        // Linux before 6.12 reports 0 and does not change.
        let expected = if before > SHORT { SHORT } else { before };
        assert_eq!((runtime(), slice.is_some()), (expected, before > SHORT));
        drop(slice);
        assert_eq!(runtime(), before);
    }
}
