//! MSI and MSI-X: each message comes once it is enabled and not masked.

use super::{
    host::Host,
    interrupts::{Irqs, complete},
};
use crate::spec::{Command, Status};
use upcie_core::{
    irq::IrqKind,
    mmio::Bar,
    pci::{ConfigSpace, cap},
};

const INTMS: u64 = 0x0c;
const INTMC: u64 = 0x10;
/// Offsets in the MSI-X BAR: vector control of vector 1, and the pending bits of a table of 4.
const CONTROL: u64 = 16 + 12;
const PENDING: u64 = 4 * 16;

fn msix(options: &str) -> (Host, Irqs) {
    let mut host = Host::new(options);
    let irqs = Irqs::wire(&host, IrqKind::Msix, 4);
    host.alive();
    irqs.forget(&host);
    (host, irqs)
}

/// MSI-X's message control.
fn set_control(host: &Host, value: u16) {
    let at = host.device.find_capability(cap::MSIX).unwrap().unwrap();
    host.set_config_u16(at + 2, value).unwrap();
}

/// Soundness part E, 1: a host that has found an empty queue, and has not yet moved the head, gets a message.
#[test]
fn a_message_comes_for_new_completions_only() {
    let mut host = Host::new("size=1M,msi=4");
    let irqs = Irqs::wire(&host, IrqKind::Msi, 4);
    let mut queue = host.queue(1, [16, 16], Some(3));
    let mut same = host.queue(2, [16, 16], Some(3));
    irqs.forget(&host);
    for _ in 0..5 {
        complete(&mut queue);
        irqs.one(3);
        complete(&mut same);
        irqs.one(3);
    }
    queue.acknowledge();
    same.acknowledge();
    irqs.none(&host);
}

/// Soundness part E, 1: a host that stops before it has seen all entries gets a message, too.
#[test]
fn a_message_comes_when_a_head_moves_and_leaves_entries() {
    let mut host = Host::new("size=1M,msi=4");
    let irqs = Irqs::wire(&host, IrqKind::Msi, 4);
    let mut queue = host.queue(1, [8, 8], Some(1));
    for _ in 0..3 {
        complete(&mut queue);
    }
    irqs.forget(&host);
    for head in 1..3 {
        queue.acknowledge_value(head);
        irqs.one(1);
        queue.acknowledge_value(head);
        irqs.none(&host);
    }
    queue.acknowledge();
    irqs.none(&host);
    // A head that the queue does not have acknowledges nothing, and is no news.
    complete(&mut queue);
    irqs.one(1);
    queue.acknowledge_value(9);
    irqs.none(&host);
    queue.acknowledge();
    irqs.none(&host);
}

#[test]
fn a_message_comes_when_its_mask_is_cleared() {
    let mut host = Host::new("size=1M,msi=4");
    let irqs = Irqs::wire(&host, IrqKind::Msi, 4);
    let mut queue = host.queue(1, [16, 16], Some(3));
    let mut other = host.queue(2, [16, 16], Some(1));
    irqs.forget(&host);
    host.write_u32(INTMS, 1 << 3).unwrap();
    complete(&mut queue);
    irqs.none(&host);
    complete(&mut other);
    irqs.one(1);
    host.write_u32(INTMC, 1 << 3).unwrap();
    irqs.one(3);
    // In one breath, with nothing new.
    host.write_u32(INTMS, 1 << 3).unwrap();
    host.write_u32(INTMC, 1 << 3).unwrap();
    irqs.one(3);
    queue.acknowledge();
    irqs.none(&host);
    host.write_u32(INTMS, 1 << 3).unwrap();
    host.write_u32(INTMC, 1 << 3).unwrap();
    irqs.none(&host);
}

#[test]
fn fewer_messages_than_vectors_are_shared() {
    let mut host = Host::new("size=1M,msi=4");
    let mut queue = host.queue(1, [8, 8], Some(3));
    let irqs = Irqs::wire(&host, IrqKind::Msi, 2);
    irqs.forget(&host);
    complete(&mut queue);
    irqs.one(1);
    let beyond = Command::create_completion_queue(2, 16, host.iova(0), Some(2));
    assert_eq!(host.admin.status(beyond), Status::INVALID_INTERRUPT_VECTOR);
}

