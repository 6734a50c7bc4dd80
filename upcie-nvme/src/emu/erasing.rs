//! The work of erasures: Format NVM, the deletion of namespaces, Sanitize, and the reformatting by a fault plan.
//!
//! They go on beside the queues, a piece in each step, one erasure after another. A namespace takes no commands meanwhile. A reset
//! stops a Format NVM, and the namespace that it had begun to erase takes none until it is formatted again; all others go on.

use super::{
    erasure::{Erasure, Purpose, Reply},
    faults::Effects,
    io::Io,
    media::Media,
    namespace::{Away, Namespace},
    queues::Queues,
    state::Core,
};
use crate::spec::{Command, Status};
use std::{collections::VecDeque, time::Duration};

/// Bytes that a step erases: half of what it may process, so that queues are served, too. Huge pages are freed as a whole.
pub(super) const ERASE_PIECE: u64 = 2 << 20;

/// An erasure that has ended, and its result.
type Ended = (Erasure, Result<(), Status>);

impl<M: Media> Io<M> {
    /// Erases the next piece; returns the bytes that it counts for, and the erasure that has ended with it, if one has.
    fn erase_piece(&mut self) -> (u64, Option<Ended>) {
        let Some(mut erasure) = self.erasures.pop_front() else { return (0, None) };
        let mut bytes = 0;
        let result = match self.erase_some(&mut erasure, &mut bytes) {
            Ok(false) => {
                self.erasures.push_front(erasure);
                return (bytes, None);
            }
            Ok(true) => self.flush_media().map(|flushed| bytes += flushed),
            Err(status) => Err(status),
        };
        self.release_erased(&erasure);
        (bytes, Some((erasure, result)))
    }

    /// Erases as much as a step may, and adds the bytes that this counts for to `bytes`; returns `true` if nothing is left.
    fn erase_some(&mut self, erasure: &mut Erasure, bytes: &mut u64) -> Result<bool, Status> {
        while let Some((index, start, len)) = self.part(erasure) {
            if *bytes >= ERASE_PIECE {
                return Ok(false);
            }
            let left = len.saturating_sub(erasure.done);
            if left > 0 {
                let offset = start + erasure.done;
                let most = (ERASE_PIECE - *bytes).min(ERASE_PIECE - offset % ERASE_PIECE);
                let erased = self.media.erase(offset, left, most)?.min(left);
                if erased == 0 {
                    return Err(Status::INTERNAL_ERROR);
                }
                self.written(offset, erased);
                erasure.done += erased;
                *bytes += erased.min(most);
                continue;
            }
            let forgotten = self.forget_pairs(index, ERASE_PIECE - *bytes);
            if forgotten > 0 {
                *bytes += forgotten;
                continue;
            }
            self.end_part(erasure.purpose, index, (start, len));
            (erasure.ended, erasure.done) = (erasure.ended + 1, 0);
        }
        Ok(true)
    }

    /// Returns the index of the namespace to erase next, and its part of the medium: its first byte, and its bytes. A Sanitize
    /// names none, and its part is all of the medium.
    fn part(&self, erasure: &Erasure) -> Option<(Option<usize>, u64, u64)> {
        if erasure.purpose == Purpose::Sanitize {
            return (erasure.ended == 0).then_some((None, 0, self.capacity));
        }
        let &(index, _) = erasure.named.get(erasure.ended)?;
        let namespace = self.namespaces.get(index)?;
        Some((Some(index), namespace.start, namespace.capacity))
    }

    /// Removes pairs of a namespace with keys, or of all of them, that have taken up to `most` bytes; returns their bytes, 0 if
    /// there are none.
    fn forget_pairs(&mut self, index: Option<usize>, most: u64) -> u64 {
        let mut bytes = 0;
        for (at, keys) in self.keys.iter_mut().enumerate() {
            let Some(keys) = keys.as_mut().filter(|_| index.is_none_or(|index| index == at)) else {
                continue;
            };
            if bytes < most {
                bytes += keys.forget(most - bytes);
            }
        }
        bytes
    }

    /// Ends the erasure of a namespace, or of the medium: zones are empty, and the namespace has its new layout, or is gone.
    fn end_part(&mut self, purpose: Purpose, index: Option<usize>, (start, len): (u64, u64)) {
        let namespace = index.and_then(|index| self.namespaces.get_mut(index));
        if let (Purpose::Format(layout), Some(namespace)) = (purpose, namespace) {
            *namespace = namespace.with_layout(layout);
        }
        self.renew_zones(start, len);
        if let (Purpose::Delete, Some(index)) = (purpose, index) {
            self.remove(index);
        }
    }

    /// Removes a namespace that is erased.
    fn remove(&mut self, index: usize) {
        if let Some(namespace) = self.namespaces.get_mut(index) {
            *namespace = Namespace { generation: namespace.generation, ..Namespace::NONE };
        }
        if let Some(placement) = &mut self.placement {
            placement.assign(index, Vec::new(), false);
        }
        self.reservations.forget(index);
    }

