//! The vfio-user client, against a server's bytes.
//!
//! The first byte tells which of the messages bring a descriptor of memory, by bits; the stream follows.

use crate::wire::{Peer, clear_memory};
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};
use upcie_core::{
    device::Device,
    irq::IrqKind,
    pci::ConfigSpace,
    vfio_user::{VfioUserDevice, server::Server},
};
use upcie_nvme::emu::Emulator;

pub fn target(data: &[u8]) {
    play(data);
}

/// Uses a device behind a server's bytes; returns whether the last call had its answer.
fn play(data: &[u8]) -> bool {
    let Some((&brings_memory, mut stream)) = data.split_first() else { return false };
    let (peer, theirs) = Peer::new();
    clear_memory();
    for index in 0.. {
        let size = stream.get(4..8).map_or(0, |size| u32::from_ne_bytes(size.try_into().unwrap_or_default()));
        let (message, rest) = stream.split_at((size as usize).max(16).min(stream.len()));
        peer.send(message, index < 8 && brings_memory >> index & 1 != 0);
        stream = rest;
        if stream.is_empty() {
            break;
        }
    }
    peer.end();
    drive(theirs)
}

/// Uses everything of a device; returns whether its reset, the last call, succeeds.
fn drive(stream: UnixStream) -> bool {
    let opened = VfioUserDevice::with_deadline(stream, "fuzz", None, Duration::from_millis(50));
    let Ok(device) = opened else { return false };
    let device: &dyn Device = &device;
    for index in [0, 4] {
        if let Ok(bar) = device.bar(index) {
            let (len, size) = (bar.areas().len(), bar.size());
            assert!(len <= 64, "{len} mapped parts of a region of {size} bytes");
            let _ = (bar.read_u32(0x1c), bar.read_u64(0), bar.read_u32(size.wrapping_sub(4)));
            // SAFETY: no device is behind the stream.
            let _ = unsafe { bar.write_u32(0x14, 0) };
            if let Some(register) = bar.register::<u32>(0x1000) {
                register.read();
            }
        }
    }
    let _ = device.config_u16(0);
    assert!(device.capabilities().count() <= 64);
    assert!(device.extended_capabilities().count() <= 960);
    for kind in [IrqKind::Intx, IrqKind::Msi, IrqKind::Msix] {
        let _ = (device.irq_count(kind), device.set_irqs(kind, &[]));
    }
    // SAFETY: no device is behind the stream.
    unsafe { device.reset() }.is_ok()
}

/// Returns the bytes that the embedded controller's server sends while a client uses it.
pub fn seeds() -> Vec<Vec<u8>> {
    let (client, mut near) = UnixStream::pair().expect("a pair of sockets");
    let (mut far, server) = UnixStream::pair().expect("a pair of sockets");
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut emulator = Emulator::new(&"size=64K".parse().expect("options")).expect("an emulator");
            let _ = Server::new().serve_stream(server, &mut emulator, &AtomicBool::new(false));
        });
        let (mut from, mut to) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
        scope.spawn(move || {
            // Descriptors are lost on the way, which the server takes.
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let answers = scope.spawn(move || {
            let (mut all, mut part) = (vec![0], [0; 4096]);
            while let Ok(len @ 1..) = far.read(&mut part) {
                all.extend(&part[..len]);
                let _ = near.write_all(&part[..len]);
            }
            let _ = near.shutdown(Shutdown::Both);
            all
        });
        assert!(drive(client), "a server and its client");
        let plain = answers.join().expect("a copy of the answers");
        // The same with descriptors.
        let mut with = plain.clone();
        with[0] = 0b1110;
        vec![plain, with]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_takes_the_seeds_to_their_end() {
        let [plain, _] = seeds().try_into().unwrap();
        assert!(play(&plain));
        assert!(!play(&plain[..plain.len() / 2]), "cut short");
    }
}
