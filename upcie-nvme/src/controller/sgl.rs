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
        let identify = self.identify();
        Shape {
            page_shift: self.page_shift(),
            sgl: if identify.supports_sgls() { usage } else { SglUse::Never },
            sgl_mask: if identify.sgls_need_dwords() { 3 } else { 0 },
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
