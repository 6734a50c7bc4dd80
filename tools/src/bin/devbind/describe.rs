//! Description of a function for `devbind list`.

use crate::{
    pci_ids::PciIds,
    state::{Record, State},
    units,
    usage::{Host, Use, names},
};
use serde_json::{Value, json};
use std::fs;
use upcie_core::pci::Function;

/// A function and its properties.
#[derive(Debug)]
pub struct Described {
    pub function: Function,
    /// Model name from the device, or from the list of PCI ids.
    model: Option<String>,
    /// Total bytes of its disks, if a driver knows them.
    size: Option<u64>,
    disks: Vec<String>,
    uses: Vec<Use>,
    /// True while an unbinding waits for a user of the function.
    being_unbound: bool,
    /// State that `devbind restore` would restore.
    before: Option<Record>,
}

/// Columns of [`Described::row`].
pub const HEADER: [&str; 9] =
    ["ADDRESS", "ID", "CLASS", "MODEL", "SIZE", "DRIVER", "GROUP", "NUMA", "IN USE"];

impl Described {
    pub fn new(function: Function, host: &Host, ids: &PciIds, state: &State) -> anyhow::Result<Self> {
        let controller = names(&function.path.join("nvme")).into_iter().next();
        let model = controller.and_then(|name| {
            let text = fs::read_to_string(function.path.join("nvme").join(name).join("model")).ok()?;
            Some(text.trim().to_owned()).filter(|model| !model.is_empty())
        });
        let disks: Vec<_> =
            host.blocks(&function.path).into_iter().filter(|block| !block.is_partition).collect();
        Ok(Self {
            model: model.or_else(|| ids.name(function.vendor, function.device)),
            size: (!disks.is_empty()).then(|| disks.iter().map(|disk| disk.size).sum()),
            disks: disks.into_iter().map(|disk| disk.name).collect(),
            uses: host.uses(&function),
            being_unbound: function.is_being_unbound(),
            before: state.record(function.bdf)?.filter(|record| record.is_for(&function)),
            function,
        })
    }

    /// Returns the cells of a table row.
    pub fn row(&self) -> [String; 9] {
        let Self { function, .. } = self;
        let dash = || "-".to_owned();
        let group = function.iommu_group.as_ref().map(|group| {
            let mark = if group.is_noiommu { "!" } else { "" };
            format!("{}{mark}", group.number)
        });
        let uses: Vec<_> = self.uses.iter().map(Use::to_string).collect();
        [
            function.bdf.to_string(),
            format!("{:04x}:{:04x}", function.vendor, function.device),
            format!("{:06x}", function.class),
            self.model.clone().unwrap_or_else(dash),
            self.size.map_or_else(dash, units::bytes),
            match &function.driver {
                Some(driver) => driver.clone(),
                None if self.being_unbound => "(being unbound)".into(),
                None => dash(),
            },
            group.unwrap_or_else(dash),
            function.numa_node.map_or_else(dash, |node| node.to_string()),
            if uses.is_empty() { dash() } else { uses.join(", ") },
        ]
    }

    /// Returns the details that don't fit into the table, one per line.
    pub fn details(&self) -> Vec<String> {
        let Self { function, .. } = self;
        let mut lines = Vec::new();
        if !self.disks.is_empty() {
            lines.push(format!("disks: {}", self.disks.join(", ")));
        }
        let nodes: Vec<_> = function.nodes().iter().map(|node| node.display().to_string()).collect();
        if !nodes.is_empty() {
            lines.push(format!("nodes: {}", nodes.join(", ")));
        }
        for member in function.iommu_group.iter().flat_map(|group| &group.members) {
            if member.name != function.bdf.to_string() {
                let driver = member.driver.as_deref().unwrap_or("no driver");
                lines.push(format!("shares its group with {} ({driver})", member.name));
            }
        }
        if let Some(before) = &self.before {
            let binding = before.binding();
            lines.push(format!("before: {}", binding.driver.as_deref().unwrap_or("no driver")));
        }
        lines
    }

    pub fn to_json(&self) -> Value {
        let Self { function, .. } = self;
        let group = function.iommu_group.as_ref().map(|group| {
            let members =
                group.members.iter().map(|member| json!({ "name": member.name, "driver": member.driver }));
            json!({
                "number": group.number, "noiommu": group.is_noiommu, "members": members.collect::<Vec<_>>(),
            })
        });
        let uses = self
            .uses
            .iter()
            .map(|it| json!({ "kind": it.kind.name(), "device": it.device, "by": it.by, "pid": it.pid }));
        json!({
            "address": function.bdf.to_string(),
            "vendor": function.vendor,
            "device": function.device,
            "class": function.class,
            "model": self.model,
            "size": self.size,
            "disks": self.disks,
            "driver": function.driver,
            "being_unbound": self.being_unbound,
            "iommu_group": group,
            "numa_node": function.numa_node,
            "nodes": function.nodes(),
            "in_use": uses.collect::<Vec<_>>(),
            "before": self.before,
        })
    }
}
