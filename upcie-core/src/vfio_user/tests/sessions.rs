//! Sessions of one device, one after the other.

use super::*;
use crate::Chain;
use std::sync::mpsc::channel;

/// A device that has new memory for each client, or none.
struct Renewed {
    device: CopyDevice,
    is_short: bool,
}

impl Renewed {
    fn new(is_short: bool) -> Self {
        Self { device: CopyDevice::new(), is_short }
    }
}

impl Backend for Renewed {
    fn begin_session(&mut self) -> std::io::Result<()> {
        if self.is_short {
            return Err(Errno::ENOMEM.into());
        }
        self.device = CopyDevice::new();
        Ok(())
    }

    fn layout(&self) -> &Layout {
        self.device.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        self.device.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.device.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.device.poll(client)
    }

    fn reset(&mut self) {
        self.device.reset();
    }
}

/// A client that is gone keeps what it has mapped.
#[test]
fn each_client_maps_memory_of_its_own() {
    let (streams, next) = channel();
    let server = std::thread::spawn(move || {
        let mut device = Renewed::new(false);
        for stream in next {
            Server::new().serve_stream(stream, &mut device, &AtomicBool::new(false)).unwrap();
        }
    });
    let doorbell = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        streams.send(theirs).unwrap();
        let client = VfioUserDevice::from_stream(ours, "device", None).unwrap();
        let bar = client.bar(0).unwrap();
        bar.register::<u32>(DOORBELL).unwrap()
    };
    let [first, second] = [doorbell(), doorbell()];
    ring(&first, 1);
    assert_eq!((first.read(), second.read()), (1, 0));
    drop(streams);
    server.join().unwrap();
}

#[test]
fn a_device_without_memory_serves_no_client() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut device = Renewed::new(true);
    let error = Server::new().serve_stream(theirs, &mut device, &AtomicBool::new(false)).unwrap_err();
    let text = Chain(&error).to_string();
    assert!(text.contains("preparing the device") && text.contains("os error 12"), "{text}");
    assert!(VfioUserDevice::from_stream(ours, "device", None).is_err(), "the connection is closed");
    assert_eq!(device.device.resets.load(Ordering::SeqCst), 0, "no session");
}
