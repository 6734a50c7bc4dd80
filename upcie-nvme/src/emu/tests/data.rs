//! Reads and writes: every shape of data pointer, every limit, and the file.

use super::host::{Host, PAGE, Queue, exact};
use crate::{
    emu::Emulator,
    spec::{ALL_NAMESPACES, Cns, Command, DatasetRange, FeatureId, FeatureSelect, Status},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

fn pattern(len: usize, seed: u8) -> Vec<u8> {
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
fn pointer(host: &Host, pages: &[usize], offset: usize, len: usize, skip: usize) -> (u64, u64) {
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

fn transfer(queue: &mut Queue, command: Command, pointer: (u64, u64)) -> Status {
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

struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-emu-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn refusal(options: &str) -> String {
    Emulator::new(&options.parse().unwrap()).unwrap_err().to_string()
}

#[test]
fn a_file_keeps_the_data_and_has_one_user() {
    let file = TemporaryFile::new("data");
    let options = format!("file={},size=1M,namespaces=2,mdts=2M", file.0.display());
    let data = pattern(1 << 20, 3);
    {
        let mut host = Host::new(&options);
        let error = refusal(&options);
        assert!(error.contains("locked") && error.contains(&*file.0.to_string_lossy()), "{error}");
        let mut queue = host.queue(1, [4, 4], None);
        host.set(0, &data);
        let pages: Vec<usize> = (0..256).collect();
        let whole = pointer(&host, &pages, 0, 1 << 20, 0);
        assert_eq!(transfer(&mut queue, Command::write(2, 0, 2048), whole), Status::SUCCESS);
        let cache = Command::get_features(FeatureId::VOLATILE_WRITE_CACHE, FeatureSelect::CURRENT);
        assert_eq!(host.admin.run(cache).result(), Ok(1));
        assert_eq!(queue.status(Command::flush(2)), Status::SUCCESS);
        assert_eq!(
            host.admin.status(Command::set_features(FeatureId::VOLATILE_WRITE_CACHE, 0)),
            Status::SUCCESS
        );
        assert_eq!(transfer(&mut queue, Command::write(1, 0, 1), (host.iova(0), 0)), Status::SUCCESS);
    }
    assert!(fs::read(&file.0).unwrap()[1 << 20..] == data);
    assert!(refusal(&options.replace("size=1M", "size=2M")).contains("leave size= out"));
    let mut host = Host::new(&options.replace("size=1M,", ""));
    let mut queue = host.queue(1, [4, 4], None);
    assert_eq!(transfer(&mut queue, Command::read(2, 8, 8), (host.iova(PAGE), 0)), Status::SUCCESS);
    assert!(host.bytes(PAGE, PAGE) == data[PAGE..2 * PAGE]);
    // The file shrinks behind the controller's back.
    fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(PAGE as u64).unwrap();
    let status = transfer(&mut queue, Command::read(2, 8, 8), (host.iova(PAGE), 0));
    assert_eq!(status, Status::UNRECOVERED_READ_ERROR);
}

#[test]
fn deallocated_blocks_read_as_zeros_and_free_space() {
    let file = TemporaryFile::new("holes");
    for options in ["size=4M,namespaces=2", &format!("file={},size=4M,namespaces=2", file.0.display())] {
        let mut host = Host::new(options);
        let mut queue = host.queue(1, [4, 4], None);
        let data = pattern(1 << 20, 5);
        host.set(0, &data);
        let pages: Vec<usize> = (0..256).collect();
        let whole = pointer(&host, &pages, 0, 1 << 20, 0);
        assert_eq!(transfer(&mut queue, Command::write(2, 0, 2048), whole), Status::SUCCESS);
        assert_eq!(queue.status(Command::flush(2)), Status::SUCCESS);
        let room = || fs::metadata(&file.0).map_or(0, |file| file.blocks());
        let before = room();
        // Not a page, a page and more, nothing, and many; the ranges lie in two pages themselves.
        let ranges =
            [(1, 1), (15, 10), (100, 0), (1024, 1000)].map(|(slba, nlb)| DatasetRange::new(slba, nlb));
        let (list, second) = ((2 << 20) - 32, 3 << 20);
        for (range, at) in ranges.iter().zip([list, list + 16, second, second + 16]) {
            host.set(at, &range.to_bytes());
        }
        let pointers = (host.iova(list), host.iova(second));
        assert_eq!(transfer(&mut queue, Command::deallocate(2, 4), pointers), Status::SUCCESS);
        assert_eq!(queue.status(Command::write_zeroes(2, 30, 20)), Status::SUCCESS);
        assert_eq!(transfer(&mut queue, Command::read(2, 0, 2048), whole), Status::SUCCESS);
        let mut expected = data.clone();
        for (slba, nlb) in [(1, 1), (15, 10), (1024, 1000), (30, 20)] {
            expected[slba * 512..][..nlb * 512].fill(0);
        }
        assert!(host.bytes(0, 1 << 20) == expected, "{options}");
        assert!(options.starts_with("size") || room() < before, "{before} blocks of the file before");
        // Without the attribute it is a hint, and with one bad range nothing is done.
        let hint = Command { cdw11: 0, ..Command::deallocate(2, 1) };
        host.set(list, &DatasetRange::new(0, 1).to_bytes());
        assert_eq!(transfer(&mut queue, hint, pointers), Status::SUCCESS);
        // Sums that pass 64 bits, in blocks and in bytes, among them.
        for (slba, nlb) in
            [(8192, 1), (8193, 0), (8191, 2), (u64::MAX, u32::MAX), (u64::MAX - 8, 9), (1 << 55, 1)]
        {
            host.set(list + 16, &DatasetRange::new(slba, nlb).to_bytes());
            let bad = transfer(&mut queue, Command::deallocate(2, 2), pointers);
            let expected = (Status::LBA_OUT_OF_RANGE, true);
            assert_eq!(exact(bad), expected, "{nlb} blocks from {slba} on");
        }
        assert_eq!(transfer(&mut queue, Command::read(2, 0, 2048), whole), Status::SUCCESS);
        assert!(host.bytes(0, 1 << 20) == expected, "{options}");
    }
}

#[test]
fn an_unusable_file_is_refused_with_the_reason() {
    let file = TemporaryFile::new("refused");
    assert!(refusal("file=/nowhere/at/all").contains("/nowhere/at/all"));
    assert!(refusal("file=/nowhere/at/all,size=1M").contains("/nowhere/at/all"));
    assert!(refusal("file=/dev/null").contains("regular"));
    assert!(refusal("file=/tmp").contains("/tmp"));
    fs::write(&file.0, [1; 8192]).unwrap();
    let mut permissions = fs::metadata(&file.0).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&file.0, permissions).unwrap();
    let error = refusal(&format!("file={}", file.0.display()));
    assert!(error.contains("read-only") && error.contains("ro=true"), "{error}");
    assert_eq!(fs::read(&file.0).unwrap(), [1; 8192], "nothing was written");
}

/// Tools finding A2: a file is made, or grown, only if its size is given.
#[test]
fn a_file_is_made_only_with_a_size() {
    let file = TemporaryFile::new("typo");
    let address = format!("file={}", file.0.display());
    for options in [&address, &format!("{address},ro=true"), &format!("{address},ro=true,size=1M")] {
        let error = refusal(options);
        assert!(error.contains("no such file"), "{options}: {error}");
        assert!(!file.0.exists(), "{options}");
    }
    fs::write(&file.0, []).unwrap();
    for options in [&address, &format!("{address},ro=true"), &format!("{address},ro=true,size=1M")] {
        let error = refusal(options);
        assert!(error.contains("empty"), "{options}: {error}");
        assert_eq!(fs::metadata(&file.0).unwrap().len(), 0, "{options}");
    }
    assert!(refusal(&address).contains("size="));
    drop(Emulator::new(&format!("{address},size=1M,namespaces=2").parse().unwrap()).unwrap());
    assert_eq!(fs::metadata(&file.0).unwrap().len(), 2 << 20);
}

/// Tools finding A2: with `ro=true` a file that can't be written is served, write protected, to several at once.
#[test]
fn a_read_only_file_is_write_protected() {
    let file = TemporaryFile::new("protected");
    let data = pattern(1 << 20, 9);
    fs::write(&file.0, &data).unwrap();
    fs::set_permissions(&file.0, fs::Permissions::from_mode(0o400)).unwrap();
    let options = format!("file={},ro=true", file.0.display());
    let mut host = Host::new(&options);
    let _beside = Emulator::new(&options.parse().unwrap()).unwrap();
    let identify = host.page(Command::identify(Cns::NAMESPACE, 1, 0));
    assert_eq!(identify[99] & 1, 1, "NSATTR: currently write protected");
    let mut queue = host.queue(1, [4, 4], None);
    let protected = Status::WRITE_PROTECTED;
    let status = transfer(&mut queue, Command::write(1, 0, 1), (host.iova(0), 0));
    assert_eq!(exact(status), (protected, true));
    assert_eq!(queue.status(Command::write_zeroes(1, 0, 1)), protected);
    host.set(0, &DatasetRange::new(0, 8).to_bytes());
    assert_eq!(transfer(&mut queue, Command::deallocate(1, 1), (host.iova(0), 0)), protected);
    assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
    assert_eq!(transfer(&mut queue, Command::read(1, 8, 8), (host.iova(PAGE), 0)), Status::SUCCESS);
    assert!(host.bytes(PAGE, PAGE) == data[PAGE..2 * PAGE]);
    assert!(fs::read(&file.0).unwrap() == data);
}

/// Image sizes: a file is served to its last block, and what would be cut off has to be zeros.
#[test]
fn a_file_is_served_to_its_last_block() {
    let file = TemporaryFile::new("size");
    let served = |options: &str| {
        let options = format!("file={}{options}", file.0.display()).parse().unwrap();
        Emulator::new(&options).map(|emulator| emulator.namespace_size()).map_err(|error| error.to_string())
    };
    // A GPT's backup header is in the last block.
    let image = pattern(2055 * 512, 7);
    fs::write(&file.0, &image).unwrap();
    assert_eq!(served(""), Ok(2055 * 512));
    assert_eq!(served(",ro=true"), Ok(2055 * 512));
    assert_eq!(served(",size=1052160"), Ok(2055 * 512));
    for options in [",lba=4096", ",namespaces=2", ",namespaces=2,lba=512+4096"] {
        let error = served(options).unwrap_err();
        assert!(error.contains("cut off") && error.contains("truncate -s"), "{options}: {error}");
    }
    {
        let mut host = Host::new(&format!("file={}", file.0.display()));
        let mut queue = host.queue(1, [4, 4], None);
        assert_eq!(transfer(&mut queue, Command::read(1, 2054, 1), (host.iova(0), 0)), Status::SUCCESS);
        assert!(host.bytes(0, 512) == image[2054 * 512..]);
    }
    // Zeros behind the last whole block don't count as data.
    fs::write(&file.0, [&image[..8192], &[0; 100]].concat()).unwrap();
    assert_eq!((served(""), served(",lba=4096,namespaces=2")), (Ok(8192), Ok(4096)));
    fs::write(&file.0, [1; 100]).unwrap();
    assert!(served("").unwrap_err().contains("less than a block"));
    assert!(fs::read(&file.0).unwrap() == [1; 100], "none of this changed it");
}
