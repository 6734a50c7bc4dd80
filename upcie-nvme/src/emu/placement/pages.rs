//! Log pages of the endurance group and of its flexible data placement.

use super::super::{io::Io, media::Media};
use crate::spec::{
    EnduranceGroupLog, HandleUsage, HandleUsageHeader, LogPageId, PlacementConfiguration,
    PlacementConfigurationsHeader, PlacementEvent, PlacementEventsLog, PlacementStatisticsLog,
    ReclaimUnitHandle, Status,
};
use zerocopy::{FromZeros, IntoBytes};

/// Initially isolated: the controller may move data of several handles to one unit.
const ISOLATED: u8 = 1;

impl<M: Media> Io<M> {
    /// Returns a log page of this file; `parameter` is the log-specific one.
    pub(in super::super) fn placement_page(&self, id: LogPageId, parameter: u8) -> Result<Vec<u8>, Status> {
        let placement = self.placement.as_ref().ok_or(Status::INVALID_LOG_PAGE.with_do_not_retry())?;
        let (written, erased) = placement.counted();
        Ok(match id {
            LogPageId::ENDURANCE_GROUP => {
                // In 10^9 bytes, rounded up.
                let units = |bytes: u128| bytes.div_ceil(1_000_000_000).to_le_bytes();
                let mut log = EnduranceGroupLog::new_zeroed();
                (log.available_spare, log.available_spare_threshold) = (100, 10);
                log.data_units_read = units(self.counters.bytes_read.into());
                (log.data_units_written, log.media_units_written) = (units(written), units(written));
                log.host_read_commands = u128::from(self.counters.reads).to_le_bytes();
                log.host_write_commands = u128::from(self.counters.writes).to_le_bytes();
                log.total_capacity = u128::from(self.capacity).to_le_bytes();
                log.unallocated_capacity = u128::from(self.unallocated()).to_le_bytes();
                log.as_bytes().to_vec()
            }
            LogPageId::FDP_CONFIGURATIONS => {
                let mut configuration = placement.configuration();
                let handles = usize::from(configuration.reclaim_unit_handles);
                let len = size_of::<PlacementConfiguration>() + handles * size_of::<ReclaimUnitHandle>();
                configuration.descriptor_length = len.next_multiple_of(8) as u16;
                let mut header = PlacementConfigurationsHeader::new_zeroed();
                header.length = (size_of_val(&header) + len.next_multiple_of(8)) as u32;
                let mut page = header.as_bytes().to_vec();
                page.extend(configuration.as_bytes());
                for _ in 0..handles {
                    let handle = ReclaimUnitHandle { handle_type: ISOLATED, ..FromZeros::new_zeroed() };
                    page.extend(handle.as_bytes());
                }
                page.resize(header.length as usize, 0);
                page
            }
            // The others have no meaning while it is off.
            _ if !placement.is_on() => return Err(Status::FDP_DISABLED.with_do_not_retry()),
            LogPageId::RECLAIM_UNIT_HANDLE_USAGE => {
                let usage: Vec<_> = placement.usage().collect();
                let mut header = HandleUsageHeader::new_zeroed();
                header.reclaim_unit_handles = usage.len() as u16;
                let mut page = header.as_bytes().to_vec();
                for usage in usage {
                    let handle = HandleUsage { attributes: usage as u8, ..FromZeros::new_zeroed() };
                    page.extend(handle.as_bytes());
                }
                page
            }
            LogPageId::FDP_STATISTICS => {
                let mut log = PlacementStatisticsLog::new_zeroed();
                log.host_bytes_with_metadata_written = written.to_le_bytes();
                log.media_bytes_with_metadata_written = written.to_le_bytes();
                log.media_bytes_erased = erased.to_le_bytes();
                log.as_bytes().to_vec()
            }
            _ => {
                // Bit 0: those of hosts. The controller does nothing that would be an event of its own.
                let events = placement.events().take(if parameter & 1 == 1 { usize::MAX } else { 0 });
                let mut page = PlacementEventsLog::new_zeroed().as_bytes().to_vec();
                let start = page.len() - 63 * size_of::<PlacementEvent>();
                let mut count = 0_u32;
                for (room, event) in page[start..].chunks_exact_mut(size_of::<PlacementEvent>()).zip(events) {
                    room.copy_from_slice(event.as_bytes());
                    count += 1;
                }
                page[..4].copy_from_slice(&count.to_le_bytes());
                page
            }
        })
    }
}
