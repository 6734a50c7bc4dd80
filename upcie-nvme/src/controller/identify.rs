//! Identify: pages of data, and the list of active namespaces.

use super::Inner;
use crate::{
    Error, Result,
    spec::{Cns, Command},
};

impl Inner {
    /// Runs an Identify command and returns its page of data.
    pub(crate) fn identify_page(&self, command: &Command, what: &str) -> Result<Box<[u8; 4096]>> {
        let (_, data) = self.admin_data(command, self.heap.alloc_zeroed(4096)?, what)?;
        let mut page = Box::new([0; 4096]);
        data.read_at(0, &mut *page);
        Ok(page)
    }

    /// Returns the ids of active namespaces that are greater than `above`, 1024 at most, ascending.
    pub(crate) fn active_above(&self, above: u32) -> Result<Vec<u32>> {
        let what = "Identify (active namespaces)";
        let page = self.identify_page(&Command::identify(Cns::ACTIVE_NAMESPACES, above, 0), what)?;
        let ids = page.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]]));
        let ids: Vec<u32> = ids.take_while(|&id| id != 0).collect();
        if ids.first().is_some_and(|&first| first <= above) || !ids.is_sorted_by(|a, b| a < b) {
            return Err(self.lie(what, "the list is not ascending"));
        }
        Ok(ids)
    }

    pub(crate) fn active_namespaces(&self) -> Result<Vec<u32>> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            let more = self.active_above(all.last().copied().unwrap_or(0))?;
            all.extend(&more);
            // More ids than NN allows: the controller repeats itself, and the list would never end.
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
}
