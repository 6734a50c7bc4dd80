//! INTx and MSI as a host sees them that does not follow the driver's habits.

use super::host::{Host, Queue};
use crate::spec::{Command, Status};
use std::{os::fd::AsFd, time::Duration};
use upcie_core::irq::{EventFd, IrqKind};

const SOON: Duration = Duration::from_secs(10);
const INTMS: u64 = 0x0c;
const INTMC: u64 = 0x10;

/// Interrupts of a kind.
struct Irqs(Vec<EventFd>);

impl Irqs {
    fn wire(host: &Host, kind: IrqKind, count: usize) -> Self {
        let fds: Vec<_> = (0..count).map(|_| EventFd::new().unwrap()).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        host.device.set_irqs(kind, &borrowed).unwrap();
        Self(fds)
    }

    /// Exactly one came, or comes.
    fn one(&self, vector: usize) {
        assert!(self.0[vector].wait(SOON).unwrap(), "no interrupt {vector}");
        assert_eq!(self.0[vector].take().unwrap(), 1, "interrupt {vector}");
    }

    /// None came.
    fn none(&self, host: &Host) {
        settle(host);
        let counts: Vec<_> = self.0.iter().map(|fd| fd.take().unwrap()).collect();
        assert!(counts.iter().all(|&count| count == 0), "interrupts came: {counts:?}");
    }
}

/// The emulator has looked at everything once it has answered more messages than it handles at a look.
fn settle(host: &Host) {
    for _ in 0..100 {
        host.csts();
    }
}

/// A flush, completed but not acknowledged.
fn complete(queue: &mut Queue) {
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
fn a_message_comes_when_all_of_before_was_acknowledged() {
    let mut host = Host::new("size=1M,msi=4");
    let irqs = Irqs::wire(&host, IrqKind::Msi, 4);
    // The admin queue's.
    host.bar.write_u32(INTMS, 1).unwrap();
    let mut a = host.queue(1, [16, 16], Some(3));
    let mut b = host.queue(2, [16, 16], Some(3));
    let mut other = host.queue(3, [16, 16], Some(1));
    complete(&mut a);
    irqs.one(3);
    complete(&mut a);
    complete(&mut b);
    irqs.none(&host);
    complete(&mut other);
    irqs.one(1);
    // Masked and unmasked again: what is there is told of.
    host.bar.write_u32(INTMS, 1 << 3).unwrap();
    irqs.none(&host);
    host.bar.write_u32(INTMC, 1 << 3).unwrap();
    irqs.one(3);
    a.acknowledge();
    complete(&mut a);
    irqs.none(&host);
    a.acknowledge();
    b.acknowledge();
    irqs.none(&host);
    host.bar.write_u32(INTMS, 1 << 3).unwrap();
    host.bar.write_u32(INTMC, 1 << 3).unwrap();
    irqs.none(&host);
    complete(&mut b);
    irqs.one(3);
    b.acknowledge();
    host.bar.write_u32(INTMS, !0).unwrap();
    complete(&mut a);
    irqs.none(&host);
    host.bar.write_u32(INTMC, 1 << 3).unwrap();
    irqs.one(3);
}

#[test]
fn the_pin_is_driven_while_something_is_not_acknowledged() {
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
    host.device.config_write(5, &[4]).unwrap();
    complete(&mut a);
    irqs.none(&host);
    assert!(status(&host), "it would be driven");
    host.device.config_write(5, &[0]).unwrap();
    irqs.one(0);
    // A reset lets go of it.
    host.device.reset().unwrap();
    irqs.none(&host);
    unmask(&host);
    irqs.none(&host);
}

#[test]
fn a_vector_that_no_kind_has_is_refused() {
    for (options, most) in [("size=1M,vectors=3,msi=8", 8), ("size=1M,vectors=0,intx=true", 1)] {
        let mut host = Host::new(options);
        let cq = Command::create_completion_queue(1, 16, host.iova(0), Some(most));
        assert!(host.admin.status(cq).is(Status::INVALID_INTERRUPT_VECTOR), "{options}");
        host.queue(1, [16, 16], Some(most - 1));
    }
}
