//! Commands with scatter gather lists: their data, and a status for each wrong list.

use super::host::{Host, PAGE, Queue, exact};
use crate::spec::{
    Cns, Command, DatasetRange, FromBytes, IdentifyController, IntoBytes, SglDescriptor, Status,
};

/// The offset of the lists, at the end of the data.
const LISTS: usize = 7 << 20;

fn block(address: u64, length: u32) -> SglDescriptor {
    SglDescriptor::new(SglDescriptor::DATA_BLOCK, address, length)
}

fn bucket(length: u32) -> SglDescriptor {
    SglDescriptor::new(SglDescriptor::BIT_BUCKET, 0, length)
}

/// Puts descriptors at `at` of the data; returns the descriptor of the segment that they are.
fn segment(host: &Host, kind: u8, at: usize, descriptors: &[SglDescriptor]) -> SglDescriptor {
    host.set(at, descriptors.as_bytes());
    SglDescriptor::new(kind, host.iova(at), size_of_val(descriptors) as u32)
}

fn last(host: &Host, descriptors: &[SglDescriptor]) -> SglDescriptor {
    segment(host, SglDescriptor::LAST_SEGMENT, LISTS, descriptors)
}

fn transfer(queue: &mut Queue, mut command: Command, first: SglDescriptor) -> Status {
    command.set_sgl(first);
    queue.status(command)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| ((at as u64 * 2_654_435_761) >> 7) as u8 ^ seed).collect()
}

#[test]
fn lists_move_the_right_bytes() {
    let mut host = Host::new("size=4M");
    let mut queue = host.queue(1, [8, 8], None);
    let data = pattern(64 << 10, 3);
    // Pieces of any length at any address, over two segments.
    let lens = [1, 511, 3, 4096, 5000, 13, 40_000, 1, 1, 15_910];
    assert_eq!(lens.iter().sum::<usize>(), data.len());
    let (mut at, mut places) = (1, Vec::new());
    for len in lens {
        places.push((at, len));
        at += len + 77;
    }
    let blocks: Vec<_> = places.iter().map(|&(at, len)| block(host.iova(at), len as u32)).collect();
    let second = segment(&host, SglDescriptor::LAST_SEGMENT, LISTS + PAGE, &blocks[4..]);
    let first = [&blocks[..4], &[second]].concat();
    let first = segment(&host, SglDescriptor::SEGMENT, LISTS + 8, &first);
    let mut done = 0;
    for &(at, len) in &places {
        host.set(at, &data[done..done + len]);
        done += len;
    }
    assert_eq!(transfer(&mut queue, Command::write(1, 5, 128), first), Status::SUCCESS);
    host.set(0, &vec![0xee; at]);
    assert_eq!(transfer(&mut queue, Command::read(1, 5, 128), first), Status::SUCCESS);
    let mut done = 0;
    for &(at, len) in &places {
        assert!(host.bytes(at, len) == data[done..done + len], "{len} bytes at {at}");
        assert_eq!(host.bytes(at + len, 77), [0xee; 77], "bytes behind {at}");
        done += len;
    }
    // One block, as by PRPs, and with the metadata pointer of an SGL.
    let whole = block(host.iova(7), data.len() as u32);
    assert_eq!(transfer(&mut queue, Command::read(1, 5, 128), whole), Status::SUCCESS);
    assert!(host.bytes(7, data.len()) == data);
    let mut command = Command::read(1, 5, 128);
    command.set_sgl(block(host.iova(PAGE), data.len() as u32));
    command.flags = Command::PSDT_SGL_METADATA;
    assert_eq!(queue.status(command), Status::SUCCESS);
    assert!(host.bytes(PAGE, data.len()) == data);
}

