//! All requests of a client, answered by this crate's server.

use super::*;
use crate::{device::Device, irq::EventFd};

fn copy(client: &VfioUserDevice, from: u64, to: u64, len: u64) -> u64 {
    let bar = client.bar(0).unwrap();
    write_u64(&bar, SOURCE, from).unwrap();
    write_u64(&bar, TARGET, to).unwrap();
    write_u64(&bar, LENGTH, len).unwrap();
    write_u64(&bar, GO, 1).unwrap();
    bar.read_u64(STATUS).unwrap()
}

fn bytes(at: *mut u8, len: usize) -> Vec<u8> {
    // SAFETY: a test's own region, which nobody writes now.
    unsafe { std::slice::from_raw_parts(at, len) }.to_vec()
}

fn fill(at: *mut u8, len: usize, seed: u8) {
    for index in 0..len {
        // SAFETY: the bytes are in a test's own region.
        unsafe { at.wrapping_add(index).write(seed.wrapping_add(index as u8)) };
    }
}

#[test]
fn registers_and_configuration_space_by_message() {
    let (client, resets) = device();
    let bar = client.bar(0).unwrap();
    assert_eq!(bar.size(), 0x4000);
    write_u64(&bar, SOURCE, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(bar.read_u32(SOURCE + 4).unwrap(), 0x1122_3344);
    let mut config = [0; 64];
    client.config_read(0, &mut config).unwrap();
    assert_eq!(config, [0xc0; 64]);
    assert!(
        matches!(config_write(&client, 0, &[0]), Err(error) if matches!(error.failure(), crate::Failure::Peer { .. }))
    );
    assert!(
        matches!(client.config_read(4090, &mut config), Err(error) if matches!(error.failure(), crate::Failure::OutOfRange { .. }))
    );
    assert!(
        matches!(client.bar(1), Err(error) if matches!(error.failure(), crate::Failure::NotFound { .. }))
    );
    reset(&client).unwrap();
    assert_eq!((bar.read_u64(SOURCE).unwrap(), resets.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn the_device_reaches_only_mapped_memory() {
    let (client, _) = device();
    let a = client.dma().map(Memory::new(1 << 20, PageSize::Small).unwrap()).unwrap();
    let b = client.dma().map(Memory::new(1 << 20, PageSize::Small).unwrap()).unwrap();
    fill(a.as_ptr(), 1 << 20, 3);
    assert_eq!(copy(&client, a.iova(0), b.iova(0), 1 << 20), 0);
    assert_eq!(bytes(a.as_ptr(), 1 << 20), bytes(b.as_ptr(), 1 << 20));
    let gone = b.iova(0);
    drop(b);
    assert_eq!(copy(&client, a.iova(0), gone, 16), Errno::EFAULT as u64);
}

#[test]
fn a_mapped_doorbell_raises_an_interrupt() {
    let (client, _) = device();
    assert_eq!(client.irq_count(IrqKind::Msix).unwrap(), 20);
    let irq = EventFd::new().unwrap();
    client.set_irqs(IrqKind::Msix, &[irq.as_fd()]).unwrap();
    let bar = client.bar(0).unwrap();
    assert_eq!(bar.areas().len(), 1);
    let doorbell = bar.register::<u32>(DOORBELL).expect("the doorbell page is mapped");
    assert!(bar.register::<u32>(0).is_none() && bar.register::<u32>(0x2000).is_none());
    ring(&doorbell, 1);
    assert!(irq.wait(SOON).unwrap(), "an idle server notices a doorbell");
    assert_eq!(irq.take().unwrap(), 1);
}

#[test]
fn more_interrupts_than_one_message_holds() {
    let (client, _) = device();
    let irqs: Vec<_> = (0..20).map(|_| EventFd::new().unwrap()).collect();
    let fds: Vec<_> = irqs.iter().map(AsFd::as_fd).collect();
    let bar = client.bar(0).unwrap();
    let raised = |vector: usize| {
        write_u64(&bar, RAISE, vector as u64).unwrap();
        let counts: Vec<_> = irqs.iter().map(|irq| irq.take().unwrap()).collect();
        assert!(counts.iter().enumerate().all(|(at, &count)| count == 0 || at == vector));
        counts[vector]
    };
    client.set_irqs(IrqKind::Msix, &fds).unwrap();
    assert!((0..20).all(|vector| raised(vector) == 1));
    client.set_irqs(IrqKind::Msix, &fds[..3]).unwrap();
    assert_eq!((raised(2), raised(3), raised(19)), (1, 0, 0), "a smaller set replaces a larger one");
    client.set_irqs(IrqKind::Msix, &[]).unwrap();
    assert_eq!(raised(0), 0);

    let more = vec![fds[0]; 21];
    assert!(
        matches!(client.set_irqs(IrqKind::Msix, &more), Err(error) if matches!(error.failure(), crate::Failure::OutOfRange { .. }))
    );
    assert_eq!((client.irq_count(IrqKind::Msi).unwrap(), client.irq_count(IrqKind::Intx).unwrap()), (0, 1));
}

#[test]
fn a_masked_interrupt_is_delivered_at_unmasking() {
    let (client, _) = device();
    let irq = EventFd::new().unwrap();
    client.set_irqs(IrqKind::Msix, &[irq.as_fd()]).unwrap();
    let bar = client.bar(0).unwrap();
    client.mask_irq(IrqKind::Msix, 0, true).unwrap();
    write_u64(&bar, RAISE, 0).unwrap();
    write_u64(&bar, RAISE, 0).unwrap();
    assert_eq!(irq.take().unwrap(), 0);
    client.mask_irq(IrqKind::Msix, 0, false).unwrap();
    assert_eq!(irq.take().unwrap(), 1, "once, however often it was raised");
    assert!(
        matches!(client.mask_irq(IrqKind::Error, 0, true), Err(error) if matches!(error.failure(), crate::Failure::Unsupported { .. }))
    );
}

#[test]
fn a_driven_pin_interrupts_at_each_unmasking() {
    let (client, _) = device();
    let (irq, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let bar = client.bar(0).unwrap();
    let drive = |on: u64| write_u64(&bar, PIN, on).unwrap();
    let mask = |masked| client.mask_irq(IrqKind::Intx, 0, masked).unwrap();
    client.set_irqs(IrqKind::Intx, &[irq.as_fd()]).unwrap();
    assert_eq!(irq.take().unwrap(), 0);
    for _ in 0..3 {
        drive(1);
        drive(1);
        assert_eq!(irq.take().unwrap(), 1, "once: it masks itself");
        mask(false);
        assert_eq!(irq.take().unwrap(), 1, "it is still driven");
        drive(0);
        mask(false);
        assert_eq!(irq.take().unwrap(), 0);
    }
    mask(true);
    drive(1);
    assert_eq!(irq.take().unwrap(), 0, "masked");
    drive(0);
    mask(false);
    assert_eq!(irq.take().unwrap(), 0, "a pin that is not driven any more does not interrupt");
    drive(1);
    client.set_irqs(IrqKind::Intx, &[other.as_fd()]).unwrap();
    assert_eq!(
        (irq.take().unwrap(), other.take().unwrap()),
        (1, 1),
        "it was driven before its eventfd was set"
    );
    client.set_irqs(IrqKind::Intx, &[]).unwrap();
    mask(false);
    assert_eq!((irq.take().unwrap(), other.take().unwrap()), (0, 0));
    client.set_irqs(IrqKind::Intx, &[irq.as_fd()]).unwrap();
    assert_eq!(irq.take().unwrap(), 1, "turned off and on again");
}

#[test]
fn a_region_can_be_larger_than_a_message() {
    let (client, _) = device();
    let bar = client.bar(2).unwrap();
    assert!(bar.areas().is_empty() && bar.size() == 3 << 20);
    write_u32(&bar, (3 << 20) - 4, 7).unwrap();
    assert_eq!(bar.read_u32((3 << 20) - 4).unwrap(), 7);
    assert!(bar.read_u32(3 << 20).is_err());
}

#[test]
fn the_last_handle_closes_then_drops_the_keepalive() {
    let (client, resets) = device();
    let (dma, bar) = (client.dma().clone(), client.bar(0).unwrap());
    drop(client);
    let region = dma.map(Memory::new(4096, PageSize::Small).unwrap()).unwrap();
    drop((dma, region));
    write_u64(&bar, SOURCE, 1).unwrap();
    assert_eq!(resets.load(Ordering::SeqCst), 0);
    drop(bar);
    // `Joined` has joined, so the server has noticed the end.
    assert_eq!(resets.load(Ordering::SeqCst), 1);
}

#[test]
fn several_threads_share_a_connection() {
    let (client, _) = device();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let bar = client.bar(2).unwrap();
            scope.spawn(move || {
                for round in 0..200 {
                    write_u64(&bar, thread * 8, round).unwrap();
                    assert_eq!(bar.read_u64(thread * 8).unwrap(), round);
                }
            });
        }
    });
}

#[test]
fn a_forked_child_can_not_use_the_device() {
    let (client, resets) = device();
    let region = client.dma().map(Memory::new(4096, PageSize::Small).unwrap()).unwrap();
    // SAFETY: the child only drops inherited values and exits; the C library's allocator survives forks.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = reset(&client).is_err();
        drop((client, region));
        // SAFETY: exits the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = -1;
    // SAFETY: waits for the child process made here.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child could neither use the device nor hang on its server's thread");
    assert_eq!(resets.load(Ordering::SeqCst), 0);
    assert_eq!(copy(&client, region.iova(0), region.iova(0), 8), 0);
}
