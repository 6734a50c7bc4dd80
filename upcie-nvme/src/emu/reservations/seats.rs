//! The controllers of the NVM subsystem: the host of each, and the notifications for it.

use super::Host;
use std::collections::VecDeque;

/// The most pages that wait; more are lost.
const MOST: usize = 255;

/// The reason for a notification (RNLPT); its number is also the bit of the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    RegistrationPreempted = 1,
    Released = 2,
    ReservationPreempted = 3,
}

/// A controller: its host, and the notifications that wait for it.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub controller: u16,
    /// The host's identifier; 0 is none.
    pub id: u128,
    /// Set if the identifier has 128 bits.
    pub is_extended: bool,
    pub log: VecDeque<(u64, Notice, u32)>,
    count: u64,
    /// A page has come of which no event tells yet.
    pub has_log_notice: bool,
    /// Masks of the notifications that are not sent, by namespace.
    pub masks: Vec<u32>,
}

impl Seat {
    /// Makes the seat of a controller whose host has no identifier.
    pub fn new(controller: u16) -> Self {
        Self { controller, ..Self::default() }
    }

    pub fn host(&self) -> Host {
        if self.id == 0 { Host::Unnamed(self.controller) } else { Host::Named(self.id) }
    }

    /// Adds a page, unless the host has masked such ones of the namespace.
    pub fn push(&mut self, notice: Notice, index: usize) {
        if self.masks.get(index).is_some_and(|mask| mask & 1 << notice as u32 != 0) {
            return;
        }
        // Zero is no page's number.
        self.count = self.count.wrapping_add(1).max(1);
        if self.log.len() < MOST {
            self.log.push_back((self.count, notice, index as u32 + 1));
            self.has_log_notice = true;
        }
    }
}
