//! Boot partitions: two of one size, replaced and activated by Firmware Commit, read by properties or by the log page.
//!
//! Each is locked after power-on (Base 2.1, "Set Features Boot Partition Write Protection"). Resets keep the states.

use super::Host;
use crate::spec::{
    BootPartitionHeader, BootPartitionInformation, BootPartitionProperty, BootPartitionSelect,
    BootPartitionWriteProtection, BootReadStatus, LogPageId, Status,
};
use zerocopy::{FromZeros, IntoBytes};

/// Unit of BPSZ in bytes.
pub(super) const UNIT: u64 = 128 << 10;
/// The most bytes of a partition: an image has no more.
pub(super) const LARGEST: u64 = 16 << 20;
/// Unit of BPROF and BPRSZ in bytes.
const PAGE: u64 = 4096;

/// BPCAP: write protection by feature 85h, none by a replay protected memory block.
pub(super) const CAPABILITIES: u8 = 1 << 2 | 1;

/// The states of a partition in feature 85h. Set Features changes nothing by 0; higher values are reserved, or can't be set.
const NO_CHANGE: u8 = 0;
const UNLOCKED: u8 = 1;
const LOCKED: u8 = 2;
const LOCKED_UNTIL_POWER_CYCLE: u8 = 3;

/// The partitions; they outlive resets.
#[derive(Debug)]
pub(super) struct BootPartitions {
    parts: [Vec<u8>; 2],
    states: [u8; 2],
    active: u8,
}

impl BootPartitions {
    /// Makes two empty partitions; `None` for a size of 0.
    pub fn new(size: u64) -> Option<Self> {
        let part = || vec![0; usize::try_from(size).unwrap_or(0)];
        (size != 0).then(|| Self { parts: [part(), part()], states: [LOCKED; 2], active: 0 })
    }

    /// Returns the value that feature 85h has after a power cycle.
    pub fn default_protection() -> BootPartitionWriteProtection {
        BootPartitionWriteProtection::new().with_partition_0(LOCKED).with_partition_1(LOCKED)
    }

    /// Returns the value of feature 85h.
    pub fn protection(&self) -> BootPartitionWriteProtection {
        let [first, second] = self.states;
        BootPartitionWriteProtection::new().with_partition_0(first).with_partition_1(second)
    }

    /// Sets feature 85h, of both partitions or of none.
    pub fn protect(&mut self, value: BootPartitionWriteProtection) -> Result<(), Status> {
        let wanted = [value.partition_0(), value.partition_1()];
        if wanted.iter().any(|wanted| *wanted > LOCKED_UNTIL_POWER_CYCLE) {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let is_refused = |state: u8, wanted: u8| {
            state == LOCKED_UNTIL_POWER_CYCLE && wanted != NO_CHANGE && wanted != state
        };
        if self.states.iter().zip(wanted).any(|(&state, wanted)| is_refused(state, wanted)) {
            return Err(Status::FEATURE_NOT_CHANGEABLE.with_do_not_retry());
        }
        for (state, wanted) in self.states.iter_mut().zip(wanted) {
            if wanted != NO_CHANGE {
                *state = wanted;
            }
        }
        Ok(())
    }

    /// Locks both partitions, as a power cycle does.
    pub fn lose_power(&mut self) {
        self.states = [LOCKED; 2];
    }

    /// Checks that a partition may be modified.
    pub fn check_unlocked(&self, id: usize) -> Result<(), Status> {
        match self.states.get(id) {
            Some(&UNLOCKED) => Ok(()),
            Some(_) => Err(Status::BOOT_PARTITION_WRITE_PROHIBITED.with_do_not_retry()),
            None => Err(Status::INVALID_FIELD.with_do_not_retry()),
        }
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

    /// Returns `len` bytes of the Boot Partition log page of a partition from `offset` on, or those that it has; `None` beyond its
    /// end.
    pub fn page(&self, id: usize, offset: usize, len: usize) -> Option<Vec<u8>> {
        let mut header = BootPartitionHeader::new_zeroed();
        header.log_page_id = LogPageId::BOOT_PARTITION.0;
        header.information =
            BootPartitionInformation::from_bits(u32::from(self.units()) | u32::from(self.active) << 31);
        let image = self.parts.get(id).map_or(&[][..], Vec::as_slice);
        let header = header.as_bytes();
        let before = header.len().min(offset);
        let image = image.get(offset - before..)?;
        let page = header[before..].iter().chain(image);
        Some(page.take(len).copied().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(states: [u8; 2]) -> BootPartitionWriteProtection {
        BootPartitionWriteProtection::new().with_partition_0(states[0]).with_partition_1(states[1])
    }

    #[test]
    fn a_power_cycle_locks_both_partitions() {
        let mut boot = BootPartitions::new(UNIT).unwrap();
        let refused = Err(Status::BOOT_PARTITION_WRITE_PROHIBITED.with_do_not_retry());
        for states in [[UNLOCKED, LOCKED_UNTIL_POWER_CYCLE], [LOCKED_UNTIL_POWER_CYCLE, UNLOCKED]] {
            assert_eq!(boot.protection(), BootPartitions::default_protection());
            boot.protect(value(states)).unwrap();
            assert_eq!(boot.protection(), value(states));
            for (id, state) in states.into_iter().enumerate() {
                assert_eq!(boot.check_unlocked(id), if state == UNLOCKED { Ok(()) } else { refused });
            }
            boot.lose_power();
        }
        assert_eq!([0, 1].map(|id| boot.check_unlocked(id)), [refused; 2]);
    }
}
