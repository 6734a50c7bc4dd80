//! VFIO's device files in `/dev`.

use crate::pci::{Function, IommuGroup};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directory of VFIO's device nodes.
pub(super) const DEV: &str = "/dev/vfio";
pub(super) const SYS: &str = "/sys";
/// The one node of iommufd.
pub(super) const IOMMU: &str = "/dev/iommu";

/// Returns the name of a group's node.
pub(super) fn group_node(group: &IommuGroup) -> String {
    format!("{}{}", if group.is_noiommu { "noiommu-" } else { "" }, group.number)
}

/// Returns the name of a function's node, `vfioN`, if the kernel has one.
pub(super) fn device_node(function: &Function) -> Option<String> {
    let entries = fs::read_dir(function.path.join("vfio-dev")).ok()?.flatten();
    // A kernel without such nodes lists the device too, but without device numbers.
    let mut with_node = entries.filter(|entry| entry.path().join("dev").exists());
    with_node.find_map(|entry| entry.file_name().into_string().ok().filter(|name| name.starts_with("vfio")))
}

/// Returns all nodes in `dev` that a user of the function may hold.
pub(super) fn nodes(function: &Function, dev: &Path) -> Vec<PathBuf> {
    let group = function.iommu_group.as_ref().map(|group| dev.join(group_node(group)));
    group.into_iter().chain(device_node(function).map(|name| dev.join("devices").join(name))).collect()
}
