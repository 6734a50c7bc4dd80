//! Memory of a dma-buf, made by the kernel's udmabuf: the device gets it if the kernel can map it. Otherwise
//! the error names the alternative, and the alternative works.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
};
use upcie_core::memory::{Memory, PageSize};
use upcie_tests::{device::namespaces, io::read, on_each_device, says};

const LEN: usize = 1 << 20;

/// `struct udmabuf_create` of `linux/udmabuf.h`.
#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const FLAGS_CLOEXEC: u32 = 1;

mod ioctl {
    nix::ioctl_write_ptr!(udmabuf_create, b'u', 0x42, super::Create);
}

/// Makes a memory file, and a dma-buf of all of it.
fn udmabuf() -> io::Result<(OwnedFd, OwnedFd)> {
    let device = File::options().read(true).write(true).open("/dev/udmabuf")?;
    let memfd = memfd_create(c"behind", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    File::from(memfd.try_clone()?).set_len(LEN as u64)?;
    nix::fcntl::fcntl(&memfd, nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_SHRINK))?;
    let create =
        Create { memfd: memfd.as_raw_fd() as u32, flags: FLAGS_CLOEXEC, offset: 0, size: LEN as u64 };
    // SAFETY: the structure is the kernel's, and holds the descriptor of a live file.
    let fd = unsafe { ioctl::udmabuf_create(device.as_raw_fd(), &raw const create) }?;
    // SAFETY: the kernel made the descriptor just now, for this caller alone.
    Ok((memfd, unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn descriptors_of(fd: impl AsFd) -> usize {
    let of = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    let this = of(&File::from(fd.as_fd().try_clone_to_owned().unwrap())).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == this)).count()
}

#[test]
fn a_dma_buf_is_mapped_or_refused_with_advice() {
    let (memfd, buf) = udmabuf().expect("the guest's kernel has udmabuf");
    // The dma-buf and the file have the same bytes.
    let memory = Memory::import_dma_buf(buf.try_clone().unwrap()).unwrap();
    assert_eq!((memory.len(), memory.page_size()), (LEN, PageSize::Small));
    assert!(memory.is_shared() && memory.is_dma_buf());
    File::from(memfd.try_clone().unwrap()).write_all_at(b"behind it", 4096).unwrap();
    let at = memory.as_ptr().wrapping_add(4096);
    // SAFETY: the byte is in the mapping, and nobody writes to it now.
    assert_eq!(unsafe { at.read_volatile() }, b'b');
    drop(memory);
    says(&Memory::import(buf.try_clone().unwrap()).unwrap_err(), &["import_dma_buf"]);

    on_each_device(|device| {
        let controller = device.open();
        let space = controller.heap().space();
        let before = descriptors_of(&buf);
        let region = match space.map(Memory::import_dma_buf(buf.try_clone().unwrap()).unwrap()) {
            Ok(region) => {
                println!("{}: the kernel maps a dma-buf", device.address());
                region
            }
            Err(error) => {
                println!("{}: {error:?}", device.address());
                says(&error, &["dma-buf", "Memory::import", space.device()]);
                assert_eq!(descriptors_of(&buf), before, "it is kept");
                if space.is_physical() {
                    return;
                }
                space
                    .map(Memory::import(memfd.try_clone().unwrap()).unwrap())
                    .expect("the memory file itself")
            }
        };
        let heap = controller.heap_over(region).unwrap();
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let (blocks, size) = (32, namespace.block_size());
        let mut data = heap.alloc_unzeroed(blocks * size).unwrap();
        data.write_at(0, &pattern.bytes(7, blocks, 2));
        namespace.write(7, &mut data).unwrap();
        pattern.verify(&read(&controller, &namespace, 7, blocks), 7, 2);
        let mut bytes = vec![0; blocks * size];
        File::from(memfd.try_clone().unwrap())
            .read_exact_at(&mut bytes, data.offset_in_region() as u64)
            .unwrap();
        pattern.verify(&bytes, 7, 2);
    });
}
