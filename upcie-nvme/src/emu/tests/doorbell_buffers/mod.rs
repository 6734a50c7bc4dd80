//! Doorbell buffers, for a host that writes tails and heads to memory and rings only where it has to.

mod hostile;

use super::host::{self, Host, PAGE, Queue};
use crate::{
    emu::{
        Lockstep,
        doorbell_buffers::PATIENCE,
        layout::{DOORBELLS, DSTRD},
    },
    spec::{AdminOpcode, Command, CompletionEntry, FeatureId, FeatureSelect, Status, doorbell_offset},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::{Duration, Instant},
};
use upcie_core::{
    dma::Region,
    memory::{Memory, PageSize},
    testing::Random,
};

const ON: &str = "size=1M,dbbuf=true";

/// The pages of shadow doorbells and of event indices.
struct Buffers {
    shadows: Region,
    events: Region,
}

/// Returns the word of a doorbell in a page.
fn word(page: &Region, (qid, completion): (u16, bool)) -> &AtomicU32 {
    let at = doorbell_offset(qid, completion, DSTRD) - DOORBELLS as usize;
    assert!(at + 4 <= page.len());
    // SAFETY: inside the region, as just checked.
    let word = unsafe { page.as_ptr().add(at) };
    // SAFETY: aligned to 4, and mapped as long as the region; the tests access it as an atomic only.
    unsafe { &*word.cast::<AtomicU32>() }
}

impl Buffers {
    fn new(host: &Host) -> Self {
        let page = || host.device.dma().map(Memory::new(PAGE, PageSize::Small).unwrap()).unwrap();
        Self { shadows: page(), events: page() }
    }

    /// Returns the Doorbell Buffer Config command.
    fn command(&self) -> Command {
        configuration(self.shadows.iova(0), self.events.iova(0))
    }

    fn set(&self, doorbell: (u16, bool), value: u32) {
        word(&self.shadows, doorbell).store(value, Ordering::Release);
    }

    fn event(&self, doorbell: (u16, bool)) -> u32 {
        word(&self.events, doorbell).load(Ordering::Acquire)
    }

    /// Writes a shadow doorbell; returns `true` if its value has passed the event index, so that the host rings. (Annex B.5)
    fn update(&self, doorbell: (u16, bool), value: u32, entries: u32) -> bool {
        let old = word(&self.shadows, doorbell).load(Ordering::Relaxed);
        self.set(doorbell, value);
        fence(Ordering::SeqCst);
        let steps_from = |index: u32| (value + entries - index % entries) % entries;
        let event = self.event(doorbell);
        // The host has passed the index if it has moved by more than the steps from the entry behind the index.
        (steps_from(event) + entries - 1) % entries < steps_from(old)
    }

    /// Updates the tail of a queue.
    fn submit(&self, queue: &Queue) -> bool {
        self.update((queue.qid, false), queue.tail, queue.entries[0])
    }

    /// Updates the head of a queue, and rings if need be.
    fn acknowledge(&self, queue: &Queue) {
        if self.update((queue.qid, true), queue.head, queue.entries[1]) {
            queue.acknowledge();
        }
    }
}

fn configuration(shadows: u64, events: u64) -> Command {
    let mut command = Command::admin(AdminOpcode::DOORBELL_BUFFER_CONFIG, 0);
    command.set_data_pointer(shadows, events);
    command
}

/// A host and a controller in one thread, which takes its steps when the host says so.
struct Stepped {
    device: Arc<Lockstep>,
    host: Host,
    buffers: Buffers,
}

/// Steps until a queue has a completion; does not move its head.
fn completion(device: &Lockstep, queue: &mut Queue) -> CompletionEntry {
    for _ in 0..100 {
        if let Some(done) = queue.next() {
            return done;
        }
        device.step(Duration::ZERO);
    }
    panic!("queue {}: no completion", queue.qid);
}

impl Stepped {
    fn new(options: &str) -> Self {
        let device = Lockstep::new(&options.parse().unwrap()).unwrap();
        let mut host = Host::over(device.clone());
        host.enable();
        let buffers = Buffers::new(&host);
        Self { device, host, buffers }
    }

    fn step(&self) -> usize {
        self.device.step(Duration::ZERO)
    }

    fn steps(&self, number: u32) {
        for _ in 0..number {
            self.step();
        }
    }

    /// Steps until the controller has nothing to do; returns the number of steps.
    fn settle(&self) -> u32 {
        let end = 4 * PATIENCE;
        let steps = (0..end).take_while(|_| self.step() > 0).count() as u32;
        assert!(steps < end, "it polls for ever");
        steps
    }

