//! Which namespaces there are, and what they are like.

use super::Inner;
use crate::{
    Error, Namespace, Result,
    namespace::Extent,
    spec::{Cns, Command, Csi, IdentifyNamespace, NamespaceDescriptors, OptionalCommands},
};
use std::sync::Arc;
use zerocopy::FromBytes;

impl Inner {
    /// One page of data from an Identify command.
    pub(super) fn identify_page(&self, command: &Command, what: &str) -> Result<Box<[u8; 4096]>> {
        let (_, data) = self.admin_data(command, self.heap.alloc_zeroed(4096)?, what)?;
        let mut page = Box::new([0; 4096]);
        data.read_at(0, &mut *page);
        Ok(page)
    }

    /// The active namespaces' ids that are greater than `above`, 1024 at most, ascending.
    fn active_above(&self, above: u32) -> Result<Vec<u32>> {
        let what = "Identify (active namespaces)";
        let page = self.identify_page(&Command::identify(Cns::ACTIVE_NAMESPACES, above, 0), what)?;
        let ids = page.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
        let ids: Vec<u32> = ids.take_while(|&id| id != 0).collect();
        if ids.first().is_some_and(|&first| first <= above) || !ids.is_sorted_by(|a, b| a < b) {
            return Err(self.lie(what, "the list is not ascending"));
        }
        Ok(ids)
    }

    pub(super) fn active_namespaces(&self) -> Result<Vec<u32>> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            let more = self.active_above(all.last().copied().unwrap_or(0))?;
            all.extend(&more);
            // NN: what a controller lists without end is no list.
            if all.len() > self.identify.nn.max(1024) as usize {
                return Err(self.lie("Identify (active namespaces)", "there are more than it supports (NN)"));
            }
            if more.len() < 1024 || all.last() >= Some(&0xffff_fffd) {
                return Ok(all);
            }
        }
    }

    fn lie(&self, operation: &str, reason: &str) -> Error {
        Error::Protocol { device: self.name.to_string(), operation: operation.into(), reason: reason.into() }
    }

    pub(super) fn namespace(self: &Arc<Self>, nsid: u32) -> Result<Namespace> {
        // Before anything is read: what changes meanwhile makes the handle stale.
        let stamp = self.live.stamp();
        // After the stamp: a change that ends before this look has made the stamp stale.
        self.subsystem.check_settled(self.name(), &format!("namespace {nsid}"))?;
        // FFFFFFFFh is all namespaces, and none.
        let possible = nsid != 0 && nsid != u32::MAX;
        let known = possible && self.active_above(nsid - 1)?.first() == Some(&nsid);
        if !known {
            let active = self.active_namespaces()?;
            return Err(Error::Argument {
                device: self.name.to_string(),
                reason: format!("there is no namespace {nsid}; the active ones are {active:?}"),
            });
        }
        let page = self.identify_page(&Command::identify(Cns::NAMESPACE, nsid, 0), "Identify (namespace)")?;
        let identify = IdentifyNamespace::read_from_bytes(&page[..]).expect("one page");
        let unusable = match self.no_io {
            Some(reason) => Some(reason.to_string()),
            None => self.why_unusable(nsid, &identify)?,
        };
        let shift = match &identify.lba_format() {
            Some(format) if (9..=16).contains(&format.lbads()) => u32::from(format.lbads()),
            _ => 0,
        };
        let optional = self.identify.optional_commands();
        let blocks = (self.max_transfer >> shift).min(65536).min(identify.nsze);
        let extent = Extent {
            stamp,
            last: identify.nsze.wrapping_sub(1),
            nsid_high: u64::from(nsid) << 32,
            max_blocks: blocks as u32,
            shift,
            controller: self.live.controller,
            max_zeroes: if optional.contains(OptionalCommands::WRITE_ZEROES) {
                (self.max_zeroes >> shift).min(65536).min(identify.nsze) as u32
            } else {
                0
            },
            deallocates: optional.contains(OptionalCommands::DATASET_MANAGEMENT),
        };
        Ok(Namespace::new(self.clone(), extent, identify, unusable))
    }

    /// Why I/O on a namespace is not supported, if so.
    fn why_unusable(&self, nsid: u32, identify: &IdentifyNamespace) -> Result<Option<String>> {
        let Some(format) = identify.lba_format() else {
            return Ok(Some(format!(
                "its format {} is not in its own list of formats",
                identify.format_index()
            )));
        };
        if format.ms() != 0 {
            return Ok(Some(format!("its format has {} bytes of metadata per block", format.ms())));
        }
        if !(9..=16).contains(&format.lbads()) {
            return Ok(Some(format!(
                "its blocks have 2^{} bytes; 512 bytes to 64 KiB are supported",
                format.lbads()
            )));
        }
        if self.max_transfer >> format.lbads() == 0 {
            return Ok(Some(format!(
                "its blocks have 2^{} bytes, more than the {} that one command may transfer (MDTS)",
                format.lbads(),
                self.max_transfer
            )));
        }
        if identify.nsze == 0 {
            return Ok(Some("it has no blocks".into()));
        }
        // Optional before version 1.3: a controller without the list has the NVM command set only.
        let command = Command::identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0);
        let page = match self.identify_page(&command, "Identify (namespace descriptors)") {
            Ok(page) => page,
            Err(Error::Status { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let csi = NamespaceDescriptors::new(&page[..]).find_map(|descriptor| descriptor.csi());
        Ok(csi.filter(|&csi| csi != Csi::NVM).map(|csi| format!("its command set is {csi}, not NVM")))
    }
}