#[test]
fn bit_buckets_discard_data_of_reads_alone() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    let data = pattern(1024, 9);
    host.set(0, &data);
    // In a write a bucket has no effect, whatever its length.
    let list = last(&host, &[block(host.iova(0), 1000), bucket(u32::MAX), block(host.iova(1000), 24)]);
    assert_eq!(transfer(&mut queue, Command::write(1, 0, 2), list), Status::SUCCESS);
    host.set(0, &[0xee; 2048]);
    let list = last(&host, &[bucket(100), block(host.iova(0), 24), bucket(899), block(host.iova(512), 1)]);
    assert_eq!(transfer(&mut queue, Command::read(1, 0, 2), list), Status::SUCCESS);
    assert_eq!((host.bytes(0, 24), host.bytes(512, 1)), (data[100..124].to_vec(), data[1023..].to_vec()));
    assert_eq!((host.bytes(24, 488), host.bytes(513, 512)), (vec![0xee; 488], vec![0xee; 512]));
    assert_eq!(transfer(&mut queue, Command::read(1, 0, 2), bucket(1024)), Status::SUCCESS);
    assert_eq!(
        exact(transfer(&mut queue, Command::write(1, 0, 2), bucket(1024))).0,
        Status::DATA_SGL_LENGTH_INVALID
    );
}

#[test]
fn each_wrong_list_has_its_status() {
    let mut host = Host::new("size=1M,mdts=64K");
    let mut queue = host.queue(1, [8, 8], None);
    let nowhere = 0x7fff_0000_0000;
    let kind = |kind, host: &Host| SglDescriptor::new(kind, host.iova(LISTS), 16);
    let good = block(host.iova(0), 512);
    let lead = |kind: u8, at: u64, length| SglDescriptor::new(kind, at, length);
    let (next, end) = (SglDescriptor::SEGMENT, SglDescriptor::LAST_SEGMENT);
    let mut offset = good;
    offset.identifier = 1;
    let cases: &[(&str, &[SglDescriptor], Option<SglDescriptor>, Status)] = &[
        ("too short", &[block(host.iova(0), 511)], None, Status::DATA_SGL_LENGTH_INVALID),
        ("too long", &[block(host.iova(0), 513)], None, Status::DATA_SGL_LENGTH_INVALID),
        ("no data", &[block(host.iova(0), 0)], None, Status::DATA_SGL_LENGTH_INVALID),
        ("more after all", &[good, block(host.iova(0), 1)], None, Status::DATA_SGL_LENGTH_INVALID),
        ("a keyed block", &[kind(4, &host)], None, Status::SGL_TYPE_INVALID),
        ("a transport block", &[kind(5, &host)], None, Status::SGL_TYPE_INVALID),
        ("a vendor's type", &[kind(15, &host)], None, Status::SGL_TYPE_INVALID),
        ("an offset", &[offset], None, Status::SGL_TYPE_INVALID),
        ("an offset in the command", &[], Some(offset), Status::SGL_TYPE_INVALID),
        ("an empty segment", &[good], Some(lead(end, host.iova(LISTS), 0)), Status::INVALID_SGL_SEGMENT),
        ("half a descriptor", &[good], Some(lead(end, host.iova(LISTS), 24)), Status::INVALID_SGL_SEGMENT),
        ("an odd address", &[good], Some(lead(end, host.iova(LISTS) + 4, 16)), Status::INVALID_SGL_SEGMENT),
        ("no last segment", &[good], Some(lead(next, host.iova(LISTS), 16)), Status::INVALID_SGL_SEGMENT),
        (
            "a segment after the last",
            &[good, lead(end, host.iova(LISTS), 16)],
            None,
            Status::INVALID_SGL_SEGMENT,
        ),
        ("a segment within one", &[lead(next, host.iova(LISTS), 16), good], None, Status::INVALID_SGL_COUNT),
        (
            "more than there may be",
            &[],
            Some(lead(end, host.iova(LISTS), 1 << 21)),
            Status::INVALID_SGL_COUNT,
        ),
        ("a list nowhere", &[], Some(lead(end, nowhere, 16)), Status::DATA_TRANSFER_ERROR),
        ("data nowhere", &[block(nowhere, 512)], None, Status::DATA_TRANSFER_ERROR),
        ("data beyond all addresses", &[block(u64::MAX - 100, 512)], None, Status::DATA_TRANSFER_ERROR),
    ];
    for &(what, descriptors, first, wanted) in cases {
        let list = if descriptors.is_empty() { good } else { last(&host, descriptors) };
        for command in [Command::read(1, 0, 1), Command::write(1, 0, 1)] {
            let (status, never_again) = exact(transfer(&mut queue, command, first.unwrap_or(list)));
            assert_eq!(status, wanted, "{what}");
            assert_eq!(never_again, wanted != Status::DATA_TRANSFER_ERROR, "{what}");
        }
    }
    // A list that leads to itself.
    let round = segment(&host, next, LISTS, &[good, lead(next, host.iova(LISTS), 32)]);
    assert_eq!(exact(transfer(&mut queue, Command::read(1, 0, 1), round)).0, Status::DATA_SGL_LENGTH_INVALID);
    let empty = segment(&host, next, LISTS, &[block(0, 0), lead(next, host.iova(LISTS), 32)]);
    assert_eq!(exact(transfer(&mut queue, Command::read(1, 0, 1), empty)).0, Status::INVALID_SGL_COUNT);
    // The rules for the command come first, as with PRPs.
    assert_eq!(exact(transfer(&mut queue, Command::read(1, 0, 129), good)).0, Status::INVALID_FIELD);
    assert_eq!(exact(transfer(&mut queue, Command::read(1, 2048, 1), good)).0, Status::LBA_OUT_OF_RANGE);
    let mut reserved = Command { flags: 0xc0, ..Command::read(1, 0, 1) };
    reserved.set_data_pointer(good.words().0, good.words().1);
    assert_eq!(exact(queue.status(reserved)), (Status::INVALID_FIELD, true));
    host.alive();
}

