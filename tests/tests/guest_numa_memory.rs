//! DMA memory comes from the NUMA node that the device is on.

use std::fs;
use upcie_core::memory::PageSize;
use upcie_nvme::Controller;
use upcie_tests::on_each_device;

/// Moves a device to a node, and back when dropped.
struct Node(String);

impl Node {
    fn set(bdf: &str, node: u32) -> Self {
        let path = format!("/sys/bus/pci/devices/{bdf}/numa_node");
        fs::write(&path, node.to_string()).unwrap();
        Self(path)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        fs::write(&self.0, "-1").unwrap();
    }
}

/// Returns the pages per node of the mapping that holds `address`, in the kernel's form: `N0=1`.
fn pages_at(address: usize) -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/numa_maps").unwrap();
    let start = |line: &str| usize::from_str_radix(line.split(' ').next().unwrap_or(""), 16).unwrap();
    // The lines are sorted by start address.
    let line = maps.lines().take_while(|line| start(line) <= address).last().expect("a mapping");
    println!("{line}");
    let is_count = |word: &&str| {
        word.strip_prefix('N')
            .and_then(|rest| rest.split_once('='))
            .is_some_and(|(node, _)| node.parse::<u32>().is_ok())
    };
    line.split(' ').filter(is_count).map(str::to_owned).collect()
}

#[test]
fn dma_memory_is_on_the_devices_node() {
    on_each_device(|device| {
        let bdf = device.address().bdf().expect("a PCI function").to_string();
        for node in [1, 0, 1] {
            let _node = Node::set(&bdf, node);
            for pages in [PageSize::Huge2M, PageSize::Small] {
                let options = Controller::builder().pages(pages);
                let controller = device.open_with(options);
                let buffer = controller.alloc(3 << 20).unwrap();
                let found = pages_at(buffer.as_ptr() as usize);
                assert!(
                    found.len() == 1 && found[0].starts_with(&format!("N{node}=")),
                    "{pages} pages of a device on node {node}: {found:?}"
                );
            }
        }
    });
}