    /// Lets the namespaces of an erasure that has ended take commands. Those that it has not erased are as they were before.
    fn release_erased(&mut self, erasure: &Erasure) {
        for (place, &(index, before)) in erasure.named.iter().enumerate() {
            let Some(namespace) = self.namespaces.get_mut(index) else { continue };
            let is_erased = place < erasure.ended;
            match (erasure.purpose, namespace.away) {
                (Purpose::Format(_), Away::Formatting) if is_erased => namespace.set_away(Away::Not),
                (Purpose::Format(_), Away::Formatting) => namespace.set_away(before),
                // The identifier of one that is erased may be another namespace's by now.
                (Purpose::Delete, Away::Deleting) if !is_erased => namespace.set_away(before),
                (Purpose::Reformat { identified: true }, Away::Formatting) => namespace.set_away(Away::Not),
                (Purpose::Reformat { .. }, Away::Formatting) => namespace.set_away(Away::Reformatted),
                _ => {}
            }
        }
        self.note_metadata();
    }

    /// Returns the status with which the commands in flight to a namespace end, if it is being erased, or a fault plan has
    /// reformatted it.
    pub(super) fn erased(&self, nsid: u32) -> Option<Status> {
        let namespace = self.namespaces.get(nsid.wrapping_sub(1) as usize)?;
        let is_erased = matches!(
            namespace.away,
            Away::Formatting | Away::Reformatted | Away::Deleting | Away::Sanitizing
        );
        is_erased.then(|| namespace.refusal())
    }

    /// Ends what a controller reset ends: each Format NVM, and the wait of commands for the end of other erasures.
    pub(super) fn interrupt_erasures(&mut self) {
        let all = std::mem::take(&mut self.erasures);
        let (formats, others): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(Erasure::is_format);
        self.erasures = others;
        self.erasures.iter_mut().for_each(|erasure| erasure.reply = None);
        for mut erasure in formats {
            let begun = erasure.named.get_mut(erasure.ended).filter(|_| erasure.done > 0);
            if let Some((_, before)) = begun {
                *before = Away::Unformatted;
            }
            self.release_erased(&erasure);
        }
    }

    /// Notes what a fault plan does to the completion of a command that has begun an erasure just now.
    pub(super) fn note_effects(&mut self, command: &Command, effects: Effects) {
        let last = self.erasures.back_mut().and_then(|erasure| erasure.reply.as_mut());
        let is_its =
            |reply: &&mut Reply| (reply.command.opcode, reply.command.cid) == (command.opcode, command.cid);
        if let Some(reply) = last.filter(is_its) {
            reply.effects = effects;
        }
    }

    /// Returns the percentage of a namespace that remains to be formatted (FPI); 0 if it is formatted.
    pub(super) fn unformatted(&self, nsid: u32) -> u8 {
        let index = nsid.wrapping_sub(1) as usize;
        let Some(namespace) = self.namespaces.get(index) else { return 0 };
        match namespace.away {
            Away::Unformatted => 100,
            Away::Formatting => {
                let found =
                    self.erasures.iter().find_map(|erasure| Some((erasure, erasure.place_of(index)?)));
                let Some((erasure, place)) = found else { return 0 };
                let left = match erasure.ended.cmp(&place) {
                    std::cmp::Ordering::Less => namespace.capacity,
                    std::cmp::Ordering::Equal => namespace.capacity.saturating_sub(erasure.done),
                    std::cmp::Ordering::Greater => 0,
                };
                // More than nothing, until the command has ended.
                let percent = (u128::from(left) * 100).div_ceil(namespace.capacity.max(1).into());
                percent.clamp(1, 100) as u8
            }
            _ => 0,
        }
    }

    /// Returns the share of the medium that a Sanitize has erased, in 1/65536.
    pub(super) fn sanitized_share(&self) -> u128 {
        let found = self.erasures.iter().find(|erasure| erasure.purpose == Purpose::Sanitize);
        found.map_or(65536, |erasure| u128::from(erasure.done) * 65536 / u128::from(self.capacity.max(1)))
    }

    /// Returns `true` while a Format NVM is in progress.
    pub(super) fn is_formatting(&self) -> bool {
        self.erasures.iter().any(Erasure::is_format)
    }
}

impl<M: Media> Core<M> {
    /// Erases the next piece; returns the bytes that it counts for. A command that has waited for the end of its erasure
    /// completes.
    #[cold]
    #[inline(never)]
    pub(super) fn erase(&mut self, queues: Option<&mut Queues>, now: &impl Fn() -> Duration) -> u64 {
        let (bytes, ended) = self.io.erase_piece();
        let Some((erasure, result)) = ended else { return bytes };
        match (erasure.purpose, result) {
            (Purpose::Sanitize, result) => {
                if let Err(status) = result {
                    tracing::error!(%status, "a sanitize operation has failed: the medium has old data");
                }
                self.sanitizer.erased(result.is_ok());
            }
            (Purpose::Reformat { .. }, Err(status)) => {
                tracing::error!(%status, "a namespace that is reformatted keeps old data");
            }
            _ => {}
        }
        if let (Some(queues), Some(Reply { command, effects })) = (queues, erasure.reply) {
            self.complete(queues, &command, effects, result.map(|()| 0), now);
        }
        bytes
    }
}