#[test]
fn other_commands_take_lists_too() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    host.set(0, &[7; 2048]);
    assert_eq!(transfer(&mut queue, Command::write(1, 0, 4), block(host.iova(0), 2048)), Status::SUCCESS);
    let ranges = [DatasetRange::new(0, 1), DatasetRange::new(2, 1)];
    host.set(PAGE + 3, ranges.as_bytes());
    let list = last(&host, &[block(host.iova(PAGE + 3), 20), block(host.iova(PAGE + 23), 12)]);
    assert_eq!(transfer(&mut queue, Command::deallocate(1, 2), list), Status::SUCCESS);
    assert_eq!(transfer(&mut queue, Command::read(1, 0, 4), block(host.iova(0), 2048)), Status::SUCCESS);
    let wanted: Vec<u8> = [0, 7, 0, 7].iter().flat_map(|&byte| [byte; 512]).collect();
    assert!(host.bytes(0, 2048) == wanted);
    // Commands without data.
    for command in [Command::flush(1), Command::write_zeroes(1, 0, 1)] {
        assert_eq!(transfer(&mut queue, command, block(0, 0)), Status::SUCCESS);
    }
}

#[test]
fn the_announcement_is_kept() {
    for (options, announced, odd, dwords) in [
        ("size=1M", 1 | 1 << 16 | 1 << 19, Status::SUCCESS, Status::SUCCESS),
        ("size=1M,sgl=dwords", 2 | 1 << 16 | 1 << 19, Status::SGL_GRANULARITY_INVALID, Status::SUCCESS),
        ("size=1M,sgl=false", 0, Status::INVALID_FIELD, Status::INVALID_FIELD),
        ("size=1M,null=true", 1 | 1 << 16 | 1 << 19, Status::SUCCESS, Status::SUCCESS),
    ] {
        let mut host = Host::new(options);
        let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
        let identify = IdentifyController::read_from_bytes(&page[..]).unwrap();
        assert_eq!((identify.sgls, identify.supports_sgls()), (announced, announced != 0), "{options}");
        let mut queue = host.queue(1, [8, 8], None);
        for (at, wanted) in [(2, odd), (4, dwords)] {
            let first = block(host.iova(at), 512);
            assert_eq!(exact(transfer(&mut queue, Command::read(1, 0, 1), first)).0, wanted, "{options}");
        }
        // Lists are for I/O alone.
        let mut identify = Command::identify(Cns::CONTROLLER, 0, 0);
        identify.set_sgl(block(host.iova(0), 4096));
        assert_eq!(exact(host.admin.status(identify)).0, Status::INVALID_FIELD);
    }
}
