//! The number of Abort commands that a controller takes at a time (Identify Controller, ACL).

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The Abort commands that the controller has not answered.
#[derive(Debug, Default)]
pub(super) struct Aborts(Arc<AtomicU32>);

/// One Abort command that counts as unanswered, until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicU32>);

impl Aborts {
    /// Permits one of `most` Aborts at a time.
    pub(super) fn permit(&self, most: u32) -> Option<Permit> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Permit(self.0.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_aborts_than_the_controller_takes() {
        let aborts = Aborts::default();
        let held = [aborts.permit(2), aborts.permit(2)];
        assert!(held.iter().all(Option::is_some) && aborts.permit(2).is_none());
        drop(held);
        assert!(aborts.permit(1).is_some());
    }
}
