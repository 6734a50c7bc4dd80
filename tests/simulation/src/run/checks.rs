//! The properties.

use super::{Broken, Class, Run};
use crate::{
    case::BLOCKS,
    model::Read,
    stamp::{BLOCK, version_of},
};

impl Run<'_> {
    /// Checks the blocks that a read returned: each has a version that it may have.
    pub(super) fn check_read(&self, read: &Read, data: &[u8]) -> Result<(), Broken> {
        if !self.case.is_honest() {
            return Ok(());
        }
        for ((lba, allowed), block) in (read.lba..).zip(&read.allowed).zip(data.chunks(BLOCK)) {
            match version_of(lba, block) {
                Some(version) if allowed.contains(&version) => {}
                Some(version) => {
                    return Err(format!("block {lba} has version {version}, and may have {allowed:?} only"));
                }
                None => return Err(format!("block {lba} has none of its versions: {:02x?}…", &block[..16])),
            }
        }
        Ok(())
    }

    /// Reads all blocks of a controller without commands in flight: each has a version that it may have.
    pub(super) fn check_blocks(&mut self) -> Result<(), Broken> {
        let Some((controller, namespace)) = self.open.take() else { return Ok(()) };
        let mut result = Ok(());
        for lba in 0..BLOCKS {
            let mut data = [0; BLOCK];
            let allowed = self.model.read(lba, 1);
            // A read that fails is checked elsewhere.
            if let Err(error) = namespace.read_at(lba * BLOCK as u64, &mut data) {
                if !matches!(self.case.class, Class::Failing | Class::Hanging) {
                    result = result.and(self.excuse(&error));
                }
                continue;
            }
            result = result.and(self.check_read(&allowed, &data));
            if let Some(version) = version_of(lba, &data) {
                self.model.settle(lba, version);
            }
        }
        self.open = Some((controller, namespace));
        result
    }

    /// Checks that nothing is left when all handles are dropped: payloads, and memory of the controller.
    pub(super) fn check_balance(&self) -> Result<(), Broken> {
        if let Some((id, ends)) = self.ledger.unbalanced() {
            return Err(format!("command {id} came back {ends} times"));
        }
        let ranges = self.world.device.mapped_ranges();
        // Memory of a controller that can't be stopped is kept.
        if ranges > 0 && self.case.class != Class::Dying {
            return Err(format!("{ranges} ranges of memory are left mapped"));
        }
        Ok(())
    }
}
