//! The client against misbehaving servers: each case is an error in time, and never another request's answer.

use super::*;
use crate::{
    Error, Failure, Result,
    device::Device,
    memory::{descriptors_of, file_of},
    vfio_user::wire::{DeviceInfo, DmaAccess, DmaMap, RegionAccess, RegionInfo, region_info, vfio},
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{
    io::{Read, Write},
    os::fd::OwnedFd,
};

/// A deadline that is meant to be missed, and yet long enough for a busy machine to open the device.
const BRIEF: Duration = Duration::from_millis(300);

/// Connects a client to a server that runs `script`.
fn against<T: Send + 'static>(
    deadline: Duration,
    script: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Result<Client>, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || script(theirs));
    (Client::with_deadline(ours, "fake", None, deadline), server)
}

impl Raw {
    pub(super) fn greet(&mut self, json: &str) {
        let version = self.next();
        assert_eq!(version.header.command, command::VERSION);
        self.reply(&version, &[Version { major: MAJOR, minor: MINOR }.as_bytes(), json.as_bytes()].concat());
    }

    /// Answers all requests for opening a device.
    fn open(stream: UnixStream, json: &str) -> Self {
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

    /// Answers a client's accesses to configuration space when it opens a function without capabilities, up to its check
    /// that the command register was written.
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

const PLAIN: &str = "{}\0";

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

/// Connects a client to a server that describes each region by `describe`, with `file`, and answers reads with ones.
fn describing(file: OwnedFd, describe: impl Fn() -> Vec<u8> + Send + 'static) -> (Client, JoinHandle<()>) {
    let (client, server) = against(SOON, move |stream| {
        let mut raw = Raw::open(stream, PLAIN);
        while let Ok(request) = raw.0.recv(soon()) {
            match request.header.command {
                command::REGION_READ => raw.reply(&request, &[&request.payload[..16], &[1; 4]].concat()),
                _ => raw.reply_with(&request, &describe(), &[file.as_fd()]),
            }
        }
    });
    (client.unwrap(), server)
}

fn memfd(len: i64, flags: MFdFlags) -> OwnedFd {
    let fd = memfd_create(c"upcie-bar", MFdFlags::MFD_CLOEXEC | flags).unwrap();
    nix::unistd::ftruncate(&fd, len).unwrap();
    fd
}

/// Soundness finding 8: areas overlapped, and each by itself could take 1 GiB.
#[test]
fn invalid_areas_are_protocol_errors() {
    const MIB: u64 = 1 << 20;
    let file = memfd(8 << 40, MFdFlags::empty());
    let descriptions: [fn() -> Vec<u8>; 9] = [
        || region_info(0, 16 << 40, Some(&[(8 << 40, 0x1000)])),
        || region_info(1, 0x4000, None),
        || {
            let mut looped = region_info(0, 0x2000, Some(&[(0x1000, 0x1000)]));
            looped[36..40].copy_from_slice(&32_u32.to_le_bytes());
            looped
        },
        || {
            // Always longer than the client's limit.
            let argsz = u32::MAX;
            RegionInfo { argsz, size: 0x1000, ..RegionInfo::default() }.as_bytes().to_vec()
        },
        || region_info(0, 0x4000, Some(&[(0x1000, 0x2000), (0x2000, 0x1000)])),
        || region_info(0, 0x4000, Some(&[(0x1000, 0x1000), (0x1000, 0x1000)])),
        || region_info(0, 1 << 40, Some(&[(0, 512 * MIB), (512 * MIB, 512 * MIB), (2048 * MIB, 0x1000)])),
        || region_info(0, 1 << 40, Some(&(0..65).map(|at| (at << 20, 0x1000)).collect::<Vec<_>>())),
        || {
            RegionInfo { argsz: 32, flags: vfio::REGION_MMAP, size: 2 << 30, ..RegionInfo::default() }
                .as_bytes()
                .to_vec()
        },
    ];
    for describe in descriptions {
        let (client, server) = describing(file.try_clone().unwrap(), describe);
        assert!(matches!(client.bar(0), Err(error) if matches!(error.failure(), Failure::Protocol { .. })));
        drop(client);
        server.join().unwrap();
    }
    assert_eq!(nix::sys::stat::fstat(&file).unwrap().st_blocks, 0, "pages of it");
}

/// Soundness finding 8: mapping filled a server's file with pages.
#[test]
fn only_populated_parts_take_pages() {
    let file = memfd(1 << 30, MFdFlags::MFD_ALLOW_SEALING);
    let blocks = || nix::sys::stat::fstat(&file).unwrap().st_blocks;
    let areas = [(1 << 29, 1 << 28), (0x1000, 0x10000)];
    let (client, server) =
        describing(file.try_clone().unwrap(), move || region_info(0, 1 << 30, Some(&areas)));
    let bar = client.bar(0).unwrap();
    assert_eq!(bar.areas().iter().map(|area| area.offset).collect::<Vec<_>>(), [0x1000, 1 << 29]);
    assert_eq!(blocks(), 0);
    bar.populate(0x1004, 4);
    // Linux before 5.14 ignores the hint.
    assert!([0, 8].contains(&blocks()), "{}", blocks());
    ring(&bar.register(0x1004).unwrap(), 1);
    assert_eq!(blocks(), 8, "one page");
    drop((client, bar));
    server.join().unwrap();
}

/// Soundness finding 9: the first call on a FUSE file waits for its daemon, which is the server.
#[test]
fn a_bar_in_another_file_is_accessed_by_message() {
    let (pipe, _write) = nix::unistd::pipe().unwrap();
    let process = std::fs::File::open("/proc/self/maps").unwrap().into();
    for file in [pipe, process] {
        let (client, server) = describing(file, || region_info(0, 0x4000, Some(&[(0x1000, 0x1000)])));
        let bar = client.bar(0).unwrap();
        assert!(bar.areas().is_empty());
        assert_eq!(bar.read_u32(0x1000).unwrap(), 0x0101_0101);
        let reason = bar.unmapped_reason().unwrap();
        assert!(reason.contains("not one of memory") && reason.contains("/dev/shm"), "{reason}");
        drop((client, bar));
        server.join().unwrap();
    }
}

/// Soundness finding 7: a server that shrinks its BAR's file ends its client with SIGBUS.
#[test]
fn a_sealable_bar_is_sealed() {
    let file = memfd(0x4000, MFdFlags::MFD_ALLOW_SEALING);
    let (client, server) =
        describing(file.try_clone().unwrap(), || region_info(0, 0x4000, Some(&[(0x1000, 0x1000)])));
    let bar = client.bar(0).unwrap();
    assert_eq!(nix::unistd::ftruncate(&file, 0), Err(Errno::EPERM));
    ring(&bar.register(0x1000).unwrap(), 1);
    drop((client, bar));
    server.join().unwrap();
}

/// Soundness finding 7: in a program without a handler of SIGBUS such a file is not mapped. `hostile_server` in tests/
/// has the cases with a handler.
#[test]
fn a_shrinkable_bar_is_accessed_by_message() {
    let file = memfd(0x4000, MFdFlags::empty());
    let (client, server) =
        describing(file.try_clone().unwrap(), || region_info(0, 0x4000, Some(&[(0x1000, 0x1000)])));
    let bar = client.bar(0).unwrap();
    assert!(bar.areas().is_empty());
    nix::unistd::ftruncate(&file, 0).unwrap();
    assert_eq!(bar.read_u32(0x1000).unwrap(), 0x0101_0101);
    let reason = bar.unmapped_reason().unwrap();
    assert!(reason.contains("shrink") && reason.contains("survive_shrinking"), "{reason}");
    drop((client, bar));
    server.join().unwrap();
}

#[test]
fn accesses_are_split_by_the_servers_limit() {
    let (client, server) = against(SOON, |stream| {
        let mut raw = Raw::open(stream, r#"{"capabilities":{"max_data_xfer_size":100}}"#);
        let mut counts = Vec::new();
        while let Ok(request) = raw.0.recv(soon()) {
            let (access, data) = super::super::wire::split::<RegionAccess>(&request.payload).unwrap();
            counts.push((request.header.command, access.offset, access.count));
            let mut reply = access.as_bytes().to_vec();
            if request.header.command == command::REGION_READ {
                reply.extend((0..access.count).map(|at| (access.offset as u32 + at) as u8));
            } else {
                assert_eq!(data.len(), access.count as usize);
            }
            raw.reply(&request, &reply);
        }
        counts
    });
    let client = client.unwrap();
    let mut data = [0; 250];
    client.config_read(8, &mut data).unwrap();
    assert!(data.iter().enumerate().all(|(at, &byte)| byte == 8_u8.wrapping_add(at as u8)));
    config_write(&client, 0, &data[..101]).unwrap();
    drop(client);
    let (read, write) = (command::REGION_READ, command::REGION_WRITE);
    let expected = [(read, 8, 100), (read, 108, 100), (read, 208, 50), (write, 0, 100), (write, 100, 1)];
    // The later accesses turn bus mastering off.
    assert!(server.join().unwrap().starts_with(&expected));
}

/// Soundness finding 8: a server's limits multiplied the messages of an access, each with a deadline of its own.
#[test]
fn an_access_of_many_messages_has_one_deadline() {
    let json = r#"{"capabilities":{"max_data_xfer_size":8}}"#;
    let (client, server) = against(Duration::from_millis(300), move |stream| {
        let mut raw = Raw::open(stream, json);
        let mut answers = 0;
        while let Ok(request) = raw.0.recv(soon()) {
            // Slow on purpose: a fifth of the deadline for each.
            std::thread::sleep(Duration::from_millis(60));
            if raw
                .0
                .send(
                    message(
                        Header { flags: flags::REPLY, ..request.header },
                        &[&request.payload[..16], &[0; 8]],
                    ),
                    &[],
                )
                .is_err()
            {
                break;
            }
            answers += 1;
        }
        answers
    });
    let client = client.unwrap();
    let error = client.config_read(0, &mut [0; 4096]).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error:?}");
    drop(client);
    // Five within the deadline, and one when the client turns bus mastering off.
    assert!(server.join().unwrap() <= 6);

    let json = r#"{"capabilities":{"max_data_xfer_size":7}}"#;
    let (client, server) = against(SOON, move |stream| Raw::new(stream).greet(json));
    assert!(client.unwrap_err().to_string().contains("less than 8 bytes"));
    server.join().unwrap();
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

/// Soundness finding 13: memory that a server did not release was lost for the life of the process.
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
