//! Socket paths: who may listen, who may connect, and what is said to the others.

use super::*;
use crate::{
    Error,
    transport::{Device, open},
    vfio_user::server::Listener,
};
use std::{
    fs,
    io::Write,
    net::Shutdown,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

/// A directory of the test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Serves a toy at `path` while `clients` run.
fn serving<T>(path: &Path, clients: impl FnOnce() -> T) -> T {
    let listener = Listener::bind(path).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            Server::new().deadline(Duration::from_millis(200)).serve(&listener, &mut Toy::new(), &stop)
        });
        /// Stops the server also when a client panics.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let result = {
            let _stop = Stop(&stop);
            clients()
        };
        server.join().unwrap().unwrap();
        result
    })
}

fn connect(path: &Path) -> crate::Result<Arc<dyn Device>> {
    open(&format!("vfio-user:{}", path.display()).parse().unwrap())
}

#[test]
fn one_client_after_another_and_a_second_is_told() {
    let scratch = Scratch::new("second");
    let path = scratch.socket();
    serving(&path, || {
        let first = connect(&path).unwrap();
        let error = connect(&path).unwrap_err();
        assert!(error.to_string().contains("has a client already"), "{error}");
        first.reset().unwrap();
        drop(first);
        connect(&path).unwrap().reset().unwrap();
    });
    assert!(!path.exists(), "the socket goes with its server");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new("stale");
    let path = scratch.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let error = connect(&path).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }) && error.to_string().contains("start its server again"));
    serving(&path, || {
        assert!(Listener::bind(&path).unwrap_err().to_string().contains("in use"));
        connect(&path).unwrap().reset().unwrap();
    });
    fs::write(&path, "text").unwrap();
    assert!(Listener::bind(&path).unwrap_err().to_string().contains("something else"));
    assert!(connect(&path).unwrap_err().to_string().contains("not a socket"));
    assert!(connect(&scratch.0.join("absent")).unwrap_err().to_string().contains("start its server"));
}

#[test]
fn a_successors_socket_is_left_alone() {
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

/// xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Numbers that matter now and then, any otherwise.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => 0x1000 * self.below(32),
            4 => 0,
            _ => self.below(64),
        }
    }
}

impl Random {
    /// A few fields, seldom as many as there should be.
    fn payload(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        for _ in 0..self.below(7) {
            if self.below(2) == 0 {
                payload.extend_from_slice(&self.number().to_le_bytes());
            } else {
                payload.extend_from_slice(&(self.number() as u32).to_le_bytes());
            }
        }
        payload
    }
}

impl Raw {
    /// Says hello; whether the server has time.
    fn try_hello(&mut self) -> bool {
        let version = Header { command: command::VERSION, ..Header::default() };
        let sent = self.0.send(message(version, &[&[0; 4]]), &[]);
        sent.is_ok() && self.0.recv(soon()).is_ok_and(|reply| reply.header.flags & flags::ERROR == 0)
    }

    /// Takes answers, so that more requests fit, and answers what the server asks, most of the time; how many.
    fn drain(&mut self, random: &mut Random) -> usize {
        let mut answers = 0;
        while let Ok(Some(asked)) = self.0.try_recv() {
            if asked.header.is_reply() {
                answers += 1;
            } else if random.below(4) > 0 {
                let header = Header { flags: flags::REPLY, ..asked.header };
                let _ = self.0.send(message(header, &[&random.payload()]), &[]);
            }
        }
        answers
    }
}

#[test]
fn a_server_survives_any_bytes() {
    let scratch = Scratch::new("fuzz");
    let path = scratch.socket();
    let file = Memory::new(0x10000, PageSize::Small).unwrap();
    let mut random = Random(0x5eed);
    serving(&path, || {
        let mut handled = 0;
        for _ in 0..150 {
            let mut stream = UnixStream::connect(&path).unwrap();
            let mut raw = Raw::new(stream.try_clone().unwrap());
            if random.below(8) > 0 {
                // The one before may still be there.
                while !raw.try_hello() {
                    stream = UnixStream::connect(&path).unwrap();
                    raw = Raw::new(stream.try_clone().unwrap());
                }
            }
            for _ in 0..random.below(60) {
                let payload = random.payload();
                let header = Header {
                    id: random.next() as u16,
                    command: random.below(20) as u16,
                    flags: if random.below(64) == 0 { random.next() as u32 } else { 0 },
                    ..Header::default()
                };
                let mut bytes = message(header, &[&payload]);
                if random.below(64) == 0 {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.next() as u8;
                }
                let count =
                    if random.below(64) == 0 { 12 } else { [0, 0, 0, 1, 1, 8][random.below(6) as usize] };
                let fds = vec![file.as_fd(); count];
                if raw.0.send(bytes, &fds).is_err() {
                    break;
                }
                handled += raw.drain(&mut random);
            }
            let _ = stream.write_all(&[0xff; 11][..random.below(11) as usize]);
            // All of it arrives before the end does.
            let _ = stream.shutdown(Shutdown::Write);
            while let Ok(message) = raw.0.recv(soon()) {
                handled += usize::from(message.header.is_reply());
            }
        }
        assert!(handled > 1000, "most of it got through: {handled}");
        // The last one may not have been noticed yet.
        let end = soon();
        let client = loop {
            match connect(&path) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        };
        client.reset().unwrap();
    });
}
