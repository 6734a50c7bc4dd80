//! A log that a full disk can't flood: each cause is logged once, and counted.

use nix::errno::Errno;
use std::path::PathBuf;

/// The failures of a file.
#[derive(Debug)]
pub struct Faults {
    path: PathBuf,
    seen: Vec<Cause>,
}

#[derive(Debug)]
struct Cause {
    operation: &'static str,
    errno: Errno,
    count: u64,
}

impl Faults {
    /// Makes a record without failures.
    pub fn of(path: PathBuf) -> Self {
        Self { path, seen: Vec::new() }
    }

    /// Logs a failed operation the first time that it fails for this reason; counts it later.
    #[cold]
    pub fn note(&mut self, operation: &'static str, errno: Errno) {
        let same = |cause: &&mut Cause| cause.operation == operation && cause.errno == errno;
        if let Some(cause) = self.seen.iter_mut().find(same) {
            cause.count += 1;
            return;
        }
        self.seen.push(Cause { operation, errno, count: 1 });
        tracing::error!(
            file = %self.path.display(),
            error = %errno,
            "{operation} failed; further failures for this reason are counted and reported at the end"
        );
    }

    /// Logs how often each cause came, and starts again.
    pub fn sum_up(&mut self) {
        for Cause { operation, errno, count } in self.seen.drain(..).filter(|cause| cause.count > 1) {
            tracing::error!(
                file = %self.path.display(),
                error = %errno,
                count,
                "{operation} failed {count} times"
            );
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.sum_up();
    }
}
