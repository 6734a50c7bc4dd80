//! A thread that is joined with a deadline.

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

/// A thread of a device, which the device ends by other means.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<()>,
    /// Disconnected when the thread ends; nothing is sent. The mutex makes the receiver `Sync` and is never locked.
    ended: Mutex<Receiver<()>>,
}

impl Worker {
    /// Starts a thread with this name.
    ///
    /// # Errors
    /// The system's errors.
    pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (running, ended) = channel::<()>();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            work();
            drop(running);
        })?;
        Ok(Self { thread, ended: Mutex::new(ended) })
    }

    /// Waits at most `deadline` for the thread's end; `false` if it is still running, and is abandoned. A panic of it is
    /// logged.
    pub fn join_within(self, deadline: Duration) -> bool {
        let ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(deadline) {
            return false;
        }
        let name = self.thread.thread().name().unwrap_or_default().to_owned();
        if self.thread.join().is_err() {
            emit(move || tracing::warn!(thread = name, "the thread panicked"));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_end_is_abandoned() {
        let (go, wait) = channel::<()>();
        let worker = Worker::start("upcie-test", move || _ = wait.recv()).unwrap();
        assert!(!worker.join_within(Duration::from_millis(20)));
        drop(go);
        let done = Worker::start("upcie-test", || {}).unwrap();
        assert!(done.join_within(Duration::from_secs(60)));
        let panics = Worker::start("upcie-test", || panic!("on purpose")).unwrap();
        assert!(panics.join_within(Duration::from_secs(60)), "a panic is an end, too");
    }
}
