//! Submissions: first for data that the next slot remembers, then for data of two pages, then for all.

use super::Queue;
use crate::{
    abi::{IoVec, Request},
    controller::PSDT,
    errors::{Failure, Result, of_refusal},
    held::Range,
    pieces::{Pages, contiguous, too_long, total},
    station::Station,
    translation::BIG_BYTES,
};
use std::ffi::c_void;
use upcie_nvme::{Refusal, spec::Command};

impl Station {
    /// Submits a command without metadata whose data is that of the last command in the next slot, or no data. Returns
    /// `false` for all others, and if there is no room: nothing was done.
    ///
    /// # Safety
    /// If the range is memory of the heap, it may be read and written by the controller until the command has ended.
    /// `command` is valid for reads of 64 bytes.
    #[inline(always)]
    pub(crate) unsafe fn submit_again(
        &self,
        command: *const u8,
        data: usize,
        len: usize,
        user: *mut c_void,
    ) -> bool {
        let Some(vacant) = self.lane.vacant() else { return false };
        let held = vacant.tag();
        if !held.is_of(data, len) {
            return false;
        }
        held.set_user(user);
        // SAFETY: two words of the entry.
        let prp = |to| unsafe { held.write_prp(to) };
        // SAFETY: the pointers name memory of the heap, which stays mapped while the slot holds it; the rest is the
        // caller's promise.
        unsafe { vacant.send(command, 0, prp) };
        true
    }

    /// Submits a command with one piece of data, of at most two pages in memory that is mapped by 2 MiB, and without
    /// metadata. Returns `false` for all others, and if there is no room: nothing was done, and
    /// [`submit_pieces`](Queue::submit_pieces) is for them.
    ///
    /// # Safety
    /// The obligations are those of [`submit_again`](Self::submit_again).
    #[inline(always)]
    pub(crate) unsafe fn submit_plain(
        &self,
        command: *const u8,
        data: usize,
        len: usize,
        user: *mut c_void,
    ) -> bool {
        let Some(vacant) = self.lane.vacant() else { return false };
        let Some(run) = self.translation().and_then(|table| table.find_big(data)) else { return false };
        let Some(prp) = two_pages(run.iova, len, self.mask.get(), run.len.min(self.longest.get())) else {
            return false;
        };
        vacant.tag().hold(data, len, prp);
        vacant.tag().set_user(user);
        // SAFETY: the pointers name memory of the heap, which stays mapped while the slot holds it; the rest is the
        // caller's promise.
        unsafe { vacant.send(command, 0, write(prp)) };
        true
    }

    /// Submits requests up to the first that is not [plain](Self::submit_plain), and returns their number.
    ///
    /// # Safety
    /// The obligations are those of [`submit_again`](Self::submit_again), for each request.
    #[inline(always)]
    pub(crate) unsafe fn submit_run(&self, requests: &[Request]) -> usize {
        let Some(translation) = self.translation() else { return 0 };
        let (mask, longest) = (self.mask.get(), self.longest.get());
        let (mut known, mut delta) = (usize::MAX, 0);
        let mut submissions = self.lane.submissions();
        let mut rest = requests;
        while let [request, more @ ..] = rest {
            let (data, len) = (request.data, request.data_size);
            if data / BIG_BYTES != known {
                let Some(run) = translation.find_big(data & !(BIG_BYTES - 1)) else { break };
                (known, delta) = (data / BIG_BYTES, run.iova.wrapping_sub((data & !(BIG_BYTES - 1)) as u64));
            }
            let prp1 = delta.wrapping_add(data as u64);
            let room = || (BIG_BYTES - (data & (BIG_BYTES - 1))).min(longest);
            let (Some(prp), Some(held)) = (two_pages_or(prp1, len, mask, room), submissions.tag()) else {
                break;
            };
            held.hold(data, len, prp);
            held.set_user(std::ptr::without_provenance_mut(request.user));
            // SAFETY: there is a tag; the pointers name memory of the heap, which stays mapped while the slot holds it.
            unsafe { submissions.send((&raw const request.cmd).cast(), 0, write(prp)) };
            rest = more;
        }
        submissions.end();
        requests.len() - rest.len()
    }
}

/// Returns a writer of two PRP entries.
#[inline(always)]
fn write([prp1, prp2]: [u64; 2]) -> impl FnOnce(*mut u64) {
    move |to| {
        // SAFETY: the first of two words of a submission entry.
        unsafe { to.write(prp1) };
        // SAFETY: the second one.
        unsafe { to.wrapping_add(1).write(prp2) };
    }
}

