//! Clients of `nvme-emu` that shrink their memory, fall silent, or use up all its descriptors: the next
//! client is served, and so are those of its other controllers.

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
        socket::{ControlMessage, MsgFlags, sendmsg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, ftruncate},
};
use std::{
    fs,
    io::{IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream, process::ExitStatusExt},
    },
    path::PathBuf,
    time::{Duration, Instant},
};
use upcie_core::device::Address;
use upcie_nvme::Controller;
use upcie_tests::{deadline, left_out, process::Server};

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const GET_INFO: u16 = 4;
const REGION_WRITE: u16 = 10;
const CONFIG: u32 = 7;

fn server() -> Option<Server> {
    if !Server::is_built() && !upcie_tests::is_ci() {
        left_out("nvme-emu is not built");
        return None;
    }
    Some(Server::start("size=16M"))
}

fn socket(address: Address) -> PathBuf {
    match address {
        Address::VfioUser(path) => path,
        other => panic!("{other}"),
    }
}

/// Makes a message.
fn message(command: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(7_u16.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend((16 + payload.len() as u32).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

/// A client that sends arbitrary messages.
struct Raw(UnixStream);

impl Raw {
    fn connect(server: &Server) -> Self {
        Self::connect_to(server.address())
    }

    fn connect_to(address: Address) -> Self {
        let stream = UnixStream::connect(socket(address)).unwrap();
        stream.set_read_timeout(Some(deadline())).unwrap();
        let mut this = Self(stream);
        let capabilities = b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8}}\0";
        this.send(VERSION, capabilities, None);
        this.reply();
        this
    }

    fn send(&mut self, command: u16, payload: &[u8], fd: Option<&OwnedFd>) {
        let bytes = message(command, payload);
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None).unwrap();
    }

    /// Waits until the server has received all that was sent.
    fn wait_until_received(&self) {
        let end = Instant::now() + deadline();
        loop {
            let mut left: libc::c_int = 0;
            // SAFETY: the call stores one integer there.
            let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            if left == 0 {
                return;
            }
            assert!(Instant::now() < end, "{left} bytes wait");
            std::thread::yield_now();
        }
    }

    /// Receives an answer; returns its error number, 0 for none.
    fn answer(&mut self) -> u32 {
        let mut header = [0; 16];
        self.0.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(word(8) & 0xf, 1, "a request");
        self.0.read_exact(&mut vec![0; word(4) as usize - 16]).unwrap();
        word(12)
    }

    /// Receives an answer, which must not be an error.
    fn reply(&mut self) {
        assert_eq!(self.answer(), 0, "an error");
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let mut payload = offset.to_ne_bytes().to_vec();
        payload.extend(region.to_ne_bytes());
        payload.extend((data.len() as u32).to_ne_bytes());
        payload.extend(data);
        self.send(REGION_WRITE, &payload, None);
    }

    /// Maps 64 KiB at 1 MiB, in `file` or reached by message; returns the error number of the answer.
    fn map(&mut self, file: Option<&OwnedFd>) -> u32 {
        let mut map = [32_u32.to_ne_bytes(), 3_u32.to_ne_bytes()].concat();
        for word in [0_u64, 1 << 20, 64 << 10] {
            map.extend(word.to_ne_bytes());
        }
        self.send(DMA_MAP, &map, file);
        self.answer()
    }

    /// Enables the controller with admin queues in 64 KiB at 1 MiB, in `file` or reached by message.
    fn enable(&mut self, file: Option<&OwnedFd>) {
        assert_eq!(self.map(file), 0, "an error");
        // Memory space and bus mastering.
        self.write(CONFIG, 4, &6_u16.to_ne_bytes());
        self.reply();
        for (offset, value) in [
            (0x24, 0x001f_001f_u32),
            (0x28, 1 << 20),
            (0x2c, 0),
            (0x30, (1 << 20) + 4096),
            (0x34, 0),
            (0x14, 0x0046_0001),
        ] {
            self.write(0, offset, &value.to_ne_bytes());
            self.reply();
        }
    }

    fn ring(&mut self) {
        self.write(0, 0x1000, &1_u32.to_ne_bytes());
    }

    /// Waits until the server has ended the session.
    fn end(mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }
}

fn serves(server: &Server) {
    assert_eq!(Controller::open(server.address()).unwrap().namespace_ids().unwrap().len(), 1);
}

