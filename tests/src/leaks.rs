//! Kernel resources that a process holds: equal before and after a test, if nothing leaked.

use std::{collections::BTreeMap, fs};

/// Descriptors by their targets, and memory mapped for DMA: locked for type 1 containers (`VmLck`) or pinned
/// by iommufd (`VmPin`).
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    descriptors: BTreeMap<String, usize>,
    mapped: Vec<String>,
}

impl Held {
    /// Lists the resources that this process holds now.
    pub fn now() -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
            // The descriptor of the directory itself is either closed by now or listed each time.
            let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            *descriptors.entry(target).or_default() += 1;
        }
        let status = fs::read_to_string("/proc/self/status").expect("a status");
        let is_mapped = |line: &&str| line.starts_with("VmLck:") || line.starts_with("VmPin:");
        Self { descriptors, mapped: status.lines().filter(is_mapped).map(str::to_owned).collect() }
    }
}
