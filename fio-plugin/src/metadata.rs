//! The metadata of a target's units, and protection information that the engine makes and checks.

use crate::{errors::Failure, ffi::Slot, form::Form};
use std::ops::Range;
use upcie_nvme::{Controller, DmaBuf, protection::ProtectionError};

/// The least page of any memory: metadata that does not cross one is contiguous for the device.
const PAGE: u64 = 4096;

/// One buffer for the metadata of all units, where metadata is apart from the data; empty otherwise.
#[derive(Debug)]
pub(crate) struct MetadataMemory {
    buffer: DmaBuf,
    /// Distance between the metadata of two units.
    stride: usize,
}

impl MetadataMemory {
    /// Allocates metadata of `depth` units of at most `longest` bytes.
    pub(crate) fn new(
        controller: &Controller,
        form: &Form,
        depth: u32,
        longest: u64,
    ) -> Result<Self, Failure> {
        let needed = form.metadata_of(longest);
        if needed == 0 {
            return Ok(Self { buffer: DmaBuf::empty(), stride: 0 });
        }
        let stride = if needed <= PAGE { needed.next_power_of_two() } else { needed.next_multiple_of(PAGE) };
        let all = stride.saturating_mul(depth.into());
        let too_much = || {
            Failure::refused(format!(
                "{}: {all} bytes of metadata: use a smaller bs or iodepth",
                controller.name()
            ))
        };
        let all = usize::try_from(all).map_err(|_| too_much())?;
        // Zeros: metadata that is not protection information goes to the namespace as it is.
        let buffer = controller.heap().alloc_aligned(all, PAGE as usize)?;
        Ok(Self { buffer, stride: stride as usize })
    }

    /// Returns the buffer.
    pub(crate) fn buffer(&self) -> &DmaBuf {
        &self.buffer
    }

    /// Takes the buffer out, for a controller that may still use it.
    pub(crate) fn take(&mut self) -> DmaBuf {
        std::mem::take(&mut self.buffer)
    }

    /// Returns the place of a unit's metadata in the buffer, where it has `len` bytes.
    pub(crate) fn range(&self, index: u32, len: u64) -> Range<usize> {
        let start = index as usize * self.stride;
        start..start + len as usize
    }

    /// Makes the protection information of a unit that is to be written. A unit that is no whole blocks is left to the refusal
    /// of its submission.
    pub(crate) fn generate(&self, form: &Form, index: u32, slot: &Slot) {
        let Some((slba, data, apart)) = self.parts(form, index, slot) else { return };
        let Some(protect) = &form.protect else { return };
        // SAFETY: the unit's memory, `len` bytes of it, which fio has left to the engine; no command uses it now.
        let data = unsafe { std::slice::from_raw_parts_mut(data, slot.len as usize) };
        if form.metadata == 0 {
            return form.format.generate(slba, data, protect);
        }
        // SAFETY: within the buffer, as `parts` has checked; the unit's own bytes, and no command of it is in flight.
        let metadata = unsafe { std::slice::from_raw_parts_mut(apart, form.metadata_of(slot.len) as usize) };
        form.format.generate_separate(slba, data, metadata, protect);
    }

    /// Checks the protection information of a unit that was read.
    pub(crate) fn check(&self, form: &Form, index: u32, slot: &Slot) -> Result<(), ProtectionError> {
        let Some((slba, data, apart)) = self.parts(form, index, slot) else { return Ok(()) };
        let Some(protect) = &form.protect else { return Ok(()) };
        // SAFETY: the unit's memory, `len` bytes of it, which fio has left to the engine; no command uses it now.
        let data = unsafe { std::slice::from_raw_parts(data, slot.len as usize) };
        if form.metadata == 0 {
            return form.format.verify(slba, data, protect);
        }
        // SAFETY: within the buffer, as `parts` has checked; the unit's own bytes, and no command of it is in flight.
        let metadata = unsafe { std::slice::from_raw_parts(apart, form.metadata_of(slot.len) as usize) };
        form.format.verify_separate(slba, data, metadata, protect)
    }

    /// Returns a unit's first block, its data and its metadata; `None` if it is no whole blocks, or has more metadata than there
    /// is room for.
    fn parts(&self, form: &Form, index: u32, slot: &Slot) -> Option<(u64, *mut u8, *mut u8)> {
        let is_whole = slot.offset.is_multiple_of(form.block) && slot.len.is_multiple_of(form.block);
        let apart = self.range(index, form.metadata_of(slot.len));
        if !is_whole || slot.buf.is_null() || apart.end > self.buffer.len() || apart.len() > self.stride {
            return None;
        }
        // SAFETY: within the buffer, as checked, or at the end of an empty one.
        let apart = unsafe { self.buffer.as_ptr().add(apart.start) };
        Some((slot.offset / form.block, slot.buf, apart))
    }
}
