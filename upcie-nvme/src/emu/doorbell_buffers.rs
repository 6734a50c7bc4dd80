//! Doorbell buffers: the host writes its tails and heads to memory, and rings a doorbell only where the controller asks for it.
//! (Base 2.1, "Doorbell Buffer Config", and Annex B.5)
//!
//! A shadow doorbell is a word in the host's memory, at the offset of its doorbell from the first doorbell. When the host writes
//! a value that passes the event index, a word at the same offset of another page, it rings the doorbell as well. The controller
//! waits in one of two ways:
//!
//! - While it *polls*, each round reads all shadow doorbells. The event index of a doorbell in use lies right behind its value,
//!   so the host passes it after a lap at the earliest.
//! - After [`PATIENCE`] rounds without work it is *armed*: each event index is the value that was read last, so the next update
//!   rings. Shadow doorbells are not read until a doorbell has changed.
//!
//! The host may write any value at any time. A value is read once and stored in its doorbell, as if the host had rung, and the
//! checks are those of doorbells. A round reads each word a bounded number of times: when it begins, when it arms, and with each
//! update of interrupts that follow the status register.
//!
//! A doorbell *follows* its shadow from the first change on that the controller sees; before that the host's writes to the
//! doorbell itself count. The buffer has words for the admin queue, which hosts such as Linux's driver leave alone, and it may
//! not know the tail of a queue that was in use before.

use super::{
    HostMemory,
    host::errno,
    layout::{DOORBELLS, DSTRD},
    shared::{Doorbell, Ring},
};
use crate::spec::doorbell_offset;
use nix::errno::Errno;
use std::sync::atomic::{Ordering, fence};

/// Rounds without work before the controller is armed, so that a host whose next command follows at once rings no doorbell.
pub(super) const PATIENCE: u32 = 256;

/// A doorbell and its words.
#[derive(Debug)]
struct Shadow {
    qid: u16,
    /// It is that of a completion queue.
    completion: bool,
    /// Index of its word in each buffer.
    word: u32,
    /// Entries of the queue.
    entries: u32,
    doorbell: Doorbell,
    /// The shadow doorbell's value when it was read last.
    value: u32,
    /// The shadow doorbell has changed, so it counts in place of the doorbell.
    follows: bool,
    /// The doorbell's value when the controller was armed.
    armed_at: u32,
    /// The event index, as written last.
    event: u32,
}

impl Shadow {
    /// Takes the shadow doorbell's value; returns `true` if it is new.
    fn take(&mut self, value: u32) -> bool {
        let is_new = value != self.value;
        if is_new {
            self.value = value;
            self.follows = true;
        }
        // A ring that came by message may be older than a shadow doorbell that was read before it.
        if self.follows && self.doorbell.load() != value {
            self.doorbell.store(value);
        }
        is_new
    }

    /// Returns the index right behind the value.
    fn behind(&self) -> u32 {
        self.value.checked_sub(1).unwrap_or(self.entries - 1)
    }
}

/// The buffers that a host has configured, and the doorbells of its queues.
#[derive(Debug)]
pub(super) struct DoorbellBuffers {
    /// The shadow doorbells, which the host writes.
    values: Ring<4>,
    /// The event indices, which the controller writes.
    events: Ring<4>,
    shadows: Vec<Shadow>,
    /// Rounds without work, while the controller polls; `None` while it is armed.
    quiet: Option<u32>,
}

impl DoorbellBuffers {
    /// Makes buffers of the pages at the host's addresses `values` and `events`, of `page` bytes each, for no doorbells yet. All
    /// event indices become 0.
    ///
    /// # Errors
    /// The pages can't be read, or written.
    pub fn new(host: &mut impl HostMemory, (values, events): (u64, u64), page: u64) -> Result<Self, Errno> {
        let mut bytes = vec![0; page as usize];
        host.read(values, &mut bytes).map_err(errno)?;
        bytes.fill(0);
        host.write(events, &bytes).map_err(errno)?;
        let words = (page / 4) as u32;
        let (values, events) = (Ring::new(host, values, words), Ring::new(host, events, words));
        Ok(Self { values, events, shadows: Vec::new(), quiet: Some(0) })
    }