/// Regression: a client that shrank its memory ended the server by SIGBUS.
#[test]
fn shrunk_memory_ends_only_its_client() {
    let Some(mut server) = server() else { return };
    for flags in [MFdFlags::empty(), MFdFlags::MFD_ALLOW_SEALING] {
        let file = memfd_create(c"upcie-shrinks", MFdFlags::MFD_CLOEXEC | flags).unwrap();
        ftruncate(&file, 64 << 10).unwrap();
        let mut client = Raw::connect(&server);
        client.enable(Some(&file));
        // The server has sealed each file that can be sealed.
        assert_eq!(ftruncate(&file, 0).is_err(), flags == MFdFlags::MFD_ALLOW_SEALING);
        if flags.is_empty() {
            client.ring();
            client.end();
        } else {
            drop(client);
        }
        serves(&server);
    }
    server.process().signal(Signal::SIGTERM);
}

/// A controller that waited for its client, about memory without a descriptor, had what all controllers of the
/// subsystem share.
#[test]
fn no_controller_of_several_waits_for_its_client() {
    if !Server::is_built() && !upcie_tests::is_ci() {
        return left_out("nvme-emu is not built");
    }
    let server = Server::start_several("size=1M", 2);
    let mut addresses = server.addresses();
    let (second, first) = (addresses.remove(1), addresses.remove(0));
    let mut client = Raw::connect_to(first);
    assert_eq!(client.map(None), libc::ENOTSUP as u32, "memory by message");
    let file = memfd_create(c"upcie-rings", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    ftruncate(&file, 64 << 10).unwrap();
    client.enable(Some(&file));
    assert_eq!(Controller::open(second).unwrap().namespace_ids().unwrap().len(), 1);
}

/// Regression: the server ignored SIGTERM while it waited for a client.
#[test]
fn a_signal_ends_a_server_that_waits_for_a_client() {
    let Some(server) = server() else { return };
    let mut client = Raw::connect(&server);
    client.enable(None);
    client.ring();
    // The server asks for the queue's entry and never gets it.
    let mut asked = [0; 16];
    loop {
        client.0.read_exact(&mut asked).unwrap();
        if asked[8] & 1 == 0 {
            break;
        }
        client.0.read_exact(&mut [0; 16]).unwrap();
    }
    let start = Instant::now();
    let (status, said) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{status:?} (signal {:?}) {said}", status.signal());
    println!("ended after {:?}", start.elapsed());
}

/// Sends half of a message, at most: the server has to wait for the rest.
fn half_send(client: &mut Raw) {
    let whole = message(REGION_WRITE, &[0; 4096]);
    for part in [&whole[..8], &whole[8..1000]] {
        client.0.write_all(part).unwrap();
        client.wait_until_received();
    }
}

/// Sends requests without receiving an answer until the server takes none any more.
fn stop_reading(client: &mut Raw) {
    client.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = message(GET_INFO, &[16_u32.to_ne_bytes(), [0; 4], [0; 4], [0; 4]].concat());
    let taken = (0..100_000).take_while(|_| client.0.write_all(&request).is_ok()).count();
    assert!((2..100_000).contains(&taken), "{taken} requests without an answer");
}

#[test]
fn a_signal_ends_a_server_whose_client_is_stuck() {
    for stick in [half_send, stop_reading] {
        let Some(server) = server() else { return };
        let mut client = Raw::connect(&server);
        stick(&mut client);
        let (status, said) = server.end(Signal::SIGTERM);
        assert!(status.success(), "{status:?} (signal {:?}) {said}", status.signal());
        client.end();
    }
}

/// Soundness R6: the server ended when it had too few descriptors.
#[test]
fn a_server_out_of_descriptors_recovers() {
    let Some(mut server) = server() else { return };
    let pid = server.process().id();
    let limit = |now: u64| {
        let new = libc::rlimit { rlim_cur: now, rlim_max: 1024 };
        // SAFETY: the call reads the limit, and takes null for the old one.
        let set =
            unsafe { libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    };
    // A server that is stopped is in no call that already has a descriptor for the next client.
    let id = Pid::from_raw(pid as i32);
    server.process().signal(Signal::SIGSTOP);
    assert!(matches!(waitpid(id, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(..))));
    limit(3);
    server.process().signal(Signal::SIGCONT);
    let mut waiting = UnixStream::connect(socket(server.address())).unwrap();
    waiting.write_all(b"nonsense, which ends a session").unwrap();
    // The server neither accepts the client nor ends. Its next attempt is 50 ms later.
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    limit(1024);
    waiting.set_read_timeout(Some(deadline())).unwrap();
    assert!(!matches!(waiting.read(&mut [0]), Ok(1..)));
    serves(&server);
}

#[test]
fn a_socket_is_for_its_user_alone() {
    let Some(server) = server() else { return };
    assert_eq!(fs::metadata(socket(server.address())).unwrap().permissions().mode() & 0o777, 0o600);
}
