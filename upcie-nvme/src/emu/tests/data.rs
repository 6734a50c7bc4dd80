//! Reads and writes: every shape of data pointer, and every limit.

use super::host::{Host, PAGE, Queue, exact};
use crate::spec::{ALL_NAMESPACES, Command, Status};

pub(super) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| ((at as u64 * 2_654_435_761) >> 7) as u8 ^ seed).collect()
}

/// Writes `list` as a PRP list at `at` of the data.
fn put_list(host: &Host, at: usize, list: &[u64]) {
    let bytes: Vec<u8> = list.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    host.set(at, &bytes);
}

/// The offset of the lists, at the end of the data.
const LISTS: usize = 7 << 20;

/// Makes a data pointer for `len` bytes that start `offset` bytes into the page `pages[0]`. The list starts
/// `skip` entries into its page.
pub(super) fn pointer(host: &Host, pages: &[usize], offset: usize, len: usize, skip: usize) -> (u64, u64) {
    let first = host.iova(pages[0] * PAGE + offset);
    let count = (offset + len).div_ceil(PAGE);
    match count {
        1 => (first, 0xdead_beef_0000_0001),
        2 => (first, host.iova(pages[1] * PAGE)),
        _ => {
            let mut entries = pages[1..count].iter().map(|page| host.iova(page * PAGE)).peekable();
            let (mut at, start) = (LISTS + skip * 8, LISTS + skip * 8);
            while entries.peek().is_some() {
                let room = (PAGE - at % PAGE) / 8;
                let rest = entries.len();
                let take = if rest > room { room - 1 } else { rest };
                let mut list: Vec<u64> = entries.by_ref().take(take).collect();
                // The lists' pages lie apart, too.
                let next = at - at % PAGE + 2 * PAGE;
                if rest > room {
                    list.push(host.iova(next));
                }
                put_list(host, at, &list);
                at = next;
            }
            (first, host.iova(start))
        }
    }
}

pub(super) fn transfer(queue: &mut Queue, command: Command, pointer: (u64, u64)) -> Status {
    let mut command = command;
    command.set_data_pointer(pointer.0, pointer.1);
    queue.status(command)
}

#[test]
fn every_shape_of_prp_moves_the_right_bytes() {
    let mut host = Host::new("size=16M,mdts=4M");
    let mut queue = host.queue(1, [8, 8], None);
    let together: Vec<usize> = (1..1100).collect();
    let apart: Vec<usize> = (0..1100).map(|at| (at * 7 + 1) % 1499).collect();
    for (pages, shape) in [(&together, "together"), (&apart, "apart")] {
        for (len, offset, skip) in [
            (512, 0, 0),
            (512, 4, 0),
            (512, 3584, 0),
            (512, 3588, 0),
            (4096, 0, 0),
            (4096, 2048, 0),
            (8192, 0, 0),
            (8192, 4, 0),
            (12288, 0, 0),
            (65536, 512, 5),
            (65536, 0, 511),
            (65536, 0, 510),
            (2 << 20, 0, 0),
            (2 << 20, 4, 0),
            (4 << 20, 0, 0),
            (4 << 20, 0, 500),
            (4 << 20, 2044, 1),
        ] {
            let what = format!("{len} bytes at {offset}, list at {skip}, {shape}");
            let data = pattern(len, (len ^ offset ^ skip) as u8);
            let pointer = pointer(&host, pages, offset, len, skip);
            let pieces = |run: &mut dyn FnMut(usize, std::ops::Range<usize>)| {
                let mut done = 0;
                for (index, page) in pages.iter().enumerate() {
                    let from = if index == 0 { offset } else { 0 };
                    let part = (PAGE - from).min(len - done);
                    run(page * PAGE + from, done..done + part);
                    done += part;
                    if done == len {
                        break;
                    }
                }
            };
            pieces(&mut |at, part| host.set(at, &data[part]));
            let count = (len / 512) as u32;
            assert_eq!(transfer(&mut queue, Command::write(1, 3, count), pointer), Status::SUCCESS, "{what}");
            pieces(&mut |at, part| host.set(at, &vec![0xee; part.len()]));
            assert_eq!(transfer(&mut queue, Command::read(1, 3, count), pointer), Status::SUCCESS, "{what}");
            pieces(&mut |at, part| assert!(host.bytes(at, part.len()) == data[part], "{what}"));
        }
    }
}

