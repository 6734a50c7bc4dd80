//! A stopwatch for another process, which stops while that process waits for a processor.
//!
//! A deadline in real time fails a test if the machine is too busy to run the process at all. This stopwatch
//! measures the time that the process really had.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

/// Counts real time, less the time that a thread of the process spent in a run queue (the second field of
/// `/proc/PID/task/TID/schedstat`, in nanoseconds). If several threads waited, the longest wait counts. A
/// kernel without that file gives real time.
#[derive(Debug)]
pub struct Stopwatch {
    pid: u32,
    start: Instant,
    /// Run-queue waits of each thread at the last call.
    waits: HashMap<String, u64>,
    starved: Duration,
}

impl Stopwatch {
    /// Starts a stopwatch for the process `pid`.
    pub fn of(pid: u32) -> Self {
        let waits = waits_of(pid);
        Self { pid, start: Instant::now(), waits, starved: Duration::ZERO }
    }

    /// Returns the counted time so far. It reads the process's waits: call it a few times a second.
    pub fn elapsed(&mut self) -> Duration {
        let now = waits_of(self.pid);
        let grown = |(thread, wait): (&String, &u64)| wait - self.waits.get(thread).unwrap_or(&0).min(wait);
        self.starved += Duration::from_nanos(now.iter().map(grown).max().unwrap_or(0));
        // A process that has ended has no threads left.
        if !now.is_empty() {
            self.waits = now;
        }
        self.start.elapsed().saturating_sub(self.starved)
    }
}

/// Returns the time that each thread of a process has waited for a core, in nanoseconds.
fn waits_of(pid: u32) -> HashMap<String, u64> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    let wait = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let wait = text.split_whitespace().nth(1)?.parse().ok()?;
        Some((task.file_name().to_string_lossy().into_owned(), wait))
    };
    tasks.flatten().filter_map(wait).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::*, thread};

    #[test]
    fn waits_for_a_processor_do_not_count() {
        // More threads than processors, so that each waits for one again and again.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut watch = Stopwatch::of(std::process::id());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 * processors {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let limit = Instant::now() + crate::deadline();
            while watch.starved.is_zero() && Instant::now() < limit {
                watch.elapsed();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(!watch.starved.is_zero(), "none of the threads has waited");
        let real = watch.start.elapsed();
        assert!(watch.elapsed() < real.max(watch.start.elapsed()));
    }

    #[test]
    fn time_of_a_process_that_sleeps_counts() {
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.expect("sleep is one of the essential programs");
        let mut watch = Stopwatch::of(child.id());
        let limit = Instant::now() + crate::deadline();
        while watch.elapsed() < Duration::from_millis(50) && Instant::now() < limit {
            thread::yield_now();
        }
        let counted = watch.elapsed();
        child.kill().and_then(|()| child.wait()).expect("a child");
        assert!(counted >= Duration::from_millis(50), "{counted:?}");
    }
}