    /// Runs an admin command by the doorbells.
    fn admin(&mut self, command: Command) -> CompletionEntry {
        self.host.admin.put(&command);
        self.host.admin.ring();
        let done = completion(&self.device, &mut self.host.admin);
        self.host.admin.acknowledge();
        done
    }

    fn status(&mut self, command: Command) -> Status {
        self.admin(command).status()
    }

    fn configure(&mut self) {
        assert_eq!(self.status(self.buffers.command()), Status::SUCCESS);
    }

    fn queue(&mut self, qid: u16, entries: [u32; 2], vector: Option<u16>) -> Queue {
        let queue = host::queue(&self.host.device, &self.host.bar, qid, entries[0], entries[1]);
        for command in queue.creation(vector) {
            assert_eq!(self.status(command), Status::SUCCESS);
        }
        queue
    }

    /// Sends a Flush by the shadow doorbell; returns `true` if the host must ring.
    fn submit(&self, queue: &mut Queue, cid: u16) -> bool {
        queue.put(&Command { cid, ..Command::flush(1) });
        self.buffers.submit(queue)
    }

    /// Expects the completion of a Flush, and moves the head as the specification says.
    fn reap(&self, queue: &mut Queue, cid: u16) {
        let done = completion(&self.device, queue);
        assert_eq!((done.cid, done.status(), done.sqid), (cid, Status::SUCCESS, queue.qid));
        self.buffers.acknowledge(queue);
    }

    /// Sends a Flush, rings if need be, and expects its completion; returns `true` if the host had to ring.
    fn flush(&self, queue: &mut Queue, cid: u16) -> bool {
        let must_ring = self.submit(queue, cid);
        if must_ring {
            queue.ring();
        }
        self.reap(queue, cid);
        must_ring
    }
}

#[test]
fn a_polling_controller_needs_no_doorbell() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    host.configure();
    assert!(host.flush(&mut queue, 0), "the first update passes the event index, the tail so far");
    for cid in 1..100 {
        assert!(!host.flush(&mut queue, cid), "{cid}");
    }
    assert_eq!(host.host.csts(), 1);
}

#[test]
fn an_armed_controller_has_to_be_rung() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    host.configure();
    for cid in 0..3 {
        host.flush(&mut queue, cid);
    }
    assert!(host.settle() >= PATIENCE, "it polls for a while");
    assert_eq!((host.buffers.event((1, false)), host.buffers.event((1, true))), (queue.tail, queue.head));
    assert!(host.submit(&mut queue, 3), "the controller sleeps");
    for _ in 0..1000 {
        assert_eq!(host.step(), 0);
    }
    assert_eq!(queue.next(), None, "nobody has rung");
    queue.ring();
    host.reap(&mut queue, 3);
    assert!(!host.flush(&mut queue, 4), "it polls again");
    // A head that moves is news, too.
    host.settle();
    let head = (1, true);
    assert!(host.submit(&mut queue, 5));
    queue.ring();
    assert_eq!(completion(&host.device, &mut queue).cid, 5);
    host.settle();
    assert!(host.buffers.update(head, queue.head, 8), "the event index is the last head");
    queue.acknowledge();
    host.settle();
    assert_eq!(host.buffers.event(head), queue.head);
}

#[test]
fn rings_wrap_and_full_ones_wait() {
    for entries in [[2, 2], [3, 2], [64, 3], [3, 64], [5, 7]] {
        let mut host = Stepped::new(ON);
        let mut queue = host.queue(1, entries, None);
        host.configure();
        let (mut sent, mut seen) = (0_u16, 0_u16);
        while seen < 500 {
            let mut must_ring = false;
            while u32::from(sent - seen) < entries[0] - 1 && sent < 500 {
                must_ring |= host.submit(&mut queue, sent);
                sent += 1;
            }
            if must_ring {
                queue.ring();
            }
            host.reap(&mut queue, seen);
            seen += 1;
        }
        host.settle();
        assert_eq!(queue.next(), None, "{entries:?}");
    }
}

#[test]
fn two_queues_are_served_by_their_shadows() {
    let mut host = Stepped::new(ON);
    host.configure();
    // Queues that are created after the command.
    let mut queues = [host.queue(1, [16, 8], None), host.queue(2, [4, 16], None)];
    for round in 0..60_u16 {
        let bursts = [round % 5 + 1, round % 3 + 1];
        for (queue, burst) in queues.iter_mut().zip(bursts) {
            let must_ring = (0..burst).fold(false, |rings, cid| rings | host.submit(queue, cid));
            assert!(round < 1 || !must_ring, "round {round}");
            if must_ring {
                queue.ring();
            }
        }
        for (queue, burst) in queues.iter_mut().zip(bursts) {
            (0..burst).for_each(|cid| host.reap(queue, cid));
        }
    }
}

