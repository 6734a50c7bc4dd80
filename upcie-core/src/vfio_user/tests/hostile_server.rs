//! The client against misbehaving servers: each case is an error in time, and never another request's answer.

use super::{sockets::Scratch, *};
use crate::{
    Error, Failure, Result,
    device::Device,
    memory::{descriptors_of, file_of},
    vfio_user::wire::{DeviceInfo, DmaAccess, DmaMap, RegionAccess, region_info, vfio},
};
use std::io::{Read, Write};

/// A deadline that is meant to be missed, and yet long enough for a busy machine to open the device.
const BRIEF: Duration = Duration::from_millis(300);

/// Connects a client to a server that runs `script`.
pub(super) fn against<T: Send + 'static>(
    deadline: Duration,
    script: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Result<VfioUserDevice>, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || script(theirs));
    (VfioUserDevice::with_deadline(ours, "fake", None, deadline), server)
}

impl Raw {
    pub(super) fn greet(&mut self, json: &str) {
        let version = self.next();
        assert_eq!(version.header.command, command::VERSION);
        self.reply(&version, &[Version { major: MAJOR, minor: MINOR }.as_bytes(), json.as_bytes()].concat());
    }

    /// Answers all requests for opening a device.
    pub(super) fn open(stream: UnixStream, json: &str) -> Self {
        let mut this = Self::new(stream);
        this.greet(json);
        let info = this.next();
        let flags = vfio::DEVICE_PCI | vfio::DEVICE_RESET;
        this.reply(&info, DeviceInfo { argsz: 16, flags, regions: 9, irqs: 5 }.as_bytes());
        let config = this.next();
        this.reply(&config, &region_info(CONFIG_REGION, 4096, None));
        this.be_set_up();
        this
    }

    /// Answers a client's accesses to configuration space when it opens a function without capabilities, up to its
    /// check that the command register was written.
    fn be_set_up(&mut self) {
        let (mut space, mut written) = ([0_u8; 64], false);
        loop {
            let request = self.next();
            let (access, data) = super::super::wire::split::<RegionAccess>(&request.payload).unwrap();
            let range = access.offset as usize..access.offset as usize + access.count as usize;
            let mut reply = access.as_bytes().to_vec();
            match request.header.command {
                command::REGION_READ => reply.extend(&space[range]),
                command::REGION_WRITE => {
                    space[range].copy_from_slice(data);
                    written = true;
                }
                other => panic!("{other} while a function is set up"),
            }
            self.reply(&request, &reply);
            if written && (request.header.command, access.offset) == (command::REGION_READ, 4) {
                return;
            }
        }
    }
}

pub(super) const PLAIN: &str = "{}\0";

#[test]
fn other_servers_are_detected() {
    type Script = fn(UnixStream);
    let scripts: [(&str, Script); 8] = [
        ("noise", |mut stream| {
            let noise: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
            stream.write_all(&noise).unwrap();
        }),
        ("another protocol", |mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap()),
        ("closes at once", drop),
        ("closes in the middle", |mut stream| stream.write_all(&[0; 7]).unwrap()),
        ("never answers", |mut stream| drop(stream.read_to_end(&mut Vec::new()))),
        ("a short version", |stream| {
            let mut raw = Raw::new(stream);
            let version = raw.next();
            raw.reply(&version, &[0]);
        }),
        ("a newer version", |stream| {
            let mut raw = Raw::new(stream);
            let version = raw.next();
            raw.reply(&version, Version { major: 1, minor: 0 }.as_bytes());
        }),
        ("no JSON", |stream| Raw::new(stream).greet("{max_msg_fds=1}")),
    ];
    for (name, script) in scripts {
        let (client, server) = against(BRIEF, script);
        let error = client.unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Unusable { .. } | Failure::Protocol { .. }),
            "{name}: {error:?}"
        );
        server.join().unwrap();
    }
}

#[test]
fn a_busy_server_is_reported_as_busy() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::new(stream);
        let version = raw.next();
        raw.refuse(&version, Errno::EBUSY);
    });
    assert!(client.unwrap_err().to_string().contains("has a client already"));
    server.join().unwrap();
}

/// A client that was killed counts as connected while a child process of it ends.
#[test]
fn a_server_whose_client_is_leaving_is_asked_again() {
    let scratch = Scratch::new("leaving");
    let path = scratch.socket();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let mut first = Raw::new(listener.accept().unwrap().0);
        let version = first.next();
        first.refuse(&version, Errno::EBUSY);
        Raw::open(listener.accept().unwrap().0, PLAIN)
    });
    VfioUserDevice::connect_within(&path, SOON).unwrap();
    server.join().unwrap();
}

