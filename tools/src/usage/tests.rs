use super::*;
use std::os::unix::fs::symlink;

const FUNCTION: &str = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0";

/// A machine with a bridge, and behind it a controller with a partitioned disk.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let machine = Self(std::env::temp_dir().join(format!("devbind-usage-{name}-{}", std::process::id())));
        let _ = fs::remove_dir_all(&machine.0);
        machine.block(&format!("{FUNCTION}/nvme/nvme0/nvme0n1"), "259:0", "2048");
        machine.block(&format!("{FUNCTION}/nvme/nvme0/nvme0n1/nvme0n1p1"), "259:1", "1024");
        machine.file(&format!("{FUNCTION}/nvme/nvme0/nvme0n1/nvme0n1p1/partition"), "1\n");
        machine.mounts("");
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn block(&self, path: &str, device: &str, size: &str) {
        self.file(&format!("{path}/dev"), &format!("{device}\n"));
        self.file(&format!("{path}/size"), &format!("{size}\n"));
        self.in_class("block", path);
    }

    fn in_class(&self, class: &str, path: &str) {
        let class = self.0.join("sys/class").join(class);
        fs::create_dir_all(&class).unwrap();
        symlink(self.0.join(path), class.join(Path::new(path).file_name().unwrap())).unwrap();
    }

    fn mounts(&self, more: &str) {
        let root = "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n";
        self.file("proc/self/mountinfo", &format!("{root}{more}"));
    }

    fn path(&self) -> PathBuf {
        self.0.join(FUNCTION)
    }

    fn host(&self) -> Host {
        Host::at(&self.0).unwrap()
    }

    fn uses(&self) -> Vec<String> {
        let host = self.host();
        let mut uses: Vec<_> =
            host.blocks(&self.path()).iter().flat_map(|block| host.block_uses(block)).collect();
        uses.extend(host.network_uses(&self.path()));
        uses.iter().map(Use::to_string).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn disks_are_found_except_those_behind_a_bridge() {
    let machine = Machine::new("blocks");
    let blocks = machine.host().blocks(&machine.path());
    let shown: Vec<_> = blocks.iter().map(|b| (b.name.as_str(), b.size, b.is_partition)).collect();
    assert_eq!(shown, [("nvme0n1", 1 << 20, false), ("nvme0n1p1", 512 << 10, true)]);
    assert!(machine.host().blocks(machine.path().parent().unwrap()).is_empty());
    assert!(machine.uses().is_empty());
}

#[test]
fn a_mount_is_known_by_number_and_by_name() {
    let machine = Machine::new("mounts");
    for line in [
        "40 22 259:1 / /mnt/with\\040space rw shared:3 - ext4 /dev/root rw",
        "40 22 0:35 /sub /mnt/with\\040space rw - btrfs /dev/nvme0n1p1 rw,ssd",
    ] {
        machine.mounts(line);
        assert_eq!(machine.uses(), ["nvme0n1p1 mounted at /mnt/with space"], "{line}");
    }
    machine.mounts("40 22 259:10 / /mnt rw - ext4 /dev/nvme0n10 rw");
    assert!(machine.uses().is_empty(), "another device");
    machine.mounts("40 22 0:50 / /mnt rw - tmpfs nvme0n1 rw");
    assert!(machine.uses().is_empty(), "not the name of a device");
}

#[test]
fn swap_and_devices_on_top_are_found() {
    let machine = Machine::new("swap");
    machine.file(
        "proc/swaps",
        "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1 partition 1024 0 -2\n/swap file 1 0 -3\n",
    );
    assert_eq!(machine.uses(), ["nvme0n1 is swap"]);
    machine.file("proc/swaps", "Filename\n");
    fs::create_dir_all(machine.path().join("nvme/nvme0/nvme0n1/nvme0n1p1/holders/dm-0")).unwrap();
    fs::create_dir_all(machine.path().join("nvme/nvme0/nvme0n1/holders/md127")).unwrap();
    machine.file("sys/class/block/dm-0/dm/name", "vg-root\n");
    assert_eq!(machine.uses(), ["nvme0n1 is part of md127", "nvme0n1p1 is part of dm-0 (vg-root)"]);
}

#[test]
fn a_member_of_a_multi_disk_file_system_is_found() {
    let machine = Machine::new("btrfs");
    machine.file("sys/fs/btrfs/1234-abcd/devices/nvme0n1p1/size", "");
    assert_eq!(machine.uses(), ["nvme0n1p1 is part of btrfs 1234-abcd"]);
}

#[test]
fn the_disk_of_a_multipath_subsystem_is_found_once() {
    let machine = Machine::new("multipath");
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    machine.block(&format!("{subsystem}/nvme0n2"), "259:7", "8");
    machine.in_class("nvme-subsystem", subsystem);
    symlink(machine.path().join("nvme/nvme0"), machine.0.join(subsystem).join("nvme0")).unwrap();
    machine.block(&format!("{FUNCTION}/nvme/nvme0/nvme0c0n2"), "0:0", "8");
    machine.file(&format!("{FUNCTION}/nvme/nvme0/nvme0c0n2/hidden"), "1\n");
    let blocks = machine.host().blocks(&machine.path());
    let names: Vec<_> = blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["nvme0n1", "nvme0n1p1", "nvme0n2"]);
    machine.mounts("40 22 259:7 / /mnt rw - xfs /dev/nvme0n2 rw");
    assert_eq!(machine.uses(), ["nvme0n2 mounted at /mnt"]);
}

#[test]
fn a_network_interface_that_is_up_is_a_use() {
    let machine = Machine::new("net");
    for (name, flags) in [("eth0", "0x1003"), ("eth1", "0x1002")] {
        let path = format!("{FUNCTION}/virtio3/net/{name}");
        machine.file(&format!("{path}/flags"), flags);
        machine.in_class("net", &path);
    }
    assert_eq!(machine.uses(), ["interface eth0 is up"]);
}

#[test]
fn escapes_of_the_kernel_are_undone() {
    for (text, plain) in [("/a\\040b\\134c", "/a b\\c"), ("/plain", "/plain"), ("\\", "\\"), ("\\9x", "\\9x")]
    {
        assert_eq!(unescape(text), plain);
    }
}
