use super::{
    SharedRegion,
    message::{Description, HEADER, Header, MAX_NAME},
};
use crate::{
    Failure, Result,
    dma::{Addresses, DmaSpace, Heap, Region},
    memory::{Memory, PageSize, descriptors_of, file_of, host_page_size, other_files},
    socket::send_some,
    testing::FakeIommu,
};
use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(50);

fn space() -> Arc<DmaSpace> {
    DmaSpace::new("test", [1 << 30..=u64::MAX >> 16], 4096, Box::new(FakeIommu::default()))
}

fn region(pages: usize) -> Region {
    space().allocate_shared(pages * host_page_size(), Some(PageSize::Small)).unwrap()
}

#[test]
fn an_imported_region_has_the_same_memory_and_addresses() {
    let region = region(4);
    let (owner, user) = UnixStream::pair().unwrap();
    region.export(&owner, SOON).unwrap();
    // Bytes after the message are left for the two processes.
    send_some(&owner, b"more", &[]).unwrap();
    let mut shared = SharedRegion::import(&user, Duration::MAX).unwrap();
    let mut more = [0; 4];
    std::io::Read::read_exact(&mut &user, &mut more).unwrap();
    assert_eq!(&more, b"more");

    assert_eq!((shared.id(), shared.len(), shared.device()), (region.id(), region.len(), "test"));
    assert_eq!((shared.page_size(), shared.is_physical()), (PageSize::Small, false));
    assert_eq!(shared.addresses(), region.addresses());
    assert_eq!(shared.iova(5000).unwrap(), region.iova(5000));

    // A buffer of the owner through the region: each side sees the other's writes.
    let lists = Heap::private(region.space(), Some(PageSize::Small), false);
    let heap = Heap::over(region, None, &lists).unwrap();
    let _first = heap.alloc(512).unwrap();
    let mut buf = heap.alloc(1000).unwrap();
    assert_eq!(buf.region().map(|region| region.id()), Some(shared.id()));
    let at = buf.offset_in_region();
    assert_eq!(shared.iova(at).unwrap(), buf.iova(0));
    shared.write_at(at + 3, b"from the user").unwrap();
    let mut bytes = [0; 13];
    buf.read_at(3, &mut bytes);
    assert_eq!(&bytes, b"from the user");
    buf.write_at(101, b"from the owner");
    let mut bytes = [0; 14];
    shared.read_at(at + 101, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from the owner");
    let part = buf.slice(100..200);
    assert_eq!(part.offset_in_region(), at + 100);
    assert!(part.is_shared() && !part.is_device_memory());
}

#[test]
fn a_shared_buffer_gives_no_slice_and_holds_no_lists() {
    let region = region(4);
    let lists = Heap::private(region.space(), Some(PageSize::Small), false);
    let heap = Heap::over(region, None, &lists).unwrap();
    let mut buf = heap.alloc(512).unwrap();
    buf.fill(7);
    assert!(buf.as_slice().is_none(), "a reference to bytes that another process may change");
    assert!(buf.as_mut_slice().is_none());
    assert_eq!(buf.to_vec(), [7; 512]);
    let other = heap.space().allocate_shared(1, Some(PageSize::Small)).unwrap();
    let error = Heap::over(other, None, &heap).unwrap_err().to_string();
    assert!(error.contains("nobody else"), "{error}");
}

#[test]
fn only_shared_memory_is_exported() {
    let region = space().allocate(4096, Some(PageSize::Small)).unwrap();
    let (owner, _user) = UnixStream::pair().unwrap();
    let error = region.export(&owner, SOON).unwrap_err().to_string();
    assert!(error.contains("allocate_shared"), "{error}");
}

/// Checks that the owner's end is noticed. A child forked by another test may hold the owner's end for a moment.
fn assert_gone(shared: &SharedRegion) {
    let end = Instant::now() + SOON;
    let error = loop {
        match shared.check() {
            Ok(()) if Instant::now() < end => std::thread::yield_now(),
            other => break other.expect_err("it is gone"),
        }
    };
    assert!(matches!(error.failure(), Failure::Gone { .. }), "{error}");
}

#[test]
fn an_owners_end_is_an_error_and_no_fault() {
    let region = region(2);
    let file = file_of(region.memory().unwrap().shared_file().unwrap());
    let (owner, user) = UnixStream::pair().unwrap();
    region.export(&owner, SOON).unwrap();
    let mut shared = SharedRegion::import(&user, SOON).unwrap();
    shared.check().unwrap();
    shared.write_at(4000, &[7; 200]).unwrap();
    drop((region, owner));
    assert_eq!(descriptors_of(file), 0, "the mapping alone holds the file");
    assert_gone(&shared);
    let mut bytes = [0; 200];
    shared.read_at(4000, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 200]);
    shared.write_at(0, b"still there").unwrap();
}

