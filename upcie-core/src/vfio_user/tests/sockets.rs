//! Socket paths: access, one client at a time, and the answers to others.

use super::*;
use crate::{
    Error, Failure,
    deadline::Budget,
    device::Device,
    irq::EventFd,
    open,
    vfio_user::{
        server::{Access, Listener},
        wire::{DmaMap, RegionAccess, dma},
    },
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
};

/// A directory for one test.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Serves a device at `path` while `clients` run.
pub(super) fn serving<T>(path: &Path, clients: impl FnOnce() -> T) -> T {
    serving_within(Duration::from_millis(200), path, |_| clients())
}

/// Serves a device with a deadline, for clients that may stop the server.
fn serving_within<T>(deadline: Duration, path: &Path, clients: impl FnOnce(&AtomicBool) -> T) -> T {
    let listener = Listener::bind(path).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server =
            scope.spawn(|| Server::new().deadline(deadline).serve(&listener, &mut CopyDevice::new(), &stop));
        /// Stops the server also when a client panics.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let result = {
            let _stop = Stop(&stop);
            clients(&stop)
        };
        server.join().unwrap().unwrap();
        result
    })
}

pub(super) fn connect(path: &Path) -> crate::Result<Arc<dyn Device>> {
    open(&format!("vfio-user:{}", path.display()).parse().unwrap())
}

impl Raw {
    /// Maps memory without a file, and makes the device copy 1 MiB of it, for which it requests the bytes by message.
    fn begin_copy_by_message(&mut self) {
        let map = DmaMap { argsz: 32, flags: dma::READ | dma::WRITE, offset: 0, address: 0, size: 2 << 20 };
        self.ask(command::DMA_MAP, map.as_bytes(), &[]).unwrap();
        for (offset, value) in [(SOURCE, 0), (TARGET, 1 << 20), (LENGTH, 1 << 20), (GO, 1)] {
            let access = RegionAccess { offset, region: 0, count: 8 };
            let payload = [access.as_bytes(), &u64::to_le_bytes(value)].concat();
            let header = Header { command: command::REGION_WRITE, ..Header::default() };
            self.send(header, &payload, &[]);
            if offset != GO {
                self.next();
            }
        }
    }
}

#[test]
fn clients_are_served_in_turn_and_a_second_is_refused() {
    let scratch = Scratch::new("second");
    let path = scratch.socket();
    serving(&path, || {
        let first = connect(&path).unwrap();
        let error = connect(&path).unwrap_err();
        assert!(error.to_string().contains("has a client already"), "{error}");
        reset(&*first).unwrap();
        drop(first);
        reset(&*connect(&path).unwrap()).unwrap();
    });
    assert!(!path.exists(), "the server removes its socket");
}

/// Regression: further clients got no answer while a backend waited for its client's memory.
#[test]
fn others_are_refused_while_the_server_waits() {
    let scratch = Scratch::new("waits");
    let path = scratch.socket();
    serving_within(SOON, &path, |_| {
        let mut first = Raw::new(UnixStream::connect(&path).unwrap());
        first.negotiate(Capabilities::default());
        first.begin_copy_by_message();
        assert_eq!(first.next().header.command, command::DMA_READ);
        // The server's request is never answered.
        for _ in 0..3 {
            let error = connect(&path).unwrap_err();
            assert!(error.to_string().contains("has a client already"), "{error}");
        }
        let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let error = connect(&path).unwrap_err();
        assert!(error.to_string().contains("has a client already"), "behind silent clients: {error}");
        drop(silent);
    });
}

/// A sum of the time and such a deadline overflows.
#[test]
fn the_longest_deadlines_are_taken() {
    let scratch = Scratch::new("longest");
    let path = scratch.socket();
    serving(&path, || {
        let client = VfioUserDevice::connect_within(&path, Duration::MAX).unwrap();
        reset(&client).unwrap();
    });
    serving_within(Duration::MAX, &path, |_| {
        let mut client = Raw::new(UnixStream::connect(&path).unwrap());
        client.negotiate(Capabilities::default());
        client.begin_copy_by_message();
        // The server waits for the answer.
        assert_eq!(client.next().header.command, command::DMA_READ);
    });
}

/// A device whose writes hang, as on a disk that does not answer, until the test continues them.
struct Hanging {
    device: CopyDevice,
    hangs: Sender<()>,
    go: Receiver<()>,
}

impl Backend for Hanging {
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

    fn write(&mut self, _: &mut Client, region: u32, _: u64, _: &[u8]) -> std::io::Result<()> {
        if region == 0 {
            self.hangs.send(()).unwrap();
            // An error means that the test has ended.
            let _ = self.go.recv();
        }
        Ok(())
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.device.poll(client)
    }

    fn reset(&mut self) {
        self.device.reset();
    }
}

/// Regression: the serving thread also accepted new connections, and hung in its disk.
#[test]
fn others_are_refused_while_the_backend_hangs() {
    let scratch = Scratch::new("hangs");
    let path = scratch.socket();
    let listener = Listener::bind(&path).unwrap();
    let (stop, (hangs, seen), (go, wait)) = (AtomicBool::new(false), channel(), channel());
    let mut device = Hanging { device: CopyDevice::new(), hangs, go: wait };
    std::thread::scope(|scope| {
        scope.spawn(|| Server::new().serve(&listener, &mut device, &stop).unwrap());
        // Ends the server also when this test fails.
        let _go = go;
        let first = connect(&path).unwrap();
        let writer = scope.spawn({
            let first = first.clone();
            move || {
                let bar = first.bar(0).unwrap();
                let _budget = Budget::new(Duration::from_millis(300));
                write_u32(&bar, 0, 1)
            }
        });
        seen.recv_timeout(SOON).expect("it hangs");
        stop.store(true, Ordering::Relaxed);
        let assert_refused = || {
            let error = connect(&path).unwrap_err();
            assert!(error.to_string().contains("has a client already"), "{error}");
        };
        assert_refused();
        // The write's deadline ends the connection, but the server has not finished the write.
        writer.join().unwrap().unwrap_err();
        drop(first);
        assert_refused();
    });
}

