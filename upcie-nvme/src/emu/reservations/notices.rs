//! The Reservation Notification log of each controller, its masks, and the identifier of its host.

use super::{Host, Reservations, seats::Seat};
use crate::spec::{ReservationNotificationLog, Status};
use zerocopy::{FromZeros, IntoBytes};

impl Reservations {
    fn seat(&self, controller: u16) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.controller == controller)
    }

    fn seat_mut(&mut self, controller: u16) -> &mut Seat {
        let found = self.seats.iter().position(|seat| seat.controller == controller);
        let at = found.unwrap_or_else(|| {
            self.seats.push(Seat::new(controller));
            self.seats.len() - 1
        });
        &mut self.seats[at]
    }

    /// Returns the host of a controller.
    pub fn host(&self, controller: u16) -> Host {
        self.seat(controller).map_or(Host::Unnamed(controller), Seat::host)
    }

    /// Returns the controllers that a host uses.
    pub(super) fn controllers(&self, host: Host) -> impl Iterator<Item = u16> {
        self.seats.iter().filter(move |seat| seat.host() == host).map(|seat| seat.controller)
    }

    /// Returns the identifier of a controller's host, 0 for none.
    ///
    /// # Errors
    /// Host Identifier Inconsistent Format: it has another length.
    pub fn identifier(&self, controller: u16, is_extended: bool) -> Result<u128, Status> {
        match self.seat(controller) {
            Some(seat) if seat.id != 0 && seat.is_extended != is_extended => {
                Err(Status::HOST_ID_INCONSISTENT.with_do_not_retry())
            }
            seat => Ok(seat.map_or(0, |seat| seat.id)),
        }
    }

    /// Sets the identifier of a controller's host.
    ///
    /// # Errors
    /// Command Sequence Error: the host has another one. Host Identifier Inconsistent Format: another controller's has another
    /// length.
    pub fn name(&mut self, controller: u16, id: u128, is_extended: bool) -> Result<(), Status> {
        let mixed =
            |seat: &Seat| seat.controller != controller && seat.id != 0 && seat.is_extended != is_extended;
        if id != 0 && self.seats.iter().any(mixed) {
            return Err(Status::HOST_ID_INCONSISTENT.with_do_not_retry());
        }
        let seat = self.seat_mut(controller);
        if seat.id != 0 && (seat.id, seat.is_extended) != (id, is_extended) {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
        }
        (seat.id, seat.is_extended) = (id, is_extended);
        self.version += 1;
        Ok(())
    }

    /// Returns the notifications of a namespace that a controller does not send.
    pub fn mask(&self, controller: u16, index: usize) -> u32 {
        self.seat(controller).and_then(|seat| seat.masks.get(index)).copied().unwrap_or(0)
    }

    /// Sets the notifications of a namespace that a controller does not send.
    pub fn set_mask(&mut self, controller: u16, index: usize, mask: u32) {
        let all = self.spaces.len();
        let masks = &mut self.seat_mut(controller).masks;
        masks.resize(all, 0);
        if let Some(place) = masks.get_mut(index) {
            *place = mask;
        }
    }

    /// Returns `true` once for each time that pages have come for a controller.
    pub fn take_log_notice(&mut self, controller: u16) -> bool {
        let seat = self.seats.iter_mut().find(|seat| seat.controller == controller);
        seat.is_some_and(|seat| std::mem::take(&mut seat.has_log_notice))
    }

    /// Returns the Reservation Notification log page.
    pub fn page(&self, controller: u16) -> Vec<u8> {
        let mut page = ReservationNotificationLog::new_zeroed();
        if let Some(seat) = self.seat(controller) {
            if let Some(&(count, notice, nsid)) = seat.log.front() {
                (page.log_page_count, page.notification_type, page.namespace_id) =
                    (count, notice as u8, nsid);
                page.available_pages = (seat.log.len() - 1).min(255) as u8;
            }
        }
        page.as_bytes().to_vec()
    }

    /// Removes the page that was read; one that waits behind it is news.
    pub fn end_page(&mut self, controller: u16) {
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.controller == controller) {
            seat.log.pop_front();
            seat.has_log_notice = !seat.log.is_empty();
        }
    }
}
