//! The place of a queue's driver.

use super::shared::Shared;
use crate::{Error, Result};
use std::{rc::Rc, task::Waker};

/// Counts itself as a driver of the queue from its first poll on.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Rc<Shared>,
    is_taken: bool,
}

impl Seat {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        Self { shared: shared.clone(), is_taken: false }
    }

    /// Makes a seat that is taken at once.
    pub(super) fn taken(shared: &Rc<Shared>) -> Self {
        let mut seat = Self::new(shared);
        seat.take();
        seat
    }

    #[inline]
    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    #[inline]
    pub(super) fn take(&mut self) {
        if !self.is_taken {
            if let Some(mut inner) = self.shared.borrow() {
                inner.drivers += 1;
                self.is_taken = true;
            }
        }
    }

    /// Returns the result of a driver whose queue takes no more commands.
    pub(super) fn end(&self, error: Error) -> Result<()> {
        if self.shared.borrow().is_some_and(|inner| inner.is_closed()) { Ok(()) } else { Err(error) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_taken {
            return;
        }
        let Some(mut inner) = self.shared.borrow() else { return };
        inner.drivers -= 1;
        let before = inner.sleeping.take();
        // Without a driver the tasks go on by themselves.
        let wakers = if inner.drivers == 0 { inner.take_wakers() } else { Vec::new() };
        drop(inner);
        drop(before);
        wakers.into_iter().for_each(Waker::wake);
    }
}
