//! Clients of one controller, one after the other.

use super::host::Host;
use crate::{
    emu::{Emulator, Options, layout::DSTRD},
    spec::{Command, NvmOpcode, Status, doorbell_offset},
};
use std::{
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};
use upcie_core::{
    mmio::Register,
    vfio_user::{VfioUserDevice, server::Server},
};

/// A controller whose clients come one after the other.
pub(super) struct Sessions {
    streams: Sender<UnixStream>,
    server: JoinHandle<()>,
}

impl Sessions {
    pub(super) fn new(options: &str) -> Self {
        let (streams, next) = channel();
        let options: Options = options.parse().unwrap();
        let server = thread::spawn(move || {
            let mut emulator = Emulator::new(&options).unwrap();
            for stream in next {
                Server::new().serve_stream(stream, &mut emulator, &AtomicBool::new(false)).unwrap();
            }
        });
        Self { streams, server }
    }

    /// Connects the next client, and enables the controller.
    pub(super) fn connect(&self) -> Host {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.streams.send(theirs).unwrap();
        let mut host = Host::over(Arc::new(VfioUserDevice::from_stream(ours, "emu", None).unwrap()));
        host.enable();
        host
    }

    /// Waits for the end of the server. All clients are gone.
    pub(super) fn end(self) {
        drop(self.streams);
        self.server.join().unwrap();
    }
}

/// A client that is gone keeps its mapping of the doorbells, which were once those of the next client, too.
#[test]
fn a_former_client_rings_no_doorbell() {
    let sessions = Sessions::new("size=1M");
    let offset = doorbell_offset(1, false, DSTRD) as u64;
    let first = sessions.connect();
    let kept: Register<u32> = first.bar.register(offset).unwrap();
    drop(first);
    let mut second = sessions.connect();
    let mut queue = second.queue(1, [4, 4], None);
    queue.put(&Command::io(NvmOpcode::FLUSH, 1));
    // SAFETY: no device looks at the memory any more, or else at entries that name no memory.
    unsafe { kept.write(1) };
    assert_eq!(second.bar.read_u32(offset).unwrap(), 0, "the second client's doorbell");
    queue.ring();
    assert_eq!(queue.wait().status(), Status::SUCCESS);
    drop((queue, second));
    sessions.end();
}
