//! A thread that is waited for with a deadline.

use crate::events::emit;
use std::{
    io,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A thread of a device's, which ends when it is told to by other means.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    /// Nothing comes: the other end goes with the thread. Never locked: a receiver alone can't be shared.
    ended: Mutex<Receiver<()>>,
}

impl Worker {
    /// Starts a thread with this name.
    ///
    /// # Errors
    /// The system's.
    pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (running, ended) = channel::<()>();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            work();
            drop(running);
        })?;
        Ok(Self { thread, ended: Mutex::new(ended) })
    }

    /// Waits until it has ended, at most `deadline`; `false` when it goes on, and is left behind. Its panic is logged.
    pub fn join_within(self, deadline: Duration) -> bool {
        let ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(deadline) {
            return false;
        }
        let name = self.thread.thread().name().unwrap_or_default().to_owned();
        if self.thread.join().is_err() {
            emit(move || tracing::warn!(thread = name, "it panicked"));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_end_is_left_behind() {
        let (go, wait) = channel::<()>();
        let worker = Worker::start("upcie-test", move || _ = wait.recv()).unwrap();
        assert!(!worker.join_within(Duration::from_millis(20)));
        drop(go);
        let done = Worker::start("upcie-test", || {}).unwrap();
        assert!(done.join_within(Duration::from_secs(60)));
        let panics = Worker::start("upcie-test", || panic!("on purpose")).unwrap();
        assert!(panics.join_within(Duration::from_secs(60)), "ended all the same");
    }
}
