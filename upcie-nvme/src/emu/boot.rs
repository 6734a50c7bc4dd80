//! Boot partitions: two of one size, replaced and activated by Firmware Commit, read by properties or by the log page.

use super::Host;
use crate::spec::{
    BootPartitionHeader, BootPartitionInformation, BootPartitionProperty, BootPartitionSelect,
    BootReadStatus, LogPageId, Status,
};
use zerocopy::{FromZeros, IntoBytes};

/// Unit of BPSZ in bytes.
pub(super) const UNIT: u64 = 128 << 10;
/// The most bytes of a partition: an image has no more.
pub(super) const LARGEST: u64 = 16 << 20;
/// Unit of BPROF and BPRSZ in bytes.
const PAGE: u64 = 4096;

/// The partitions; they outlive resets.
#[derive(Debug)]
pub(super) struct BootPartitions {
    parts: [Vec<u8>; 2],
    active: u8,
}

impl BootPartitions {
    /// Makes two empty partitions; `None` for a size of 0.
    pub fn new(size: u64) -> Option<Self> {
        let part = || vec![0; usize::try_from(size).unwrap_or(0)];
        (size != 0).then(|| Self { parts: [part(), part()], active: 0 })
    }

    /// Replaces a partition by an image; the rest of it is zeros.
    pub fn replace(&mut self, id: usize, image: &[u8]) -> Result<(), Status> {
        let part = self.parts.get_mut(id).ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
        if image.is_empty() || image.len() > part.len() {
            return Err(Status::INVALID_FIRMWARE_IMAGE.with_do_not_retry());
        }
        part.fill(0);
        part[..image.len()].copy_from_slice(image);
        Ok(())
    }

    /// Makes a partition the active one.
    pub fn activate(&mut self, id: u8) {
        self.active = id;
    }

    fn units(&self) -> u16 {
        (self.parts[0].len() as u64 / UNIT) as u16
    }

    /// Returns the Boot Partition log page of a partition.
    pub fn page(&self, id: usize) -> Vec<u8> {
        let mut header = BootPartitionHeader::new_zeroed();
        header.log_page_id = LogPageId::BOOT_PARTITION.0;
        header.information =
            BootPartitionInformation::from_bits(u32::from(self.units()) | u32::from(self.active) << 31);
        let mut page = header.as_bytes().to_vec();
        page.extend_from_slice(self.parts.get(id).map_or(&[], Vec::as_slice));
        page
    }

    /// Returns the bytes that a selection names, if they are within the partition.
    fn selected(&self, select: BootPartitionSelect) -> Option<&[u8]> {
        let start = u64::from(select.bprof()) * PAGE;
        let end = start + u64::from(select.bprsz()) * PAGE;
        self.parts[usize::from(select.bpid())].get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// The properties of boot partitions.
#[derive(Debug, Default)]
pub(super) struct BootProperties {
    pub select: BootPartitionSelect,
    /// BPMBL.
    pub buffer: u64,
    status: BootReadStatus,
}

impl BootProperties {
    /// Returns BPINFO; 0 without partitions.
    pub fn information(&self, partitions: Option<&BootPartitions>) -> u32 {
        let Some(partitions) = partitions else { return 0 };
        BootPartitionProperty::new()
            .with_bpsz(partitions.units())
            .with_brs(self.status)
            .with_abpid(partitions.active == 1)
            .into_bits()
    }

    /// Carries out the read that BPRSEL names.
    pub fn read(&mut self, partitions: Option<&BootPartitions>, may_write: bool, host: &mut impl Host) {
        let bytes = partitions.and_then(|partitions| partitions.selected(self.select));
        let read = bytes.filter(|bytes| may_write && !bytes.is_empty()).is_some_and(|bytes| {
            let mut pages = bytes.chunks(PAGE as usize).zip(0_u64..);
            pages.all(|(page, index)| host.write(self.buffer.wrapping_add(index * PAGE), page).is_ok())
        });
        self.status = if read { BootReadStatus::COMPLETED } else { BootReadStatus::FAILED };
    }
}