/// A client with an eventfd for the request interrupt is asked to leave, and gets a moment for it; the server does not
/// wait for others.
#[test]
fn a_stopped_server_requests_its_device_back() {
    for (asks, leaves) in [(true, true), (true, false), (false, false)] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| Server::new().serve_stream(theirs, &mut CopyDevice::new(), &stop));
            let client = VfioUserDevice::from_stream(ours, "device", None).unwrap();
            let irq = EventFd::new().unwrap();
            if asks {
                client.set_irqs(IrqKind::Request, &[irq.as_fd()]).unwrap();
            }
            let start = Instant::now();
            stop.store(true, Ordering::Relaxed);
            assert!(!asks || irq.wait(SOON).unwrap());
            let client = if leaves { None } else { Some(client) };
            server.join().unwrap().unwrap();
            let waited = start.elapsed() >= Duration::from_secs(1);
            assert!(leaves || waited == asks || !asks, "{:?}", start.elapsed());
            assert_eq!(irq.take().unwrap(), asks.into());
            drop(client);
        });
    }
}

/// Regression: a server that waited for its client did not check whether it was to stop.
#[test]
fn a_server_waiting_for_its_client_can_be_stopped() {
    let scratch = Scratch::new("stops");
    let path = scratch.socket();
    let begin = serving_within(Duration::from_secs(600), &path, |stop| {
        let mut first = Raw::new(UnixStream::connect(&path).unwrap());
        first.negotiate(Capabilities::default());
        first.begin_copy_by_message();
        assert_eq!(first.next().header.command, command::DMA_READ);
        stop.store(true, Ordering::Relaxed);
        // The answer to the pending request arrives, and then the end.
        while let Ok(message) = first.0.recv(soon()) {
            assert!(message.header.is_reply());
        }
        Instant::now()
    });
    assert!(begin.elapsed() < SOON);
}

/// Regression: each request of a turn had a deadline of its own.
#[test]
fn a_client_that_is_slow_for_each_request_is_dropped() {
    let scratch = Scratch::new("trickles");
    let path = scratch.socket();
    serving_within(Duration::from_millis(300), &path, |_| {
        let capabilities = Capabilities { max_data_xfer_size: 512, ..Capabilities::default() };
        let mut first = Raw::new(UnixStream::connect(&path).unwrap());
        first.negotiate(capabilities);
        first.begin_copy_by_message();
        let mut answers = 0;
        while let Ok(asked) = first.0.recv(soon()) {
            // Slow on purpose, but never late.
            std::thread::sleep(Duration::from_millis(100));
            let reply = Header { flags: flags::REPLY, ..asked.header };
            if first.0.send(message(reply, &[&asked.payload, &[0; 512]]), &[]).is_err() {
                break;
            }
            answers += 1;
            assert!(answers < 30, "the whole copy takes 2048");
        }
    });
}

/// Regression: every user who could write to a new file could connect.
#[test]
fn a_socket_has_the_requested_access() {
    let scratch = Scratch::new("access");
    let path = scratch.socket();
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(mode(), 0o600);
    drop(listener);
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    // The umask has no effect.
    for wanted in [0o666, 0o660, 0o200] {
        let access = Access { mode: wanted, uid: Some(uid), gid: Some(gid) };
        let _listener = Listener::bind_for(&path, access).unwrap();
        assert_eq!(mode(), wanted);
    }
    if !nix::unistd::geteuid().is_root() {
        let access = Access { uid: Some(0), ..Access::default() };
        let error = Listener::bind_for(&path, access).unwrap_err().to_string();
        assert!(error.contains("giving the socket"), "{error}");
    }
    assert!(!path.exists(), "a socket of a server that did not start");
}

#[test]
fn a_path_too_long_for_a_socket_is_reported() {
    let path = std::env::temp_dir().join("x".repeat(120));
    let long = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("at most 107 bytes, this one has"), "{text}");
    };
    long(Listener::bind(&path).unwrap_err());
    long(connect(&path).unwrap_err());
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let scratch = Scratch::new("stale");
    let path = scratch.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let error = connect(&path).unwrap_err();
    assert!(
        matches!(error.failure(), Failure::NotFound { .. })
            && error.to_string().contains("start its server again")
    );
    serving(&path, || {
        assert!(Listener::bind(&path).unwrap_err().to_string().contains("in use"));
        reset(&*connect(&path).unwrap()).unwrap();
    });
    fs::write(&path, "text").unwrap();
    assert!(Listener::bind(&path).unwrap_err().to_string().contains("something else"));
    assert!(connect(&path).unwrap_err().to_string().contains("not a socket"));
    assert!(connect(&scratch.0.join("absent")).unwrap_err().to_string().contains("start its server"));
}

#[test]
fn a_successors_socket_is_not_removed() {
    let scratch = Scratch::new("successor");
    let path = scratch.socket();
    let old = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let new = Listener::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}
