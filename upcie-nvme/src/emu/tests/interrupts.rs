//! Interrupts, for a host that does not follow the driver's habits: the pin, and helpers for all kinds.

use super::host::{Host, Queue, Stream};
use crate::spec::{Command, Status};
use std::{os::fd::AsFd, time::Duration};
use upcie_core::irq::{EventFd, IrqKind};

const SOON: Duration = Duration::from_secs(10);

/// Interrupts of a kind.
pub struct Irqs(Vec<EventFd>);

impl Irqs {
    pub fn wire(host: &Host, kind: IrqKind, count: usize) -> Self {
        let irqs = Self((0..count).map(|_| EventFd::new().unwrap()).collect());
        irqs.rewire(host, kind, count);
        irqs
    }

    /// Wires the first `count` of them, and no others.
    pub fn rewire(&self, host: &Host, kind: IrqKind, count: usize) {
        let borrowed: Vec<_> = self.0[..count].iter().map(AsFd::as_fd).collect();
        host.device.set_irqs(kind, &borrowed).unwrap();
    }

    /// Discards the interrupts that have come so far.
    pub fn forget(&self, host: &Host) {
        settle(host);
        for fd in &self.0 {
            let _ = fd.take().unwrap();
        }
    }

    /// Asserts that exactly one came, or comes.
    pub fn one(&self, vector: usize) {
        assert!(self.0[vector].wait(SOON).unwrap(), "no interrupt {vector}");
        assert_eq!(self.0[vector].take().unwrap(), 1, "interrupt {vector}");
    }

    /// Asserts that none came.
    pub fn none(&self, host: &Host) {
        settle(host);
        let counts: Vec<_> = self.0.iter().map(|fd| fd.take().unwrap()).collect();
        assert!(counts.iter().all(|&count| count == 0), "interrupts came: {counts:?}");
    }
}

/// Waits until the emulator has looked at everything: it has answered more messages than it handles in one
/// round.
pub fn settle(host: &Host) {
    for _ in 0..100 {
        host.csts();
    }
}

/// Completes a flush, without an acknowledgement.
pub fn complete(queue: &mut Queue) {
    queue.put(&Command::flush(1));
    queue.ring();
    let end = std::time::Instant::now() + SOON;
    let done = loop {
        if let Some(done) = queue.next() {
            break done;
        }
        assert!(std::time::Instant::now() < end, "no completion");
        std::thread::yield_now();
    };
    assert_eq!(done.status(), Status::SUCCESS);
}

#[test]
fn the_pin_is_driven_until_all_is_acknowledged() {
    let mut host = Host::new("size=1M,vectors=0,intx=true");
    let irqs = Irqs::wire(&host, IrqKind::Intx, 1);
    let unmask = |host: &Host| host.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    let status = |host: &Host| {
        let mut status = [0];
        host.device.config_read(6, &mut status).unwrap();
        status[0] & 8 != 0
    };
    let mut a = host.queue(1, [16, 16], Some(0));
    let mut b = host.queue(2, [16, 16], Some(0));
    let mut polled = host.queue(3, [16, 16], None);
    // The admin queue's, which are acknowledged: it can have fired once.
    settle(&host);
    irqs.0[0].take().unwrap();
    unmask(&host);
    irqs.none(&host);
    complete(&mut polled);
    irqs.none(&host);
    assert!(!status(&host));

    complete(&mut a);
    irqs.one(0);
    assert!(status(&host));
    complete(&mut b);
    irqs.none(&host);
    unmask(&host);
    irqs.one(0);
    a.acknowledge();
    irqs.none(&host);
    unmask(&host);
    irqs.one(0);
    b.acknowledge();
    irqs.none(&host);
    unmask(&host);
    irqs.none(&host);
    assert!(!status(&host));

    // INTx disable.
    host.config_write(5, &[4]).unwrap();
    complete(&mut a);
    irqs.none(&host);
    assert!(status(&host), "it would be driven");
    host.config_write(5, &[0]).unwrap();
    irqs.one(0);
    // A reset lets go of it.
    host.reset().unwrap();
    irqs.none(&host);
    unmask(&host);
    irqs.none(&host);
}

/// Returns a host whose one queue interrupts by the pin, which is unmasked and low.
fn host_with_pin() -> (Host, Stream, Irqs, Queue) {
    let (mut host, stream) = Host::with_stream("size=1M,vectors=0,intx=true");
    let irqs = Irqs::wire(&host, IrqKind::Intx, 1);
    let queue = host.queue(1, [4, 4], Some(0));
    host.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    irqs.forget(&host);
    host.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    (host, stream, irqs, queue)
}

/// Soundness part E, 2: the level is that of now, not of the last round. With both messages in one breath, as a VMM
/// sends them, the unmasking found the pin driven still.
#[test]
fn an_unmask_right_behind_a_doorbell_does_not_fire() {
    let (host, mut stream, irqs, mut queue) = host_with_pin();
    for round in 1..20 {
        complete(&mut queue);
        irqs.one(0);
        stream.post(&[Stream::write(0x1000 + 3 * 32, round % 4), Stream::unmask_pin()]);
        irqs.none(&host);
    }
}

/// Interrupts of the emulator under an operating system's own driver: QEMU takes any register access for the end of an
/// interrupt and unmasks the pin, which fires while the guest's handler is at work. If QEMU has not read that interrupt when
/// the handler acknowledges the last entry, it would interrupt the guest until its next register access.
#[test]
fn an_interrupt_that_nobody_read_goes_with_the_line() {
    let (host, mut stream, irqs, mut queue) = host_with_pin();
    for round in 1..20 {
        complete(&mut queue);
        // From the second round on, the interrupt comes without an unmasking: nothing else masked the pin.
        irqs.one(0);
        // Another processor's doorbell.
        host.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
        stream.post(&[Stream::write(0x1000 + 3 * 32, round % 4)]);
        irqs.none(&host);
    }
    complete(&mut queue);
    irqs.one(0);
    queue.acknowledge();
    irqs.none(&host);
    complete(&mut queue);
    irqs.none(&host);
    host.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    irqs.one(0);
}

/// The status register's bit follows a doorbell in memory at once, too.
#[test]
fn the_interrupt_status_is_current() {
    let mut host = Host::new("size=1M,vectors=0,intx=true");
    let mut queue = host.queue(1, [4, 4], Some(0));
    let wanted = |host: &Host| {
        let mut status = [0];
        host.device.config_read(6, &mut status).unwrap();
        status[0] & 8 != 0
    };
    for _ in 0..200 {
        complete(&mut queue);
        assert!(wanted(&host));
        queue.acknowledge();
        assert!(!wanted(&host));
    }
}

#[test]
fn a_missing_vector_is_refused() {
    for (options, most) in [("size=1M,vectors=3,msi=8", 8), ("size=1M,vectors=0,intx=true", 1)] {
        let mut host = Host::new(options);
        let cq = Command::create_completion_queue(1, 16, host.iova(0), Some(most));
        assert_eq!(host.admin.status(cq), Status::INVALID_INTERRUPT_VECTOR, "{options}");
        host.queue(1, [16, 16], Some(most - 1));
    }
}
