//! The files in `/dev` by which VFIO gives devices out.

use crate::pci::{Function, IommuGroup};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where VFIO's device nodes are.
pub(super) const DEV: &str = "/dev/vfio";
pub(super) const SYS: &str = "/sys";
/// iommufd's one node.
pub(super) const IOMMU: &str = "/dev/iommu";

/// The name of a group's node.
pub(super) fn group_node(group: &IommuGroup) -> String {
    format!("{}{}", if group.is_noiommu { "noiommu-" } else { "" }, group.number)
}

/// The name of a function's node, `vfioN`, where the kernel has one.
pub(super) fn device_node(function: &Function) -> Option<String> {
    let entries = fs::read_dir(function.path.join("vfio-dev")).ok()?.flatten();
    // A kernel without such nodes lists the device all the same, but without a node's numbers.
    let mut with_node = entries.filter(|entry| entry.path().join("dev").exists());
    with_node.find_map(|entry| entry.file_name().into_string().ok().filter(|name| name.starts_with("vfio")))
}

/// All nodes in `dev` by which somebody may hold a function.
pub(super) fn nodes(function: &Function, dev: &Path) -> Vec<PathBuf> {
    let group = function.iommu_group.as_ref().map(|group| dev.join(group_node(group)));
    group.into_iter().chain(device_node(function).map(|name| dev.join("devices").join(name))).collect()
}
