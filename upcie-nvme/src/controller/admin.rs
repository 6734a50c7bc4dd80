//! The admin queue: commands of several threads at a time.
//!
//! The rings are behind a gate, which is held to submit and to reap, and never while a thread waits for the controller.
//! Whoever reaps does so for all: an answer goes to the table, by its tag, and the thread that waits for it takes it
//! there.

use super::{
    Registers, Subsystem,
    event_queue::{EventQueue, REQUESTS},
    late::{Affected, Late},
    lock,
};
use crate::{
    Completion, Error, Result,
    engine::{ListPool, Live, Parts, Queue},
    spec::{AsyncEvent, Command},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use upcie_core::{
    dma::{DmaBuf, Heap},
    events::emit,
    gate::{Gate, Pass},
};

/// The most commands that can be unanswered at once, beside requests for events.
const COMMANDS: usize = 31;
/// Entries of the admin queues, which CAP.MQES does not limit.
pub(super) const ENTRIES: u32 = (COMMANDS + REQUESTS) as u32 + 1;

/// The rings of the admin queue pair; its commands are tagged.
pub(super) type Rings = Queue<u64>;

/// The admin queue pair and the commands on it.
#[derive(Debug)]
pub(crate) struct Admin {
    rings: Gate<Rings>,
    table: Mutex<Table>,
    events: EventQueue,
}

/// The commands that were sent, by tag.
#[derive(Debug, Default)]
struct Table {
    /// The next tag: never used again.
    next: u64,
    commands: BTreeMap<u64, State>,
    /// The Asynchronous Event Requests that the controller holds: they have no deadline.
    requests: BTreeSet<u64>,
}

/// An answer, with dword 2 of its entry.
pub(super) type Whole = (Completion<u64>, u32);

/// The state of a command that was sent.
#[derive(Debug)]
enum State {
    /// A thread waits for the answer.
    Waits,
    /// The answer, which that thread has not taken yet.
    Answered(Whole),
    /// The controller has let go of the command without an answer, and the thread does not know yet.
    Released,
    /// The command has missed its deadline.
    Late(Late),
}

/// The meaning of a completion to the thread that reaps it.
enum Answer {
    /// None: the thread that waits for it takes it, or nobody knows its command.
    Taken,
    /// The command had missed its deadline.
    Late(Late, Completion<u64>),
    /// An Asynchronous Event Request has completed.
    Event(Completion<u64>),
}

/// The result of [`Admin::send`].
pub(super) enum Sent {
    /// The command's tag.
    Yes(u64),
    /// No: other threads' commands take the room. The buffer comes back.
    Later(DmaBuf),
    /// No: so many commands that missed their deadlines take all room.
    Full(u32),
}

impl Admin {
    pub(super) fn new(
        registers: &Registers,
        heap: &Arc<Heap>,
        name: &Arc<str>,
        live: &Arc<Live>,
        page_shift: u32,
    ) -> Result<Self> {
        let page = 1 << page_shift;
        let ring =
            |bytes: usize| -> Result<DmaBuf> { Ok(heap.alloc_aligned(bytes.next_multiple_of(page), page)?) };
        let (sq, cq) = (ring(ENTRIES as usize * 64)?, ring(ENTRIES as usize * 16)?);
        let queue = Queue::new(Parts {
            name: name.clone(),
            qid: 0,
            entries: ENTRIES,
            sq,
            sq_combining: false,
            cq,
            sq_doorbell: registers.doorbell(0, false)?,
            cq_doorbell: registers.doorbell(0, true)?,
            lists: ListPool::new(heap.alloc_aligned(page, page)?, page, page_shift),
            live: live.clone(),
        });
        Ok(Self { rings: Gate::new(queue), table: Mutex::default(), events: EventQueue::default() })
    }

    /// Returns the device addresses of the submission and completion ring.
    pub(super) fn addresses(&mut self) -> (u64, u64) {
        self.rings.get_mut().addresses()
    }

    /// Returns the gate of the rings.
    pub(super) fn rings(&self) -> &Gate<Rings> {
        &self.rings
    }

    /// Returns the events that have arrived.
    pub(super) fn events(&self) -> &EventQueue {
        &self.events
    }

    /// Enters the rings if no other thread has them.
    pub(super) fn enter_now(&self) -> Option<Pass<'_, Rings>> {
        self.rings.enter(|| Duration::ZERO)
    }

    /// Sends a command whose data pointer is set, if there is room.
    ///
    /// # Errors
    /// The queue is closed; nothing was sent.
    pub(super) fn send(&self, rings: &mut Rings, command: &Command, data: DmaBuf) -> Result<Sent> {
        let mut turn = rings.turn()?;
        let mut table = lock(&self.table);
        if table.commands.len() >= COMMANDS {
            let late = table.commands.values().filter(|state| matches!(state, State::Late(_))).count();
            return Ok(if late < COMMANDS { Sent::Later(data) } else { Sent::Full(late as u32) });
        }
        let tag = table.next;
        table.next += 1;
        // SAFETY: the command's data is in `data`, which it owns, or in memory that its maker keeps (`create`).
        match unsafe { turn.submit_raw(command, data, tag) } {
            Ok(()) => {
                table.commands.insert(tag, State::Waits);
                Ok(Sent::Yes(tag))
            }
            // A forged completion has closed the queue.
            Err(refused) => Ok(Sent::Later(refused.buffer)),
        }
    }

    /// Reaps all completions: notes each for the thread that waits for it, acts on those that missed their deadlines,
    /// and sends a request for each event that has arrived.
    ///
    /// # Errors
    /// The reason why the queue is closed.
    pub(super) fn reap(&self, rings: &mut Rings, affected: Affected<'_>) -> Result<()> {
        let mut turn = rings.turn()?;
        while let Some(whole) = turn.next_whole() {
            self.note(whole, &affected);
        }
        drop(turn);
        self.request_missing(rings)
    }

    /// Notes a completion for the thread that waits for it, or as an event; acts on it if the command had missed its
    /// deadline.
    fn note(&self, whole: Whole, affected: &Affected<'_>) {
        affected.queue_ids.set_silent(false);
        let answer = lock(&self.table).answered(whole);
        match answer {
            Answer::Taken => {}
            Answer::Event(done) => {
                let event = (AsyncEvent::from_bits(done.dword0()), done.dword1());
                if self.events.arrived(done.into_parts().1.map(|()| event)) {
                    affected.subsystem.make_stale();
                }
            }
            Answer::Late(late, done) => {
                let (_, answer, buffer) = done.into_parts();
                let device = affected.name.clone();
                emit(move || tracing::warn!(%device, "an admin command completed after its deadline"));
                drop(buffer);
                affected.act(late, answer);
            }
        }
    }

    /// Sends requests until as many are pending as the event queue asks for.
    fn request_missing(&self, rings: &mut Rings) -> Result<()> {
        if !self.events.is_wanted() {
            return Ok(());
        }
        let mut table = lock(&self.table);
        let missing = self.events.missing(table.requests.len());
        if missing == 0 {
            return Ok(());
        }
        let mut turn = rings.turn()?;
        for _ in 0..missing {
            let tag = table.next;
            // SAFETY: the command has no data.
            let sent =
                unsafe { turn.submit_raw(&Command::asynchronous_event_request(), DmaBuf::empty(), tag) };
            if sent.is_err() {
                // A forged completion has closed the queue, as the next turn says.
                break;
            }
            table.next += 1;
            table.requests.insert(tag);
        }
        Ok(())
    }

    /// Takes the answer to a command, if it has come.
    pub(super) fn take(&self, tag: u64) -> Option<Whole> {
        let mut table = lock(&self.table);
        match table.commands.get(&tag) {
            Some(State::Answered(_)) => match table.commands.remove(&tag) {
                Some(State::Answered(done)) => Some(done),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns `true` if the controller has let go of a command without an answer.
    pub(super) fn is_released(&self, tag: u64) -> bool {
        matches!(lock(&self.table).commands.get(&tag), Some(State::Released))
    }

    /// Stops waiting for the answer to a command, and notes its meaning if it comes late. Returns the answer if it is
    /// there after all, with its meaning.
    pub(super) fn give_up(&self, tag: u64, late: Late) -> Option<(Whole, Late)> {
        let mut table = lock(&self.table);
        match table.commands.remove(&tag) {
            Some(State::Answered(done)) => Some((done, late)),
            Some(State::Waits) => {
                table.commands.insert(tag, State::Late(late));
                None
            }
            _ => {
                drop(table);
                drop(late);
                None
            }
        }
    }

    /// Gives up a command whose thread panics, and acts on the answer if it is there.
    pub(super) fn abandon(&self, tag: u64, late: Late, affected: &Affected<'_>) {
        let mut table = lock(&self.table);
        let answer = match table.commands.remove(&tag) {
            Some(State::Waits) => {
                table.commands.insert(tag, State::Late(late));
                return;
            }
            Some(State::Answered((done, _))) => Some(done),
            _ => None,
        };
        drop(table);
        match (answer, late) {
            (Some(done), late) => {
                let (_, answer, buffer) = done.into_parts();
                drop(buffer);
                affected.act(late, answer);
            }
            // The controller has let go of it, and may have carried it out.
            (None, Late::Raw) => affected.subsystem.make_stale(),
            (None, _) => {}
        }
    }

    /// Frees the buffers of unanswered commands: the controller uses them no more, for the reason in `error`.
    pub(super) fn release(&self, rings: &mut Rings, affected: &Affected<'_>, error: &Error) {
        self.note_posted(rings, affected);
        rings.release(error);
        if rings.check_live().is_err() {
            self.release_commands(affected.subsystem);
        }
    }

    /// Makes the rings as new: the controller has stopped, and uses no memory of unanswered commands any more. The
    /// answers and events that it had posted count.
    pub(super) fn forget(&self, rings: &mut Rings, affected: Affected<'_>) {
        self.note_posted(rings, &affected);
        rings.renew();
        self.release_commands(affected.subsystem);
    }

    /// Notes what a controller that has stopped had posted before.
    fn note_posted(&self, rings: &mut Rings, affected: &Affected<'_>) {
        while let Some(whole) = rings.take_whole() {
            self.note(whole, affected);
        }
    }

    fn release_commands(&self, subsystem: &Subsystem) {
        let late = lock(&self.table).release();
        for late in late {
            if let Late::Raw = late {
                subsystem.make_stale();
            }
        }
    }
}

impl Table {
    /// Notes an answer, and returns what the thread that reaps it has to do.
    fn answered(&mut self, (done, dword2): Whole) -> Answer {
        let tag = *done.tag();
        if self.requests.remove(&tag) {
            return Answer::Event(done);
        }
        match self.commands.remove(&tag) {
            Some(State::Waits) => {
                self.commands.insert(tag, State::Answered((done, dword2)));
                Answer::Taken
            }
            Some(State::Late(late)) => Answer::Late(late, done),
            _ => Answer::Taken,
        }
    }

    /// Forgets all commands without an answer, and returns the meanings that answers would have had.
    fn release(&mut self) -> Vec<Late> {
        self.requests.clear();
        let mut all = Vec::new();
        for (tag, state) in std::mem::take(&mut self.commands) {
            match state {
                State::Late(late) => all.push(late),
                State::Waits => drop(self.commands.insert(tag, State::Released)),
                state => drop(self.commands.insert(tag, state)),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, Failure};
    use std::{sync::mpsc, thread, time::Duration};

    /// A command that waits for the rings, which another thread has, ends by its own deadline, with an error that says
    /// so.
    #[test]
    fn a_command_behind_held_rings_keeps_its_deadline() {
        let options = Controller::builder().timeout(Duration::from_secs(2));
        let controller = options.open("emu:size=1M").unwrap();
        let queue = controller.queue_pair().create::<u64>().unwrap();
        // Hold the rings, like a thread whose doorbell is a message that its server does not answer.
        let held = controller.inner.admin.enter_now().unwrap();
        let (send, receive) = mpsc::channel();
        let handle = controller.clone();
        thread::spawn(move || {
            send.send(handle.namespace_ids().map(drop)).unwrap();
            send.send(queue.close().map(drop)).unwrap();
        });
        let within = Duration::from_secs(60);
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error.failure(), Failure::Timeout { kept: false, .. }), "{text}");
        for part in [controller.name(), "Identify", "waiting for admin commands of other threads", "2s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        assert!(matches!(error.failure(), Failure::Undeleted { qid: 1, .. }), "{error}");
        drop(held);
        // And what was left goes on.
        assert_eq!(controller.namespace_ids().unwrap(), [1]);
        let all: Result<Vec<_>, _> =
            (0..controller.max_queue_pairs()).map(|_| controller.queue_pair().create::<u64>()).collect();
        assert!(all.is_ok(), "the id of the queue is back: {all:?}");
    }
}
