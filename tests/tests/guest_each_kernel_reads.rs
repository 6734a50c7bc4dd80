//! Over any transport, the kernel's driver reads the data that this driver wrote, and this driver reads the
//! kernel's.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};
use upcie_tests::{
    Device,
    data::Pattern,
    device::namespaces,
    io::{read, write},
    on_each_device,
    pci::{Borrowed, kernel_disk},
};

/// Bytes that are written at each place of a disk.
const LEN: usize = 1 << 20;
/// Version numbers of the data: written by this driver, written by the kernel.
const OURS: u32 = 1;
const THEIRS: u32 = 2;

/// A namespace, and the blocks to write: the first ones, some in the middle, the last ones.
struct Disk {
    nsid: u32,
    pattern: Pattern,
    block_size: usize,
    places: [u64; 3],
}

/// Writes with this driver.
fn write_ours(device: &Device) -> Vec<Disk> {
    let controller = device.open();
    let mut disks = Vec::new();
    for (namespace, pattern) in namespaces(&controller) {
        let blocks = (LEN / namespace.block_size()) as u64;
        let places = [0, namespace.blocks() / 2 + 3, namespace.blocks() - blocks];
        for slba in places {
            let mut buffer = controller.alloc(LEN).unwrap();
            pattern.fill(&mut buffer, slba, OURS);
            write(&namespace, slba, &mut buffer);
        }
        namespace.flush().unwrap();
        disks.push(Disk { nsid: namespace.nsid(), pattern, block_size: namespace.block_size(), places });
    }
    disks
}

/// Reads with the kernel's driver from the device itself, and writes another version.
fn read_and_write_theirs(node: &Path, disk: &Disk) {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(node);
    let file: File = file.unwrap_or_else(|error| panic!("{}: {error}", node.display()));
    for slba in disk.places {
        let offset = slba * disk.block_size as u64;
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, offset).unwrap();
        disk.pattern.verify(&bytes, slba, OURS);
        disk.pattern.fill(&mut bytes, slba, THEIRS);
        file.write_all_at(&bytes, offset).unwrap();
    }
    file.sync_all().unwrap();
}

#[test]
fn each_driver_reads_the_others_data() {
    on_each_device(|device| {
        let bdf = device.address().bdf().expect("a PCI function");
        let function = Borrowed::take(bdf);
        let disks = write_ours(device);
        function.bind("nvme");
        for disk in &disks {
            read_and_write_theirs(&kernel_disk(bdf, disk.nsid), disk);
        }
        drop(function);
        let controller = device.open();
        for ((namespace, _), disk) in namespaces(&controller).iter().zip(&disks) {
            for slba in disk.places {
                let data = read(&controller, namespace, slba, LEN / disk.block_size);
                disk.pattern.verify(&data, slba, THEIRS);
            }
        }
    });
}