/// Base 2.1, "Doorbell Buffer Config": the buffers have words for the admin queue; a host may leave them alone all the same.
#[test]
fn the_admin_queue_has_shadow_doorbells_too() {
    let mut host = Stepped::new(ON);
    host.configure();
    let number = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
    for round in 0..40 {
        host.host.admin.put(&number);
        let must_ring = host.buffers.submit(&host.host.admin);
        assert_eq!(must_ring, round == 0, "round {round}");
        if must_ring {
            host.host.admin.ring();
        }
        assert_eq!(completion(&host.device, &mut host.host.admin).status(), Status::SUCCESS);
        host.buffers.acknowledge(&host.host.admin);
    }
}

#[test]
fn a_queue_in_use_before_the_command_goes_on() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    for cid in 0..5 {
        queue.put(&Command { cid, ..Command::flush(1) });
        queue.ring();
        assert_eq!(completion(&host.device, &mut queue).cid, cid);
        queue.acknowledge();
    }
    host.configure();
    // The buffer has no tail of it yet.
    host.steps(10);
    assert_eq!(queue.next(), None);
    assert!(host.flush(&mut queue, 5));
    assert!(!host.flush(&mut queue, 6));
    // Without the shadow doorbell, for a queue that follows none.
    let mut other = host.queue(2, [8, 8], None);
    for cid in 0..20 {
        other.put(&Command { cid, ..Command::flush(1) });
        other.ring();
        assert_eq!(completion(&host.device, &mut other).cid, cid);
        other.acknowledge();
    }
}

#[test]
fn a_queue_made_anew_begins_with_the_old_words() {
    let mut host = Stepped::new(ON);
    host.configure();
    for _ in 0..4 {
        let mut queue = host.queue(1, [8, 8], None);
        assert_eq!(host.buffers.event((1, false)), 0);
        for cid in 0..3 {
            host.flush(&mut queue, cid);
        }
        host.steps(10);
        assert_eq!(host.status(Command::delete_submission_queue(1)), Status::SUCCESS);
        assert_eq!(host.status(Command::delete_completion_queue(1)), Status::SUCCESS);
        // Nobody looks at them any more.
        host.buffers.set((1, false), 7);
        host.steps(10);
        assert_eq!(queue.next(), None);
    }
}

/// The interrupt status register follows a shadow doorbell at once, as it follows a doorbell.
#[test]
fn a_shadow_head_acknowledges_the_pin() {
    let mut host = Stepped::new("size=1M,vectors=0,intx=true,dbbuf=true");
    let mut queue = host.queue(1, [4, 4], Some(0));
    host.configure();
    let is_driven = |host: &Host| {
        let mut status = [0];
        host.device.config_read(6, &mut status).unwrap();
        status[0] & 8 != 0
    };
    for cid in 0..50 {
        if host.submit(&mut queue, cid) {
            queue.ring();
        }
        assert_eq!(completion(&host.device, &mut queue).cid, cid);
        assert!(is_driven(&host.host), "{cid}");
        host.buffers.acknowledge(&queue);
        assert!(!is_driven(&host.host), "{cid}");
    }
}

/// The host updates its tail about when the controller is armed: either it is told to ring, or its value is found.
#[test]
fn no_update_is_lost_when_the_controller_is_armed() {
    let mut host = Host::new(ON);
    let mut queue = host.queue(1, [16, 16], None);
    let buffers = Buffers::new(&host);
    assert_eq!(host.admin.status(buffers.command()), Status::SUCCESS);
    let mut random = Random(0x5eed);
    for cid in 0..3000 {
        queue.put(&Command { cid, ..Command::flush(1) });
        if buffers.submit(&queue) {
            queue.ring();
        }
        let end = Instant::now() + Duration::from_secs(10);
        let done = loop {
            if let Some(done) = queue.next() {
                break done;
            }
            assert!(Instant::now() < end, "command {cid} is lost");
            std::thread::yield_now();
        };
        assert_eq!((done.cid, done.status()), (cid, Status::SUCCESS));
        buffers.acknowledge(&queue);
        for _ in 0..random.next() % 4000 {
            std::hint::spin_loop();
        }
    }
}
