//! The place of a queue's hot state: one for each handle of a queue, in the pages that a forked child finds cleared.
//!
//! A submission or a poll finds all that it needs here, at an address that is part of the handle. A station of zeros has
//! no queue, and its lane is closed, so that a call in a forked child, or one with NULL, finds a queue that takes nothing.

use crate::{
    errors::Result,
    guard::Guard,
    handles::{BLOCK, Entry, Kind},
    held::Held,
    translation::Translation,
};
use std::{cell::Cell, ffi::c_void, ptr::null};
use upcie_nvme::queue::Lane;

/// The hot state of one queue. Its cells belong to the thread that is in a call on the queue.
#[derive(Debug)]
#[repr(C, align(256))]
pub(crate) struct Station {
    pub(crate) entry: Entry,
    pub(crate) lane: Lane<Held>,
    translation: Cell<*const Translation>,
    /// The controller's page, less one.
    pub(crate) mask: Cell<u64>,
    pub(crate) longest: Cell<usize>,
    /// Polls in a row that found nothing.
    pub(crate) idle: Cell<u32>,
    /// Polls that are in progress.
    pub(crate) polls: Cell<u32>,
    pub(crate) guard: Guard,
}
const _: () = assert!(size_of::<Station>() == BLOCK);

// SAFETY: other threads use its atomics alone (the entry, the guard, the lane's `divert`).
unsafe impl Sync for Station {}

impl Station {
    /// Returns the station that a handle names; that of no queue for a number that is no handle.
    #[inline(always)]
    pub(crate) fn of(handle: usize) -> &'static Self {
        let station: *const Self = Kind::Queue.entry(handle).cast();
        // SAFETY: entries of this kind begin blocks of a station's size, in a static; zeros are a valid station.
        unsafe { &*station }
    }

    /// Returns `true` if the handle is valid. So is NULL before the first use of the table and in a forked child: there is
    /// no queue then.
    #[inline(always)]
    pub(crate) fn is_named(&self, handle: usize) -> bool {
        self.entry.is_named(handle)
    }

    /// Returns the station of a handle that is valid, and whose queue is [seated](Seat::seat).
    #[inline(always)]
    pub(crate) fn find(handle: usize) -> Option<&'static Self> {
        let station = Self::of(handle);
        (station.is_named(handle) && !station.object().is_null()).then_some(station)
    }

    /// Returns the handle.
    pub(crate) fn handle(&self) -> usize {
        self.entry.handle()
    }

    /// Returns the queue.
    #[inline(always)]
    pub(crate) fn object(&self) -> *mut c_void {
        self.entry.object()
    }

    /// Returns the device addresses of the controller's space.
    #[inline(always)]
    pub(crate) fn translation(&self) -> Option<&Translation> {
        // SAFETY: null, or that of the queue's controller, which the queue keeps.
        unsafe { self.translation.get().as_ref() }
    }
}

/// A station in use. It is free again when this is dropped, and its handle is valid no more.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) handle: usize,
    pub(crate) station: &'static Station,
}

impl Seat {
    /// Takes a station: its handle finds no queue until [`seat`](Self::seat).
    pub(crate) fn take(translation: &Translation, mask: u64, longest: usize) -> Result<Self> {
        let handle = Kind::Queue.reserve()?;
        let station = Station::of(handle);
        station.translation.set(translation);
        station.mask.set(mask);
        station.longest.set(longest);
        station.idle.set(0);
        station.polls.set(0);
        Ok(Self { handle, station })
    }

    /// Lets the handle find a queue.
    pub(crate) fn seat(&self, queue: *mut c_void) {
        self.station.entry.set_object(queue);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.station.translation.set(null());
        // Fails in a forked child alone, where nothing is seated.
        let _ = Kind::Queue.remove(self.handle);
    }
}