#[test]
fn larger_memory_pages_are_walked_as_such() {
    let mut host = Host::disabled("size=1M");
    host.configure(1 | 2 << 7 | 6 << 16 | 4 << 20);
    assert_eq!(host.csts(), 1);
    let (page, len) = (16 << 10, 40 << 10);
    let mut write = Command::write(1, 0, len as u32 / 512);
    let data = pattern(len, 9);
    host.set(page, &data[..page]);
    host.set(4 * page, &data[page..2 * page]);
    host.set(9 * page, &data[2 * page..]);
    put_list(&host, LISTS, &[host.iova(4 * page), host.iova(9 * page)]);
    write.set_data_pointer(host.iova(page), host.iova(LISTS));
    let mut queue = host.queue(1, [4, 4], None);
    assert_eq!(queue.status(write), Status::SUCCESS);
    let read = Command::read(1, 0, 32);
    assert_eq!(transfer(&mut queue, read, (host.iova(0), 0)), Status::SUCCESS);
    assert!(host.bytes(0, page) == data[..page]);
    put_list(&host, LISTS, &[host.iova(4 * page + PAGE), host.iova(9 * page)]);
    assert_eq!(exact(queue.status(write)), (Status::PRP_OFFSET_INVALID, true));
}

#[test]
fn every_io_error_is_the_specified_one() {
    for options in
        ["size=1M,namespaces=2,mdts=64K,sgl=false", "size=1M,namespaces=2,mdts=64K,null=true,sgl=false"]
    {
        let mut host = Host::new(options);
        let mut queue = host.queue(1, [8, 8], None);
        let good = (host.iova(0), host.iova(LISTS));
        let list: Vec<u64> = (1..32).map(|page| host.iova(page * PAGE)).collect();
        put_list(&host, LISTS, &list);
        let never = Status::with_do_not_retry;
        let flags = |flags| Command { flags, ..Command::read(1, 0, 1) };
        for (command, pointer, expected) in [
            (Command::read(1, 0, 128), good, Status::SUCCESS),
            (Command { cdw12: 127 | 1 << 30, ..Command::write(1, 1920, 128) }, good, Status::SUCCESS),
            (Command::flush(1), (0, 0), Status::SUCCESS),
            (Command::flush(ALL_NAMESPACES), (0, 0), Status::SUCCESS),
            (Command::read(1, 0, 129), good, never(Status::INVALID_FIELD)),
            (Command::read(1, 0, 65536), good, never(Status::INVALID_FIELD)),
            (Command::read(1, 2047, 1), good, Status::SUCCESS),
            (Command::read(1, 2048, 1), good, never(Status::LBA_OUT_OF_RANGE)),
            (Command::read(1, 1921, 128), good, never(Status::LBA_OUT_OF_RANGE)),
            (Command::write(1, u64::MAX, 1), good, never(Status::LBA_OUT_OF_RANGE)),
            (Command::write(1, u64::MAX - 126, 128), good, never(Status::LBA_OUT_OF_RANGE)),
            (Command::read(0, 0, 1), good, never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command::read(3, 0, 1), good, never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command::write(ALL_NAMESPACES, 0, 1), good, never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command::flush(0), (0, 0), never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command::flush(3), (0, 0), never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (flags(0x40), good, never(Status::INVALID_FIELD)),
            (flags(0x80), good, never(Status::INVALID_FIELD)),
            (flags(0x02), good, never(Status::ABORTED_MISSING_FUSED)),
            (Command { opcode: 0x0f, ..Command::read(1, 0, 1) }, good, never(Status::INVALID_OPCODE)),
            (Command::write_zeroes(1, 0, 2048), (0, 0), Status::SUCCESS),
            (Command { cdw12: 7 | 1 << 30, ..Command::write_zeroes(2, 2040, 8) }, (0, 0), Status::SUCCESS),
            (Command::write_zeroes(1, 2047, 2), (0, 0), never(Status::LBA_OUT_OF_RANGE)),
            (Command::write_zeroes(1, u64::MAX, 1), (0, 0), never(Status::LBA_OUT_OF_RANGE)),
            (Command::write_zeroes(3, 0, 1), (0, 0), never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command::deallocate(0, 1), good, never(Status::INVALID_NAMESPACE_OR_FORMAT)),
            (Command { cdw10: 256, ..Command::deallocate(1, 1) }, good, never(Status::INVALID_FIELD)),
            (Command::deallocate(1, 1), (host.iova(2), 0), never(Status::PRP_OFFSET_INVALID)),
            (Command { opcode: 0xff, ..Command::read(1, 0, 1) }, good, never(Status::INVALID_OPCODE)),
            (Command::read(1, 0, 1), (host.iova(2), 0), never(Status::PRP_OFFSET_INVALID)),
            (Command::read(1, 0, 16), (host.iova(0), host.iova(4)), never(Status::PRP_OFFSET_INVALID)),
            (
                Command::read(1, 0, 32),
                (host.iova(0), host.iova(LISTS + 4)),
                never(Status::PRP_OFFSET_INVALID),
            ),
        ] {
            let status = transfer(&mut queue, command, pointer);
            assert_eq!(exact(status), exact(expected), "{options}: {command:?}");
        }
        if options.contains("null") {
            continue;
        }
        let nowhere = 0x7fff_0000_0000;
        put_list(&host, LISTS + PAGE, &[host.iova(PAGE), host.iova(2 * PAGE + 8), host.iova(3 * PAGE)]);
        put_list(&host, LISTS + 2 * PAGE, &[host.iova(PAGE), nowhere, host.iova(3 * PAGE)]);
        put_list(&host, LISTS + 4 * PAGE - 8, &[host.iova(LISTS) + 8]);
        for (pointer, expected) in [
            ((nowhere, good.1), Status::DATA_TRANSFER_ERROR),
            ((good.0, nowhere), Status::DATA_TRANSFER_ERROR),
            ((!4095, good.1), Status::DATA_TRANSFER_ERROR),
            ((good.0, !7), Status::DATA_TRANSFER_ERROR),
            ((good.0, host.iova(LISTS + PAGE)), never(Status::PRP_OFFSET_INVALID)),
            ((good.0, host.iova(LISTS + 2 * PAGE)), Status::DATA_TRANSFER_ERROR),
            ((good.0, host.iova(LISTS + 4 * PAGE - 8)), never(Status::PRP_OFFSET_INVALID)),
        ] {
            for command in [Command::read(1, 0, 32), Command::write(1, 0, 32)] {
                let status = transfer(&mut queue, command, pointer);
                assert_eq!(exact(status), exact(expected), "{pointer:x?}");
            }
        }
        // A transfer that runs out of the host's memory.
        let last = host.iova(host.data.len() - PAGE);
        let status = transfer(&mut queue, Command::read(1, 0, 16), (last, last + PAGE as u64));
        assert!([Status::DATA_TRANSFER_ERROR, Status::SUCCESS].contains(&status), "{status:?}");
        host.alive();
    }
}

#[test]
fn namespaces_do_not_overlap() {
    let mut host = Host::new("size=64K,lba=512+4096,namespaces=3");
    let mut queue = host.queue(1, [4, 4], None);
    let last = |nsid: u32| if nsid == 1 { (127, 1) } else { (15, 1) };
    for nsid in 1..=3 {
        host.set(0, &[nsid as u8; PAGE]);
        let (slba, count) = last(nsid);
        for slba in [0, slba] {
            let status = transfer(&mut queue, Command::write(nsid, slba, count), (host.iova(0), 0));
            assert_eq!(status, Status::SUCCESS);
        }
    }
    for nsid in 1..=3 {
        let (slba, count) = last(nsid);
        let block = if nsid == 1 { 512 } else { 4096 };
        for slba in [0, slba] {
            let status = transfer(&mut queue, Command::read(nsid, slba, count), (host.iova(0), 0));
            assert_eq!((status, host.bytes(0, block)), (Status::SUCCESS, vec![nsid as u8; block]));
        }
    }
}
