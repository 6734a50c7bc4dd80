//! The calling thread's time slice.
//!
//! An idle server offers its core to others again and again, in case the driver waits for this very one. Since Linux 6.18 a
//! thread that does so gives up the rest of its time slice, some 3 ms; beside two busy programs on two cores a driver that
//! polls then has 7,000 I/Os a second at depth 1, and 200,000 with a slice of 100 µs.

use libc::sched_attr;

/// The least that Linux takes.
const SHORT: u64 = 100_000;

/// A slice that is short until dropped.
#[derive(Debug)]
pub(super) struct Slice {
    /// What Linux said before, in nanoseconds.
    before: u64,
}

impl Slice {
    /// `None` where the kernel has no slices of a thread's own (before 6.12), or the thread is scheduled by other rules.
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

/// The calling thread's.
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
    // SAFETY: the kernel writes at most `size` bytes, which is all of it.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    (result == 0).then_some(attributes)
}

/// Sets the slice; all else stays as it is in `attributes`.
fn set(mut attributes: sched_attr, runtime: u64) -> bool {
    attributes.sched_runtime = runtime;
    // SAFETY: the kernel reads `size` bytes, as many as it wrote there; it changes when the calling thread runs, nothing
    // else.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, tools A4: a yield of the controller's thread must not cost a whole slice of 3 ms.
    #[test]
    fn a_slice_is_short_while_it_is_held() {
        let runtime = || get().map_or(0, |attributes| attributes.sched_runtime);
        let before = runtime();
        let slice = Slice::short();
        // Linux before 6.12 says 0 and keeps it.
        let expected = if before > SHORT { SHORT } else { before };
        assert_eq!((runtime(), slice.is_some()), (expected, before > SHORT));
        drop(slice);
        assert_eq!(runtime(), before);
    }
}