#[test]
fn a_missed_deadline_ends_the_connection() {
    let (client, server) = against(BRIEF, |stream| {
        let mut raw = Raw::open(stream, PLAIN);
        let late = raw.next();
        // Receives nothing until the client has given up.
        assert!(raw.0.recv(soon()).is_err());
        late.header.command
    });
    let client = client.unwrap();
    let start = Instant::now();
    assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Timeout { .. })));
    assert!(start.elapsed() < SOON);
    let error = reset(&client).unwrap_err();
    assert!(
        matches!(error.failure(), Failure::Unusable { reason, .. } if reason.contains("open it again")),
        "{error}"
    );
    assert_eq!(server.join().unwrap(), command::RESET);
}

#[test]
fn mismatched_answers_end_the_connection() {
    let forgeries: [fn(Header) -> Header; 4] = [
        |header| Header { id: header.id.wrapping_add(1), ..header },
        |header| Header { command: command::SET_IRQS, ..header },
        |header| Header { flags: 3, ..header },
        |header| Header { flags: flags::REPLY | 0x4, ..header },
    ];
    for forge in forgeries {
        let (client, server) = against(SOON, move |stream| {
            let mut raw = Raw::open(stream, PLAIN);
            let request = raw.next();
            let reply = Header { flags: flags::REPLY, ..request.header };
            raw.send(forge(reply), &[], &[]);
        });
        let client = client.unwrap();
        assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Protocol { .. })));
        assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Unusable { .. })));
        server.join().unwrap();
    }
}

#[test]
fn wrong_lengths_are_protocol_errors() {
    // The size in the header, then the number of bytes sent.
    for (size, sent) in [(15, 16), (u32::MAX, 16), (16 << 20, 16), (17, 17), (31, 31), (35, 35), (40, 40)] {
        let (client, server) = against(SOON, move |stream| {
            let mut raw = Raw::open(stream.try_clone().unwrap(), PLAIN);
            let request = raw.next();
            let header = Header { flags: flags::REPLY, size, ..request.header };
            let mut bytes = [header.as_bytes(), &request.payload, &[0; 64]].concat();
            bytes.truncate(sent);
            (&stream).write_all(&bytes).unwrap();
            // Dropping the stream ends a message in the middle.
        });
        let error = client.unwrap().config_read(0, &mut [0; 4]).unwrap_err();
        assert!(matches!(error.failure(), Failure::Protocol { .. }), "{size}: {error:?}");
        server.join().unwrap();
    }
}

#[test]
fn a_connection_closed_in_a_message_is_gone() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::open(stream.try_clone().unwrap(), PLAIN);
        let request = raw.next();
        let header = Header { flags: flags::REPLY, size: 1000, ..request.header };
        (&stream).write_all(header.as_bytes()).unwrap();
    });
    let client = client.unwrap();
    assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Gone { .. })));
    assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Gone { .. })));
    server.join().unwrap();
}

#[test]
fn the_connection_survives_an_error_reply() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::open(stream, PLAIN);
        for errno in [Errno::EPERM, Errno::UnknownErrno] {
            let request = raw.next();
            raw.refuse(&request, errno);
        }
        let request = raw.next();
        raw.reply(&request, &[]);
        raw.be_set_up();
    });
    let client = client.unwrap();
    match reset(&client).unwrap_err().failure() {
        Failure::Peer { source } => assert_eq!(source.raw_os_error(), Some(libc::EPERM)),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Peer { .. })),
        "an error without a number"
    );
    reset(&client).unwrap();
    server.join().unwrap();
}