/// Returns the PRP entries of `len` bytes, at least one, that begin at `prp1` and are in at most two pages, and no more
/// than `most` if they are in two.
#[inline(always)]
fn two_pages(prp1: u64, len: usize, mask: u64, most: usize) -> Option<[u64; 2]> {
    two_pages_or(prp1, len, mask, || most)
}

#[inline(always)]
fn two_pages_or(prp1: u64, len: usize, mask: u64, most: impl FnOnce() -> usize) -> Option<[u64; 2]> {
    let left = !prp1 & mask;
    // No bytes at all are more than any page has.
    let last = (len as u64).wrapping_sub(1);
    let mut prp2 = 0;
    if last > left {
        if last > left + mask + 1 || len > most() {
            return None;
        }
        prp2 = (prp1 | mask) + 1;
    }
    (prp1 & 3 == 0).then_some([prp1, prp2])
}

impl Queue {
    /// Submits commands in order, but for the first ones, which were `sent` before, and returns the number of all; the failure
    /// of the first one, if it can't be submitted.
    ///
    /// # Safety
    /// If the requests' data is memory of the heap, it may be read and written by the controller until the command has
    /// ended.
    pub(crate) unsafe fn submit_many(&mut self, requests: &[Request], mut sent: usize) -> Result<usize> {
        loop {
            // SAFETY: the caller's promise.
            sent += unsafe { self.station.submit_run(&requests[sent..]) };
            let Some(request) = requests.get(sent) else { return Ok(sent) };
            let piece =
                IoVec { base: std::ptr::without_provenance_mut(request.data), len: request.data_size };
            let user = std::ptr::without_provenance_mut(request.user);
            let command: Command = zerocopy::transmute!(request.cmd);
            // SAFETY: the caller's promise.
            match unsafe { self.submit_pieces(&command, &[piece], Range::default(), user) } {
                Ok(()) => sent += 1,
                Err(failure) if sent == 0 => return Err(failure),
                Err(_) => return Ok(sent),
            }
        }
    }

    /// Submits a command with data in any number of pieces, and metadata.
    ///
    /// # Safety
    /// If the ranges are memory of the heap, they may be read and written by the controller until the command has
    /// ended.
    #[inline(never)]
    pub(crate) unsafe fn submit_pieces(
        &mut self,
        command: &Command,
        data: &[IoVec],
        meta: Range,
        user: *mut c_void,
    ) -> Result<()> {
        let station = self.station;
        if station.lane.vacant().is_none() {
            self.make_room()?;
        }
        let closed = || of_refusal(Refusal::Closed);
        let (Some(vacant), Some(lists)) = (station.lane.vacant(), &self.lists) else { return Err(closed()) };
        if total(data)? > station.longest.get() {
            return Err(too_long());
        }
        let slot = vacant.index();
        let translation = station.translation().ok_or_else(closed)?;
        let mut pages = Pages::new(station.mask.get(), lists.place(slot));
        for piece in data {
            pages.add(translation, piece.base.addr(), piece.len)?;
        }
        let (prp1, prp2) = pages.finish();
        let mut command = *command;
        command.flags &= !PSDT;
        let mut mptr = 0;
        if meta.len > 0 {
            mptr = contiguous(translation, meta.at, meta.len)?;
            if mptr % 4 != 0 {
                return Err(Failure::argument("metadata must begin at a multiple of 4"));
            }
        }
        let pieces = data.iter().map(|piece| Range { at: piece.base.addr(), len: piece.len });
        self.flight.hold_several(slot, vacant.tag(), std::iter::once(meta).chain(pieces));
        vacant.tag().set_user(user);
        // SAFETY: the pointers name memory of the heap, which stays mapped while the slot holds it, and the
        // slot's list.
        unsafe { vacant.send((&raw const command).cast(), mptr, write([prp1, prp2])) };
        Ok(())
    }

    /// Lets the queue take commands again after memory was unmapped; the failure if it has no room, or is closed.
    #[cold]
    fn make_room(&mut self) -> Result<()> {
        let lane = &self.station.lane;
        if self.flight.take_reset() || !lane.is_open() {
            // Closed by a reset or a forged completion.
            self.reopen()?;
        } else {
            lane.resume();
            self.flight.refresh();
        }
        if lane.vacant().is_some() { Ok(()) } else { Err(of_refusal(Refusal::Full)) }
    }
}