    /// Adds the doorbell of a queue of `entries`, before the host learns that the queue exists. Its words must be within a page.
    ///
    /// # Errors
    /// The buffers can't be accessed.
    pub fn add(
        &mut self,
        host: &mut impl HostMemory,
        (qid, completion, entries): (u16, bool, u32),
        doorbell: Doorbell,
    ) -> Result<(), Errno> {
        let word = ((doorbell_offset(qid, completion, DSTRD) - DOORBELLS as usize) / 4) as u32;
        let event = doorbell.load();
        let value = self.values.load(host, word)?;
        self.events.store(host, word, event)?;
        let (follows, armed_at) = (false, event);
        self.shadows.push(Shadow {
            qid,
            completion,
            word,
            entries,
            doorbell,
            value,
            follows,
            armed_at,
            event,
        });
        Ok(())
    }

    /// Removes the doorbell of a queue that is deleted.
    pub fn remove(&mut self, qid: u16, completion: bool) {
        self.shadows.retain(|shadow| (shadow.qid, shadow.completion) != (qid, completion));
    }

    /// Returns `true` while the controller polls: the host may write to shadow doorbells and ring none.
    pub fn polls(&self) -> bool {
        self.quiet.is_some()
    }

    /// Begins a round: takes the host's new values, and arms after enough rounds without work. `worked`: the last round had
    /// work.
    ///
    /// # Errors
    /// The buffers can't be accessed.
    pub fn begin_round(&mut self, host: &mut impl HostMemory, worked: bool) -> Result<(), Errno> {
        let has_news = self.look(host)?;
        match self.quiet {
            None => {}
            Some(_) if has_news || worked || host.is_slow() => self.quiet = Some(0),
            Some(rounds) if rounds < self.patience() => self.quiet = Some(rounds + 1),
            Some(_) => self.arm(host)?,
        }
        Ok(())
    }

    /// Takes the host's new values: always while the controller polls, after a ring while it is armed. Returns `true` if there
    /// were some.
    ///
    /// # Errors
    /// The buffers can't be accessed.
    pub fn look(&mut self, host: &mut impl HostMemory) -> Result<bool, Errno> {
        if !self.polls() {
            if self.shadows.iter().all(|shadow| shadow.doorbell.load() == shadow.armed_at) {
                return Ok(false);
            }
            self.quiet = Some(0);
        }
        self.poll(host)
    }

    /// Returns the rounds without work before the controller is armed: none where each look takes a message to the host.
    fn patience(&self) -> u32 {
        if self.values.is_mapped() && self.events.is_mapped() { PATIENCE } else { 0 }
    }

    /// Reads each shadow doorbell once. A host that answers too slowly is asked for the rest in the next round.
    fn poll(&mut self, host: &mut impl HostMemory) -> Result<bool, Errno> {
        let mut has_news = false;
        for shadow in &mut self.shadows {
            if host.is_slow() {
                break;
            }
            let value = self.values.load(host, shadow.word)?;
            if shadow.take(value) {
                has_news = true;
                shadow.event = shadow.behind();
                self.events.store(host, shadow.word, shadow.event)?;
            }
        }
        Ok(has_news)
    }

    /// Asks the host to ring at its next update of any shadow doorbell, and stops polling, unless one was updated meanwhile.
    fn arm(&mut self, host: &mut impl HostMemory) -> Result<(), Errno> {
        for shadow in &mut self.shadows {
            shadow.armed_at = shadow.doorbell.load();
            if shadow.event != shadow.armed_at {
                shadow.event = shadow.armed_at;
                self.events.store(host, shadow.word, shadow.event)?;
            }
        }
        self.quiet = None;
        // The host writes a shadow doorbell and then reads the event index. Either it reads the index from above, and rings, or
        // its value is found below.
        fence(Ordering::SeqCst);
        if self.poll(host)? || host.is_slow() {
            self.quiet = Some(0);
        }
        Ok(())
    }
}
