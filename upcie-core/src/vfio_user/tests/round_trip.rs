//! Everything a client can ask, answered by our own server.

use super::*;
use crate::{irq::EventFd, transport::Device};

fn copy(client: &Client, from: u64, to: u64, len: u64) -> u64 {
    let bar = client.bar(0).unwrap();
    bar.write_u64(SOURCE, from).unwrap();
    bar.write_u64(TARGET, to).unwrap();
    bar.write_u64(LENGTH, len).unwrap();
    bar.write_u64(GO, 1).unwrap();
    bar.read_u64(STATUS).unwrap()
}

fn bytes(at: *mut u8, len: usize) -> Vec<u8> {
    // SAFETY: a test's own region, at rest.
    unsafe { std::slice::from_raw_parts(at, len) }.to_vec()
}

fn fill(at: *mut u8, len: usize, seed: u8) {
    for index in 0..len {
        // SAFETY: a test's own region.
        unsafe { at.add(index).write(seed.wrapping_add(index as u8)) };
    }
}

#[test]
fn registers_by_message_and_configuration_space() {
    let (client, resets) = toy();
    let bar = client.bar(0).unwrap();
    assert_eq!(bar.size(), 0x4000);
    bar.write_u64(SOURCE, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(bar.read_u32(SOURCE + 4).unwrap(), 0x1122_3344);
    let mut config = [0; 64];
    client.config_read(0, &mut config).unwrap();
    assert_eq!(config, [0xc0; 64]);
    assert!(matches!(client.config_write(0, &[0]), Err(crate::Error::Peer { .. })));
    assert!(matches!(client.config_read(4090, &mut config), Err(crate::Error::OutOfRange { .. })));
    assert!(matches!(client.bar(1), Err(crate::Error::NotFound { .. })));
    client.reset().unwrap();
    assert_eq!((bar.read_u64(SOURCE).unwrap(), resets.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn the_device_reaches_mapped_memory_and_no_other() {
    let (client, _) = toy();
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
fn a_mapped_doorbell_and_an_interrupt() {
    let (client, _) = toy();
    assert_eq!(client.irq_count(IrqKind::Msix).unwrap(), 20);
    let irq = EventFd::new().unwrap();
    client.set_irqs(IrqKind::Msix, &[irq.as_fd()]).unwrap();
    let bar = client.bar(0).unwrap();
    assert_eq!(bar.areas().len(), 1);
    let doorbell = bar.register::<u32>(DOORBELL).expect("the doorbell page is mapped");
    assert!(bar.register::<u32>(0).is_none() && bar.register::<u32>(0x2000).is_none());
    doorbell.write(1);
    assert!(irq.wait(SOON).unwrap(), "an idle server notices a doorbell");
    assert_eq!(irq.take().unwrap(), 1);
}