#[test]
fn unexpected_descriptors_are_closed() {
    for (count, refused) in [(3, false), (8, false), (9, true), (100, true)] {
        let (read, write) = nix::unistd::pipe().unwrap();
        let (client, server) = against(SOON, move |stream| {
            let mut raw = Raw::open(stream, PLAIN);
            let request = raw.next();
            raw.reply_with(&request, &[], &vec![write.as_fd(); count]);
        });
        let client = client.unwrap();
        let error = reset(&client).err();
        let broken = |error: &Error| matches!(error.failure(), Failure::Protocol { .. });
        assert_eq!(error.as_ref().is_some_and(broken), refused, "{count}: {error:?}");
        drop(client);
        server.join().unwrap();
        // The end of file shows that all copies of the other end are closed.
        let mut rest = std::fs::File::from(read);
        assert_eq!(rest.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn memory_is_served_by_message_without_descriptors() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::open(stream, r#"{"capabilities":{"max_msg_fds":0,"max_dma_maps":1}}"#);
        let map = raw.next();
        assert_eq!((map.header.command, map.fds.len()), (command::DMA_MAP, 0));
        let (mapped, _) = super::super::wire::split::<DmaMap>(&map.payload).unwrap();
        raw.reply(&map, &[]);
        let reset = raw.next();
        // The client waits for the answer to its reset, and answers our requests.
        let at = |address, count: u64| DmaAccess { address, count };
        let write = |raw: &mut Raw, access: DmaAccess, data: &[u8]| {
            raw.ask(command::DMA_WRITE, &[access.as_bytes(), data].concat(), &[])
        };
        let here = at(mapped.address + 4092, 4);
        assert_eq!(write(&mut raw, here, b"abcd"), Ok(here.as_bytes().to_vec()));
        let reply = raw.ask(command::DMA_READ, here.as_bytes(), &[]).unwrap();
        assert_eq!(reply, [here.as_bytes(), b"abcd"].concat());
        let bad = [
            at(mapped.address + 4093, 4),
            at(mapped.address - 1, 1),
            at(0, 1),
            at(u64::MAX, 2),
            at(u64::MAX, u64::MAX),
        ];
        for access in bad {
            assert!(raw.ask(command::DMA_READ, access.as_bytes(), &[]).is_err(), "{access:?}");
            assert!(write(&mut raw, access, b"abcd").is_err(), "{access:?}");
        }
        assert_eq!(raw.ask(command::DMA_READ, b"short", &[]), Err(Errno::EINVAL));
        assert_eq!(write(&mut raw, here, b"abc"), Err(Errno::EINVAL));
        assert_eq!(raw.ask(99, &[], &[]), Err(Errno::ENOTSUP));
        raw.reply(&reset, &[]);
        raw.be_set_up();
        assert_eq!(raw.next().header.command, command::DMA_UNMAP);
        // The unmapping is not answered: the connection just ends.
    });
    let client = client.unwrap();
    let region = client.dma().map(Memory::new(4096, PageSize::Small).unwrap()).unwrap();
    let error = client.dma().map(Memory::new(4096, PageSize::Small).unwrap()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unusable { .. }), "{error}");
    reset(&client).unwrap();
    let word = region.as_ptr().wrapping_add(4092).cast::<[u8; 4]>();
    // SAFETY: a test's own region, which nobody writes now.
    assert_eq!(unsafe { word.read_volatile() }, *b"abcd");
    drop(region);
    server.join().unwrap();
    assert!(matches!(reset(&client), Err(error) if matches!(error.failure(), Failure::Gone { .. })));
}

/// Regression: memory that a server did not release was lost for the life of the process.
#[test]
fn memory_kept_by_a_server_is_freed_at_the_end() {
    for dies in [false, true] {
        let (client, server) = against(SOON, |stream| {
            let mut raw = Raw::open(stream, PLAIN);
            let mut files = Vec::new();
            while let Ok(request) = raw.0.recv(soon()) {
                match request.header.command {
                    command::DMA_UNMAP => raw.refuse(&request, Errno::EBUSY),
                    command::RESET => break,
                    _ => raw.reply(&request, &[]),
                }
                files.extend(request.fds.iter().map(file_of));
            }
            files
        });
        let client = client.unwrap();
        let dma = client.dma().clone();
        let kept: Vec<_> =
            (0..5).map(|_| dma.map(Memory::new(4096, PageSize::Small).unwrap()).unwrap()).collect();
        let addresses: Vec<_> = kept.iter().map(|region| region.iova(0)).collect();
        drop(kept);
        let region = dma.map(Memory::new(4096, PageSize::Small).unwrap()).unwrap();
        assert!(!addresses.contains(&region.iova(0)), "the server still uses that address");
        if dies {
            // The server closes the connection, and the client notices, but still exists.
            assert!(reset(&client).is_err());
            drop(region);
            let files = server.join().unwrap();
            assert_eq!(files.len(), 6);
            assert!(files.iter().all(|&file| descriptors_of(file) == 0));
            drop((client, dma));
        } else {
            drop((region, client, dma));
            let files = server.join().unwrap();
            assert!(files.len() == 6 && files.iter().all(|&file| descriptors_of(file) == 0));
        }
    }
}

#[test]
fn endless_requests_miss_the_deadline() {
    let (client, server) = against(BRIEF, |stream| {
        let mut raw = Raw::open(stream, PLAIN);
        raw.next();
        let header = Header { command: command::DMA_READ, flags: flags::NO_REPLY, ..Header::default() };
        while raw.0.send(message(header, &[]), &[]).and_then(|()| raw.0.flush_until(soon())).is_ok() {}
    });
    assert!(
        matches!(reset(&client.unwrap()), Err(error) if matches!(error.failure(), Failure::Timeout { .. }))
    );
    server.join().unwrap();
}

#[test]
fn a_server_that_receives_no_answers_is_given_up() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::open(stream, PLAIN);
        let map = raw.next();
        let (mapped, _) = super::super::wire::split::<DmaMap>(&map.payload).unwrap();
        raw.reply(&map, &[]);
        raw.next();
        let access = DmaAccess { address: mapped.address, count: mapped.size };
        let header = Header { command: command::DMA_READ, ..Header::default() };
        let ask = message(header, &[access.as_bytes()]);
        for _ in 0..1000 {
            if raw.0.send(ask.clone(), &[]).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    });
    let client = client.unwrap();
    let region = client.dma().map(Memory::new(1 << 20, PageSize::Small).unwrap()).unwrap();
    let error = reset(&client).unwrap_err();
    assert!(matches!(error.failure(), Failure::Protocol { .. }), "{error}");
    drop((region, client));
    server.join().unwrap();
}
