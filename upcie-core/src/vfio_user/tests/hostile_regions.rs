//! The client against servers whose regions are wrong or slow: invalid areas, files that it must not map, tiny limits.

use super::{
    hostile_server::{PLAIN, against},
    *,
};
use crate::{
    Failure,
    memory::other_files,
    vfio_user::wire::{RegionAccess, RegionInfo, region_info, vfio},
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::OwnedFd;

/// Connects a client to a server that describes each region by `describe`, with `file`, and answers reads with ones.
fn describing(
    file: OwnedFd,
    describe: impl Fn() -> Vec<u8> + Send + 'static,
) -> (VfioUserDevice, JoinHandle<()>) {
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

/// Regression: areas overlapped, and each by itself could take 1 GiB.
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

/// Regression: mapping filled a server's file with pages.
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

/// The first call on a FUSE file waits for its daemon, which is the server, so such a file is not mapped.
#[test]
fn a_bar_in_another_file_is_accessed_by_message() {
    for file in other_files() {
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

/// A server that shrinks its BAR's file ends its client by SIGBUS, so the client seals the file.
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

/// A program without a handler of SIGBUS does not map a file that can shrink. `host_shrinking` in tests/ has the cases
/// with a handler.
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

/// A seal does not keep a server from punching holes into huge pages: a client without a handler of SIGBUS maps none.
#[test]
fn a_bar_of_huge_pages_is_accessed_by_message() {
    if PageSize::Huge2M.available().is_none() {
        return println!("left out: no 2 MiB pages");
    }
    // The file takes no page of the pool before it is mapped.
    let huge = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd(2 << 20, huge);
    let (client, server) = describing(file, || region_info(0, 2 << 20, Some(&[(0, 2 << 20)])));
    let bar = client.bar(0).unwrap();
    assert!(bar.areas().is_empty());
    assert_eq!(bar.read_u32(0x1000).unwrap(), 0x0101_0101);
    let reason = bar.unmapped_reason().unwrap();
    assert!(reason.contains("huge pages") && reason.contains("survive_shrinking"), "{reason}");
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

/// Regression: a server's limits multiplied the messages of an access, each with a deadline of its own.
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