#[test]
fn a_half_closed_connection_takes_the_region_back() {
    let region = region(1);
    let (owner, user) = UnixStream::pair().unwrap();
    region.export(&owner, SOON).unwrap();
    let shared = SharedRegion::import(&user, SOON).unwrap();
    owner.shutdown(std::net::Shutdown::Write).unwrap();
    assert_gone(&shared);
}

#[test]
fn accesses_outside_of_the_region_are_refused() {
    let region = region(1);
    let (owner, user) = UnixStream::pair().unwrap();
    region.export(&owner, SOON).unwrap();
    let mut shared = SharedRegion::import(&user, SOON).unwrap();
    let len = shared.len();
    for (offset, bytes) in [(len, 1), (len - 3, 4), (usize::MAX, 1), (usize::MAX - 1, 4)] {
        let mut data = [0; 4];
        assert!(
            matches!(shared.read_at(offset, &mut data[..bytes]), Err(error) if matches!(error.failure(), Failure::OutOfRange { .. }))
        );
        assert!(
            matches!(shared.write_at(offset, &data[..bytes]), Err(error) if matches!(error.failure(), Failure::OutOfRange { .. }))
        );
    }
    shared.read_at(len, &mut []).unwrap();
    assert!(shared.iova(len).is_err());
}

#[test]
fn import_and_export_keep_their_deadline() {
    let region = region(1);
    let (owner, user) = UnixStream::pair().unwrap();
    let start = Instant::now();
    assert!(
        matches!(SharedRegion::import(&user, SHORT), Err(error) if matches!(error.failure(), Failure::Timeout { .. }))
    );
    send_some(&owner, &description(1).encode().unwrap()[..HEADER + 3], &[]).unwrap();
    assert!(
        matches!(SharedRegion::import(&user, SHORT), Err(error) if matches!(error.failure(), Failure::Timeout { .. })),
        "half a message"
    );
    // Fill the socket: nobody receives.
    while send_some(&owner, &[0; 4096], &[]).unwrap() > 0 {}
    assert!(
        matches!(region.export(&owner, SHORT), Err(error) if matches!(error.failure(), Failure::Timeout { .. }))
    );
    assert!(start.elapsed() >= 3 * SHORT && start.elapsed() < SOON);
    drop(user);
    // A child forked by another test may hold the other end for a moment.
    while !matches!(region.export(&owner, SHORT), Err(error) if matches!(error.failure(), Failure::Gone { .. }))
    {
        assert!(start.elapsed() < 2 * SOON, "the end is not noticed");
    }
    assert!(
        matches!(SharedRegion::import(&owner, SHORT), Err(error) if matches!(error.failure(), Failure::Gone { .. }))
    );
}

/// Makes a description of `pages` small pages.
fn description(pages: usize) -> Description {
    Description {
        id: 9,
        len: pages * host_page_size(),
        page: PageSize::Small,
        physical: false,
        addresses: Addresses::Linear(1 << 30),
        device: "test".into(),
    }
}

