//! The PCI devices of the guest, as words for QEMU, and their disk images.

/// Disk images, which are made sparse and empty for each run.
pub const DISKS: &[(&str, u64)] = &[("a", 256 << 20), ("b1", 256 << 20), ("b2", 256 << 20)];

/// Disk image of controller C.
pub const FAILING_DISK: (&str, u64) = ("c", 64 << 20);

/// PCI devices of the lab. Root ports come first on bus 0, so that the controllers are always at 0000:01:00.0
/// and 0000:02:00.0.
pub const DEVICES: &[&str] = &[
    "pcie-root-port,id=rp0,chassis=1,slot=1",
    "pcie-root-port,id=rp1,chassis=2,slot=2",
    // A: 512-byte blocks, at most 512 KiB per command, a controller memory buffer of 16 MiB.
    "nvme,id=nvA,bus=rp0,serial=LABA,drive=a,cmb_size_mb=16,mdts=7,max_ioqpairs=8,msix_qsize=9",
    // B: namespaces of 512 and 4096-byte blocks, at most 128 KiB per command, a persistent memory region of 16 MiB.
    "nvme-subsys,id=ss0,nqn=lab",
    "nvme,id=nvB,bus=rp1,subsys=ss0,serial=LABB,mdts=5,pmrdev=pmr",
    "nvme-ns,drive=b1,bus=nvB,nsid=1",
    "nvme-ns,drive=b2,bus=nvB,nsid=2,logical_block_size=4096,physical_block_size=4096",
    // QEMU's NVMe controllers have no MSI. This educational device has a pin, an MSI message and 28-bit DMA.
    "edu,bus=pcie.0,addr=0x10",
];

/// Controller C, whose medium fails: it is added for the suite about that alone.
pub const FAILING: &[&str] =
    &["pcie-root-port,id=rp2,chassis=3,slot=3", "nvme,id=nvC,bus=rp2,serial=LABC,drive=c"];

/// Disk images of controller D.
pub const ZONED_DISKS: &[(&str, u64)] = &[("d1", 16 << 20), ("d2", 16 << 20)];

/// Controller D, which has a plain namespace and a zoned one: it is added behind C for the suite about zones. Appends of 128 KiB
/// at most.
pub const ZONED: &[&str] = &[
    "pcie-root-port,id=rp3,chassis=4,slot=4",
    "nvme-subsys,id=ss1,nqn=zones",
    "nvme,id=nvD,bus=rp3,subsys=ss1,serial=LABD,zoned.zasl=5",
    "nvme-ns,drive=d1,bus=nvD,nsid=1",
    "nvme-ns,drive=d2,bus=nvD,nsid=2,logical_block_size=4096,physical_block_size=4096,zoned=true,\
     zoned.zone_size=1M,zoned.zone_capacity=768K,zoned.max_open=3,zoned.max_active=5,\
     zoned.numzrwa=2,zoned.zrwas=64K,zoned.zrwafg=16K,zoned.descr_ext_size=64",
];

/// Disk image of controller E.
pub const PLACED_DISK: (&str, u64) = ("e", 16 << 20);

/// Controller E, whose endurance group has flexible data placement: it is added behind D for the suite about that. Placement
/// handles 0 to 3 of its namespace are the reclaim unit handles 1 to 4.
pub const PLACED: &[&str] = &[
    "pcie-root-port,id=rp4,chassis=5,slot=5",
    "nvme-subsys,id=ss2,nqn=placement,fdp=on,fdp.runs=96M,fdp.nrg=2,fdp.nruh=8",
    "nvme,id=nvE,bus=rp4,subsys=ss2,serial=LABE",
    "nvme-ns,drive=e,bus=nvE,nsid=1,logical_block_size=4096,physical_block_size=4096,fdp.ruhs=1-4",
];

/// Disk images of controller F.
pub const VIRTUAL_DISKS: &[(&str, u64)] = &[("f1", 16 << 20), ("f2", 16 << 20)];

/// Controller F, which can have two virtual functions: it is added behind E for the suite about these. 8 queue pairs and 6
/// interrupt vectors can be moved to them, and all share two namespaces.
pub const VIRTUAL: &[&str] = &[
    "pcie-root-port,id=rp5,chassis=6,slot=6",
    "nvme-subsys,id=ss3,nqn=virtual",
    "nvme,id=nvF,bus=rp5,subsys=ss3,serial=LABF,max_ioqpairs=10,msix_qsize=11,sriov_max_vfs=2,\
     sriov_vq_flexible=8,sriov_vi_flexible=6",
    "nvme-ns,drive=f1,bus=nvF,nsid=1",
    "nvme-ns,drive=f2,bus=nvF,nsid=2,logical_block_size=4096,physical_block_size=4096",
];

/// The root port that is empty at first, behind all others: suites plug controllers into it.
pub const HOT: &str = "pcie-root-port,id=hot,chassis=9,slot=9";

/// The errors of controller C's medium, by the first block that fails. The suite has the same numbers.
pub const MEDIA_ERRORS: &[(&str, u64)] = &[("read", 1000), ("write", 2000)];

/// Functions that init binds to vfio-pci, and that the suites use.
pub const FUNCTIONS: &[&str] = &["0000:01:00.0", "0000:02:00.0"];

/// QEMU's `edu` device, which has its own IOMMU group; its suite binds it.
pub const EDU: &str = "0000:00:10.0";
