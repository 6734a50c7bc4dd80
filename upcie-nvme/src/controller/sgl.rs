//! The forms of data pointers that the controller takes.

use super::Inner;
use crate::{
    Error, Result,
    engine::{SglUse, Shape},
};

impl Inner {
    /// Returns the use of SGLs by queues that do not set their own.
    pub(crate) fn sgl_use(&self) -> SglUse {
        self.link.options.sgl
    }

    /// Returns the forms of data pointers of a queue that uses SGLs as `usage` says, as far as the controller takes them.
    pub(crate) fn shape(&self, usage: SglUse) -> Shape {
        let (sgl, plain_bytes) = (self.possible(usage), self.plain_bytes());
        Shape {
            page_shift: self.page_shift(),
            sgl,
            // The namespaces know one limit, the controller's.
            plain_bytes: if plain_bytes <= self.prp_bytes(sgl) { plain_bytes } else { 0 },
            sgl_mask: if self.identify().sgls_need_dwords() { 3 } else { 0 },
        }
    }

    /// Returns the most bytes of a command whose prepared PRPs need no look, on a queue that does not set its own use of SGLs,
    /// or where that permits as many.
    pub(crate) fn plain_bytes(&self) -> u64 {
        match self.possible(self.sgl_use()) {
            // Other queues of the controller may keep to PRPs.
            SglUse::Always => u64::MAX,
            usage => self.prp_bytes(usage),
        }
    }

    /// Returns the bytes that a command has by PRPs, wherever they begin in a page.
    fn prp_bytes(&self, usage: SglUse) -> u64 {
        match usage {
            SglUse::Never | SglUse::WhereNeeded => u64::MAX,
            SglUse::Beyond(pages) => (u64::from(pages.max(2)) - 1) << self.page_shift(),
            SglUse::Always => 0,
        }
    }

    /// Returns the use that comes of `usage` with this controller.
    fn possible(&self, usage: SglUse) -> SglUse {
        match (usage, self.registers().quirks().most_prps) {
            _ if !self.identify().supports_sgls() => SglUse::Never,
            (SglUse::WhereNeeded, Some(most)) => SglUse::Beyond(most),
            _ => usage,
        }
    }

    /// Refuses to use SGLs for all data if the controller takes none.
    pub(crate) fn check_sgl(&self, usage: SglUse) -> Result<()> {
        if usage != SglUse::Always || self.identify().supports_sgls() {
            return Ok(());
        }
        Err(Error::unsupported(
            self.name(),
            "it takes no scatter gather lists for I/O (SGLS of Identify is 0): use SglUse::WhereNeeded, which keeps to PRPs",
        ))
    }
}
