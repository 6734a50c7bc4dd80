//! Time of threads on a core, and time of waiting for a core.

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use std::{fs, path::Path, time::Duration};

/// Times of one thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    /// Time on a core.
    pub cpu: Duration,
    /// Elapsed time.
    pub wall: Duration,
    /// Time runnable without a core; `None` if the kernel does not count it.
    pub waited: Option<Duration>,
}

impl Share {
    /// Reads the times of the calling thread.
    pub fn now() -> anyhow::Result<Self> {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading the thread's CPU time")?;
        let wall = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
        Ok(Self { cpu: cpu.into(), wall: wall.into(), waited: waited(Path::new("/proc/thread-self")) })
    }

    /// Returns the difference to an earlier reading.
    pub fn since(self, before: Self) -> Self {
        let waited = self.waited.zip(before.waited);
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            wall: self.wall.saturating_sub(before.wall),
            waited: waited.map(|(now, before)| now.saturating_sub(before)),
        }
    }
}

/// Sums up the time that threads of embedded controllers in this process have waited for a core; `None`
/// without such threads, or if the kernel does not count the time.
pub fn emulators() -> Option<Duration> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.filter_map(Result::ok).map(|task| task.path());
    let named =
        |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "nvme-emu");
    tasks.filter(|task| named(task)).filter_map(|task| waited(&task)).reduce(|sum, one| sum + one)
}

/// Reads the time that a task waited for a core: the second field of its `schedstat`, in nanoseconds.
fn waited(task: &Path) -> Option<Duration> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_no_more_time_than_has_passed() {
        let before = Share::now().unwrap();
        while Share::now().unwrap().since(before).cpu < Duration::from_millis(5) {}
        let share = Share::now().unwrap().since(before);
        let sum = share.cpu + share.waited.unwrap_or_default();
        // The kernel adds a wait when it ends, and measures it with another clock.
        assert!(sum <= share.wall + Duration::from_millis(5), "{share:?}");
    }
}
