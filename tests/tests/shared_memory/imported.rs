//! Memory files of other processes, which the device reads and writes.

use super::{descriptors_of, file_of};
use nix::{
    fcntl::OFlag,
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    time::Instant,
};
use upcie_core::{
    dma::Region,
    hugetlb::mounts,
    memory::{Memory, PageSize},
};
use upcie_nvme::Controller;
use upcie_tests::{Device, deadline, device::namespaces, io::read, on_each_device, says};

/// Makes a heap over memory of another process.
fn import(controller: &Controller, memory: OwnedFd) -> upcie_core::Result<Region> {
    controller.heap().space().map(Memory::import(memory)?)
}

/// Writes the file's contents through it and reads them back through it: the file's other holders see them.
fn drive(device: &Device, file: OwnedFd, page: PageSize) {
    let controller = device.open();
    let theirs = File::from(file.try_clone().unwrap());
    let id = file_of(&theirs);
    let space = controller.heap().space().clone();
    let region = match import(&controller, file) {
        Ok(region) => region,
        Err(error) => {
            assert!(space.is_physical() && page == PageSize::Small, "{page}: {error:?}");
            says(&error, &["use pages of 2 MiB"]);
            assert_eq!(descriptors_of(id), 1);
            return;
        }
    };
    let heap = controller.heap_over(region).unwrap();
    for (namespace, pattern) in namespaces(&controller) {
        let (size, blocks) = (namespace.block_size(), 96 << 10 >> namespace.block_size().ilog2());
        let mut buffer = heap.alloc(blocks * size).unwrap();
        assert!(buffer.is_shared() && buffer.prepared().len as usize == buffer.len());
        let at = buffer.offset_in_region() as u64;
        buffer.write_at(0, &pattern.bytes(5, blocks, 1));
        namespace.write(5, &mut buffer).unwrap();
        // The driver's own memory and the file hold what was written.
        pattern.verify(&read(&controller, &namespace, 5, blocks), 5, 1);
        buffer.fill(0);
        namespace.read(5, &mut buffer).unwrap();
        let mut bytes = vec![0; blocks * size];
        theirs.read_exact_at(&mut bytes, at).unwrap();
        pattern.verify(&bytes, 5, 1);
    }
    // The controller may keep memory until it has stopped.
    drop((heap, controller, space));
    let end = Instant::now() + deadline();
    while descriptors_of(id) > 1 && Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(descriptors_of(id), 1, "only the test's own is left");
}

fn memfd(page: PageSize, len: u64) -> OwnedFd {
    let flags = match page {
        PageSize::Huge2M => MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB,
        _ => MFdFlags::empty(),
    };
    let fd = memfd_create(c"theirs", flags | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    File::from(fd.try_clone().unwrap()).set_len(len).unwrap();
    fd
}

fn has_huge_pages() -> bool {
    let free = PageSize::Huge2M.available().map_or(0, |(free, _)| free);
    if free == 0 {
        println!("left out: no free 2 MiB pages");
    }
    free > 0
}

#[test]
fn memory_files_of_others_are_driven_by_the_device() {
    on_each_device(|device| {
        drive(device, memfd(PageSize::Small, 1 << 20), PageSize::Small);
        if has_huge_pages() {
            drive(device, memfd(PageSize::Huge2M, 2 << 20), PageSize::Huge2M);
        }
    });
}

#[test]
fn a_hugetlbfs_file_of_others_is_driven_by_the_device() {
    let mount = mounts().unwrap().into_iter().find(|mount| mount.is_writable && mount.page_bytes == 2 << 20);
    let Some(mount) = mount.filter(|_| has_huge_pages()) else {
        assert!(!upcie_tests::in_guest(), "the guest has a mount and pages");
        return println!("left out: no hugetlbfs mount with free pages");
    };
    on_each_device(|device| {
        let path = mount.path.join(format!("theirs-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_CLOEXEC.bits());
        let file = options.open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.set_len(2 << 20).unwrap();
        drive(device, file.into(), PageSize::Huge2M);
    });
}

#[test]
fn shrinkable_memory_is_refused() {
    let fd = memfd_create(c"theirs", MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(fd.try_clone().unwrap()).set_len(1 << 20).unwrap();
    says(&Memory::import(fd).unwrap_err(), &["shrink", "MFD_ALLOW_SEALING"]);
}