/// Imports these bytes with these descriptors, after which the sender is gone. With `own`, the sender counts as this
/// process.
fn import_as(own: bool, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<SharedRegion> {
    let (owner, user) = UnixStream::pair().unwrap();
    if !bytes.is_empty() {
        assert_eq!(send_some(&owner, bytes, fds).unwrap(), bytes.len());
    }
    drop(owner);
    let socket = file_of(&user);
    let result = SharedRegion::receive(&user, own, SOON);
    drop(user);
    assert_eq!(descriptors_of(socket), usize::from(result.is_ok()), "the connection");
    result
}

fn import(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<SharedRegion> {
    import_as(true, bytes, fds)
}

/// Closing a FUSE file can block for ever, so a foreign one must not get into this process. Files of other kinds stand
/// for it: [`other_files`] says why they are equal.
#[test]
fn foreign_descriptors_are_inspected_by_a_child() {
    let memory = Memory::new(1, PageSize::Small).unwrap().shared();
    let fd = memory.shared_file().unwrap();
    let (pipe, _write) = nix::unistd::pipe().unwrap();
    let file = file_of(&pipe);
    let (good, before) = (description(1).encode().unwrap(), descriptors_of(file));
    let (owner, user) = UnixStream::pair().unwrap();
    assert_eq!(send_some(&owner, &good[..1], &[pipe.as_fd()]), Ok(1));
    assert_eq!(send_some(&owner, &good[1..], &[]), Ok(good.len() - 1));
    let importing = std::thread::spawn(move || SharedRegion::receive(&user, false, SOON));
    // The sender's pipe is open in this process; a second descriptor of it must never appear.
    while !importing.is_finished() {
        assert_eq!(descriptors_of(file), before);
    }
    let error = importing.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("only a memory file"), "{error}");
    for other in other_files() {
        let error = import_as(false, &good, &[other.as_fd()]).unwrap_err().to_string();
        assert!(error.contains("only a memory file"), "{other:?}: {error}");
    }
    for (fds, words) in [
        (vec![], "no descriptor"),
        (vec![fd, fd], "more than one"),
        (vec![fd, pipe.as_fd()], "more than one"),
        (vec![fd; 9], "could not be received"),
    ] {
        let error = import_as(false, &good, &fds).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(import_as(false, &good, &[fd]).unwrap().len(), host_page_size());
}

#[test]
fn invalid_messages_are_errors_and_leak_nothing() {
    let memory = Memory::new(1, PageSize::Small).unwrap().shared();
    let other = File::open("/proc/self/maps").unwrap();
    let fd = memory.shared_file().unwrap();
    let file = file_of(fd);
    let large = Memory::new(2 * host_page_size(), PageSize::Small).unwrap().shared();
    let good = description(1).encode().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut message = good.clone();
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    let two = Description { device: String::new(), ..description(2) };
    let pages = Description {
        addresses: Addresses::Pages { shift: 12, pages: [1 << 30].into() },
        page: PageSize::Huge2M,
        len: 2 << 20,
        ..description(1)
    };
    // Offsets: magic 0, version 8, flags 10, name 12, addresses 16, reserved 20, id 24, length 32, page 40, table 48.
    let cases: Vec<(&str, Vec<u8>, Vec<BorrowedFd<'_>>, &str)> = vec![
        ("nothing", vec![], vec![], "gone"),
        ("a header cut short", good[..HEADER - 1].to_vec(), vec![fd], "gone"),
        ("a table cut short", good[..HEADER + 7].to_vec(), vec![fd], "gone"),
        ("garbage", vec![0xa5; 4096], vec![fd], "not the description"),
        ("another version", with(8, &[2, 0]), vec![fd], "version 2"),
        ("unknown flags", with(10, &[4, 0]), vec![fd], "unknown flags"),
        ("a reserved field", with(20, &[1]), vec![fd], "unknown flags"),
        ("a huge name", with(12, &u32::MAX.to_ne_bytes()), vec![fd], "name"),
        ("a huge table", with(16, &u32::MAX.to_ne_bytes()), vec![fd], "more addresses"),
        ("no table", with(16, &[0; 4]), vec![fd], "another length"),
        ("a longer table", with(16, &2_u32.to_ne_bytes()), vec![fd], "another length"),
        ("no bytes", with(32, &[0; 8]), vec![fd], "whole pages"),
        ("a part of a page", with(32, &1_u64.to_ne_bytes()), vec![fd], "whole pages"),
        ("a huge length", with(32, &u64::MAX.to_ne_bytes()), vec![fd], "more bytes"),
        ("a page of size 0", with(40, &[0; 8]), vec![fd], "pages of an unknown size"),
        ("a page of an odd size", with(40, &8193_u64.to_ne_bytes()), vec![fd], "pages of an unknown size"),
        ("an unaligned address", with(48, &5_u64.to_ne_bytes()), vec![fd], "not aligned"),
        ("an address at the end", with(48, &[0, 0xf0, 255, 255, 255, 255, 255, 255]), vec![fd], ""),
        ("a name that is not text", with(56, &[0xff]), vec![fd], "not text"),
        ("a name with a newline", with(56, b"\n"), vec![fd], "not text"),
        ("a longer region than its file", two.encode().unwrap(), vec![fd], "not as long"),
        ("a part of its file", good.clone(), vec![large.shared_file().unwrap()], "not as long"),
        ("pages of another size than the file's", pages.encode().unwrap(), vec![fd], "another size"),
        ("no descriptor", good.clone(), vec![], "no descriptor"),
        ("two descriptors", good.clone(), vec![fd, fd], "more than one"),
        ("three descriptors", good.clone(), vec![fd, fd, other.as_fd()], "more than one"),
        ("too many descriptors", good.clone(), vec![fd; 100], "more descriptors"),
        ("no memory file", good.clone(), vec![other.as_fd()], "only a memory file"),
    ];
    for (what, bytes, fds, words) in cases {
        let before = descriptors_of(file);
        let result = import(&bytes, &fds);
        if what == "an address at the end" {
            // The last page of the address space is valid.
            result.unwrap();
        } else {
            let error = result.expect_err(what).to_string();
            assert!(error.contains(words), "{what}: {error}");
        }
        assert_eq!(descriptors_of(file), before, "{what}");
    }
    import(&good, &[fd]).unwrap();
}

#[test]
fn files_that_may_shrink_or_have_holes_are_refused() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let good = description(1).encode().unwrap();
    for (flags, words) in [(MFdFlags::empty(), "shrink"), (MFdFlags::MFD_ALLOW_SEALING, "holes")] {
        let fd = memfd_create(c"upcie-test", flags | MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, host_page_size() as i64).unwrap();
        let error = import(&good, &[fd.as_fd()]).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert_eq!(descriptors_of(file_of(&fd)), 1);
    }
}

#[test]
fn a_table_of_pages_is_encoded_and_decoded() {
    let pages: Box<[u64]> = [0x4000_0000, 0x1000_0000, 0x20_0000].into();
    let device = "0000:01:00.0\n".repeat(50);
    let sent = Description {
        id: u64::MAX,
        len: 3 * (2 << 20),
        page: PageSize::Huge2M,
        physical: true,
        addresses: Addresses::Pages { shift: 21, pages },
        device: device.clone(),
    };
    let bytes = sent.encode().unwrap();
    let (head, tail) = bytes.split_first_chunk().unwrap();
    let header = Header::parse(head).unwrap();
    assert_eq!(header.tail(), tail.len());
    let got = header.describe(tail).unwrap();
    assert_eq!(got.device, device.replace('\n', "?")[..MAX_NAME]);
    assert_eq!(got, Description { device: got.device.clone(), ..sent });
}

#[test]
fn random_messages_leak_no_descriptors() {
    let memory = Memory::new(3 * host_page_size(), PageSize::Small).unwrap().shared();
    let fd = memory.shared_file().unwrap();
    let file = file_of(fd);
    let good = description(3).encode().unwrap();
    let mut state = 88_172_645_463_325_252_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % n
    };
    let (mut regions, mut errors) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..below(4) {
            let at = below(bytes.len());
            bytes[at] = match below(3) {
                0 => below(256) as u8,
                1 => bytes[at] ^ (1 << below(8)),
                _ => [0, 1, 0x7f, 0xff][below(4)],
            };
        }
        bytes.truncate(1 + below(bytes.len() * 3));
        let fds = vec![fd; [1, 1, 1, 0, 2][below(5)]];
        match import(&bytes, &fds) {
            Ok(mut shared) => {
                regions += 1;
                let last = shared.len() - 1;
                shared.write_at(last, &[1]).unwrap();
                shared.iova(last).unwrap();
            }
            Err(_) => errors += 1,
        }
    }
    assert_eq!(descriptors_of(file), 1);
    assert!(regions > 100 && errors > 100, "{regions} regions, {errors} errors");
}
