//! Reports of zones: ZNS, "Zone Management Receive command".

use super::Zones;
use crate::spec::{Status, ZoneDescriptor, ZoneFilter, ZoneReceiveDword13, ZoneReportHeader};
use zerocopy::{FromZeros, IntoBytes};

impl Zones {
    /// Returns the report that a Zone Management Receive asks for, from the zone of block `slba` on, as far as `len` bytes have
    /// room for it, and the number of zones that it has looked at.
    pub(super) fn report(
        &self,
        slba: u64,
        len: usize,
        dword: ZoneReceiveDword13,
    ) -> Result<(Vec<u8>, u64), Status> {
        let first = self.index_of(slba)?;
        let filter = dword.filter();
        let is_known = filter == ZoneFilter::ALL || filter.state().is_some();
        let extension = match dword.action() {
            ZoneReceiveDword13::REPORT => Some(0),
            // The extended report is for zones with descriptor extensions.
            ZoneReceiveDword13::EXTENDED_REPORT => Some(self.extension_size()).filter(|&size| size > 0),
            _ => None,
        };
        let extension = extension.ok_or(Status::INVALID_FIELD.with_do_not_retry())?;
        if !is_known || len < size_of::<ZoneReportHeader>() {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let listed = |index: &usize| filter.state().is_none_or(|state| self.state(*index) == Some(state));
        let matching = (first..self.count()).filter(listed);
        let room = (len - size_of::<ZoneReportHeader>()) / (size_of::<ZoneDescriptor>() + extension);
        let descriptors =
            matching.clone().take(room).filter_map(|index| Some((index, self.describe(index)?)));
        let mut report = ZoneReportHeader::new_zeroed().as_bytes().to_vec();
        let mut count = 0_u64;
        for (index, descriptor) in descriptors {
            report.extend(descriptor.as_bytes());
            let end = report.len() + extension;
            if extension > 0 {
                report.extend(self.extension(index).unwrap_or_default());
            }
            report.resize(end, 0);
            count += 1;
        }
        if !dword.partial() {
            count = matching.count() as u64;
        }
        report[..8].copy_from_slice(&count.to_le_bytes());
        let is_short = dword.partial() && filter == ZoneFilter::ALL;
        let seen = if is_short { count } else { (self.count() - first) as u64 };
        Ok((report, seen))
    }
}
