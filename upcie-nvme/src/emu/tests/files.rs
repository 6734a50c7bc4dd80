//! Files as media: they keep the data, have one user, and lose the space of deallocated blocks; files that don't suit
//! are refused.

use super::{
    data::{pattern, pointer, transfer},
    host::{Host, PAGE, admin, exact},
    stepped::{DATA, Stepped},
};
use crate::{
    emu::Emulator,
    spec::{AdminOpcode, Cns, Command, DatasetRange, FeatureId, FeatureSelect, Status},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

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

/// A file is made, or grown, only if its size is given.
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

/// With `ro=true` a file that can't be written is served, write protected, to several at once.
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

/// A hole takes no time, whatever its size: a large file is erased in a few steps.
#[test]
fn a_format_makes_large_holes() {
    let file = TemporaryFile::new("format");
    let mut stepped = Stepped::new(&format!("file={},size=1G", file.0.display()));
    stepped.queue(1, 16);
    stepped.memory.set(DATA, &[7; PAGE]);
    let at = stepped.memory.iova(DATA);
    let pointed = |mut command: Command| {
        command.set_data_pointer(at, 0);
        command
    };
    let ends = [0, (1 << 30) / 512 - 8];
    for slba in ends {
        assert_eq!(stepped.status(1, pointed(Command::write(1, slba, 8))), Status::SUCCESS);
    }
    stepped.put(0, &admin(AdminOpcode::FORMAT_NVM.0, 1, 0, 0));
    stepped.ring(0);
    let steps = (1..1000).find(|_| {
        stepped.step();
        stepped.next(0).is_some_and(|done| done.status() == Status::SUCCESS)
    });
    assert!(steps.is_some_and(|steps| (4..10).contains(&steps)), "{steps:?} steps");
    for slba in ends {
        assert_eq!(stepped.status(1, pointed(Command::read(1, slba, 8))), Status::SUCCESS);
        assert_eq!(stepped.memory.bytes(DATA, PAGE), [0; PAGE], "block {slba}");
    }
}
