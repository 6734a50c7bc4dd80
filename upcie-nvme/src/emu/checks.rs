//! Protection information of a command's blocks: made and checked by the controller (NVM, "End-to-end Data Protection").

use super::{formats::Layout, guard::guard};
use crate::spec::{
    ApplicationTagDword15, BlockTagDwords, Command, ProtectionControl, ProtectionFormat, Status,
};

/// The protection that a command asks for, at a namespace that has some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protection {
    layout: Layout,
    control: ProtectionControl,
    slba: u64,
    tags: u128,
    application: ApplicationTagDword15,
}

/// A block that did not pass, counted from the command's first, and the status.
pub(super) type Failed = (u64, Status);

impl Protection {
    /// Returns the protection of a command; `None` if the namespace has none.
    ///
    /// # Errors
    /// Invalid Protection Information.
    pub fn of(layout: Layout, command: &Command) -> Result<Option<Self>, Status> {
        if layout.protection == 0 {
            return Ok(None);
        }
        let control = ProtectionControl::of_dword12(command.cdw12);
        let (dword2, dword3, dword14) = (command.cdw2, command.cdw3, command.cdw14);
        let tags = BlockTagDwords { dword2, dword3, dword14 }.tags();
        let application = ApplicationTagDword15::from_bits(command.cdw15);
        let this = Self { layout, control, slba: command.slba(), tags, application };
        let wrong = match layout.protection {
            // The number of the first block is its reference tag.
            1 => this.reference(0) != u128::from(this.slba) & this.reference_mask(),
            2 => false,
            // It has no meaning to the controller.
            _ => true,
        };
        if control.contains(ProtectionControl::REFERENCE_TAG) && wrong {
            return Err(Status::INVALID_PROTECTION_INFORMATION.with_do_not_retry());
        }
        Ok(Some(this))
    }

    /// Returns `true` if the controller inserts or strips protection information.
    pub fn is_action(&self) -> bool {
        self.control.contains(ProtectionControl::ACTION)
    }

    /// Returns the bytes of the guard, and the bits of the tags after the application tag.
    fn sizes(&self) -> (usize, u32) {
        match self.layout.format().form {
            ProtectionFormat::GUARD_32 => (4, 80),
            ProtectionFormat::GUARD_64 => (8, 48),
            _ => (2, 32),
        }
    }

    fn reference_mask(&self) -> u128 {
        (1 << (self.sizes().1 - u32::from(self.layout.format().storage_bits))) - 1
    }

    /// Returns the reference tag of the block `index` of the command.
    fn reference(&self, index: u64) -> u128 {
        let first = self.tags & self.reference_mask();
        let steps = if self.layout.protection == 3 { 0 } else { u128::from(index) };
        (first + steps) & self.reference_mask()
    }

    /// Returns the storage tag at its position above the reference tag.
    fn storage(&self, tags: u128) -> u128 {
        tags & !self.reference_mask() & ((1 << self.sizes().1) - 1)
    }

    /// Returns the guard of a block with this metadata.
    fn guard(&self, data: &[u8], metadata: &[u8], start: usize) -> u64 {
        guard(self.layout.format().form, [data, metadata.get(..start).unwrap_or_default()])
    }

    /// Makes the protection information of the block `index` of the command.
    pub fn insert(&self, data: &[u8], metadata: &mut [u8], index: u64) {
        let Some(place) = self.layout.protection_place() else { return };
        let guard = self.guard(data, metadata, place.start);
        let ((size, bits), tags) = (self.sizes(), self.storage(self.tags) | self.reference(index));
        let mut bytes = guard.to_be_bytes().get(8 - size..).unwrap_or_default().to_vec();
        bytes.extend(self.application.lbat().to_be_bytes());
        bytes.extend(tags.to_be_bytes().get(16 - bits as usize / 8..).unwrap_or_default());
        if let Some(to) = metadata.get_mut(place).filter(|to| to.len() == bytes.len()) {
            to.copy_from_slice(&bytes);
        }
    }

    /// Checks the protection information of the block `index` of the command.
    pub fn check(&self, data: &[u8], metadata: &[u8], index: u64) -> Result<(), Failed> {
        let Some(place) = self.layout.protection_place() else { return Ok(()) };
        let start = place.start;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |all, &byte| all << 8 | u128::from(byte));
        let found = metadata.get(place).unwrap_or_default();
        let (first, rest) = found.split_at(self.sizes().0.min(found.len()));
        let (application, tags) = rest.split_at(2.min(rest.len()));
        let (application, tags) = (number(application) as u16, number(tags));
        let reference = tags & self.reference_mask();
        let is_exempt =
            application == u16::MAX && (self.layout.protection != 3 || reference == self.reference_mask());
        if is_exempt {
            return Ok(());
        }
        let mask = self.application.lbatm();
        let checks = [
            (
                ProtectionControl::GUARD,
                number(first) as u64 == self.guard(data, metadata, start),
                Status::GUARD_CHECK_ERROR,
            ),
            (
                ProtectionControl::STORAGE_TAG,
                self.storage(tags) == self.storage(self.tags),
                Status::STORAGE_TAG_CHECK_ERROR,
            ),
            (
                ProtectionControl::APPLICATION_TAG,
                application & mask == self.application.lbat() & mask,
                Status::APPLICATION_TAG_CHECK_ERROR,
            ),
            (
                ProtectionControl::REFERENCE_TAG,
                reference == self.reference(index),
                Status::REFERENCE_TAG_CHECK_ERROR,
            ),
        ];
        let failed = checks.into_iter().find(|(check, good, _)| self.control.contains(*check) && !good);
        failed.map_or(Ok(()), |(_, _, status)| Err((index, status)))
    }
}
