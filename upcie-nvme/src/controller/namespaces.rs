//! Which namespaces there are, and what they are like.

use super::Inner;
use crate::{
    Error, Namespace, Result,
    namespace::Extent,
    spec::{Cns, Command, Csi, IdentifyNamespace, NamespaceDescriptors},
};
use std::sync::{Arc, atomic::Ordering};
use zerocopy::FromBytes;

impl Inner {
    /// One page of data from an Identify command.
    pub(super) fn identify_page(&self, command: &Command, what: &str) -> Result<Box<[u8; 4096]>> {
        let (_, data) = self.admin_data(command, self.heap.alloc_zeroed(4096)?, what)?;
        Ok(Box::new(<[u8; 4096]>::try_from(&data[..]).expect("one page")))
    }

    pub(super) fn active_namespaces(&self) -> Result<Vec<u32>> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            // The list begins above the id that the command names.
            let above = all.last().copied().unwrap_or(0);
            let command = Command::identify(Cns::ACTIVE_NAMESPACES, above, 0);
            let page = self.identify_page(&command, "Identify (active namespaces)")?;
            let ids = page.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
            let before = all.len();
            for id in ids.take_while(|&id| id != 0) {
                if all.last().is_some_and(|&last| id <= last) {
                    return Err(Error::Protocol {
                        device: self.name.to_string(),
                        operation: "Identify (active namespaces)".into(),
                        reason: "the list is not ascending".into(),
                    });
                }
                all.push(id);
            }
            if all.len() - before < 1024 || all.last() >= Some(&0xffff_fffd) {
                return Ok(all);
            }
        }
    }

    pub(super) fn namespace(self: &Arc<Self>, nsid: u32) -> Result<Namespace> {
        // Before anything is read: what changes meanwhile makes the handle stale.
        let stamp = self.live.namespaces.load(Ordering::Acquire);
        let active = self.active_namespaces()?;
        if !active.contains(&nsid) {
            return Err(Error::Argument {
                device: self.name.to_string(),
                reason: format!("there is no namespace {nsid}; the active ones are {active:?}"),
            });
        }
        let page = self.identify_page(&Command::identify(Cns::NAMESPACE, nsid, 0), "Identify (namespace)")?;
        let identify = IdentifyNamespace::read_from_bytes(&page[..]).expect("one page");
        let unusable = self.why_unusable(nsid, &identify)?;
        let shift = match &identify.lba_format() {
            Some(format) if (9..=16).contains(&format.lbads()) => u32::from(format.lbads()),
            _ => 0,
        };
        let extent = Extent {
            stamp,
            blocks: identify.nsze,
            nsid,
            max_bytes: self.max_transfer.min(65536 << shift).min(identify.nsze.saturating_mul(1 << shift))
                as u32,
            block_mask: (1 << shift) - 1,
            shift,
            controller: self.live.controller,
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