/// Writes an entry of the MSI-X table.
fn write_u32(table: &Bar, at: u64, value: u32) -> upcie_core::Result<()> {
    // SAFETY: the mask of a vector, of a controller that the test drives.
    unsafe { table.write_u32(at, value) }
}

/// A PCI device is driven as PCI says: an entry of the table that is masked pends.
#[test]
fn a_masked_vector_pends_and_comes_when_unmasked() {
    let (mut host, irqs) = msix("size=1M,vectors=4");
    let table = host.device.bar(4).unwrap();
    let mut queue = host.queue(1, [8, 8], Some(1));
    irqs.forget(&host);
    assert_eq!(table.read_u32(CONTROL).unwrap(), 0, "wired, so not masked");
    write_u32(&table, CONTROL, u32::MAX).unwrap();
    assert_eq!(table.read_u32(CONTROL).unwrap(), 1, "the rest is reserved");
    complete(&mut queue);
    complete(&mut queue);
    irqs.none(&host);
    assert_eq!(table.read_u64(PENDING).unwrap(), 1 << 1);
    // SAFETY: pending bits are the controller's own.
    unsafe { table.write_u64(PENDING, 0) }.unwrap();
    assert_eq!(table.read_u64(PENDING).unwrap(), 1 << 1, "read-only");
    write_u32(&table, CONTROL, 0).unwrap();
    irqs.one(1);
    assert_eq!(table.read_u64(PENDING).unwrap(), 0);
    irqs.none(&host);
}

/// Linux moves a vector to another processor through a VMM that takes its eventfd away meanwhile.
#[test]
fn a_vector_without_an_eventfd_pends_until_it_has_one() {
    let (mut host, irqs) = msix("size=1M,vectors=4");
    let table = host.device.bar(4).unwrap();
    let mut queue = host.queue(1, [8, 8], Some(1));
    irqs.forget(&host);
    irqs.rewire(&host, IrqKind::Msix, 1);
    assert_eq!(table.read_u32(CONTROL).unwrap(), 1);
    complete(&mut queue);
    irqs.none(&host);
    irqs.rewire(&host, IrqKind::Msix, 4);
    irqs.one(1);
    irqs.none(&host);
}

#[test]
fn the_function_mask_holds_all_vectors() {
    let (mut host, irqs) = msix("size=1M,vectors=4");
    let mut queue = host.queue(1, [8, 8], Some(2));
    irqs.forget(&host);
    set_control(&host, 0xc000);
    complete(&mut queue);
    host.alive();
    irqs.none(&host);
    assert_eq!(host.device.bar(4).unwrap().read_u64(PENDING).unwrap(), 0b101);
    set_control(&host, 0x8000);
    irqs.one(0);
    irqs.one(2);
    irqs.none(&host);
}

/// A PCI device is driven as PCI says: no MSI-X that was not enabled.
#[test]
fn msix_that_is_not_enabled_raises_nothing() {
    let (mut host, irqs) = msix("size=1M,vectors=4");
    let mut queue = host.queue(1, [8, 8], Some(2));
    irqs.forget(&host);
    set_control(&host, 0);
    complete(&mut queue);
    irqs.none(&host);
    set_control(&host, 0x8000);
    irqs.none(&host);
    complete(&mut queue);
    irqs.one(2);
}

#[test]
fn one_kind_of_interrupts_at_a_time() {
    let mut host = Host::new("size=1M,vectors=4,msi=4,intx=true");
    let mut queue = host.queue(1, [16, 16], Some(0));
    for kind in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx, IrqKind::Msix] {
        let irqs = Irqs::wire(&host, kind, 1);
        for other in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx] {
            let eventfd = upcie_core::irq::EventFd::new().unwrap();
            let also = host.device.set_irqs(other, &[std::os::fd::AsFd::as_fd(&eventfd)]);
            assert_eq!(also.is_ok(), other == kind, "{other} beside {kind}");
        }
        irqs.rewire(&host, kind, 1);
        irqs.forget(&host);
        queue.acknowledge();
        if kind == IrqKind::Intx {
            host.device.mask_irq(kind, 0, false).unwrap();
        }
        irqs.none(&host);
        complete(&mut queue);
        irqs.one(0);
        host.device.set_irqs(kind, &[]).unwrap();
    }
}
