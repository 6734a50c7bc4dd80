//! Collects telemetry, and answers reads of its log pages.

use super::{media::Media, state::Core, telemetry::BLOCK};
use crate::spec::{LogPageId, Status};
use std::time::Duration;

impl<M: Media> Core<M> {
    /// Returns a telemetry log page for a Get Log Page of `len` bytes at `offset`, and collects new data before, if the
    /// log-specific parameter says so.
    pub(super) fn telemetry_page(
        &mut self,
        id: LogPageId,
        (parameter, len, offset): (u8, u64, u64),
        now: Duration,
    ) -> Result<Vec<u8>, Status> {
        let block = BLOCK as u64;
        if len % block != 0 || offset % block != 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        if id == LogPageId::TELEMETRY_HOST && parameter & 1 != 0 {
            let reason = "a host asked";
            let (text, errors, has_area_4) = self.told(reason, now);
            self.telemetry.collect_host(&text, &errors, has_area_4, reason);
        }
        Ok(self.telemetry.page(id))
    }

    /// Collects the controller's own data, unless the host has not yet read what there is.
    pub(super) fn collect_own(&mut self, reason: &'static str, now: Duration) {
        if !self.telemetry.is_available() {
            let (text, errors, has_area_4) = self.told(reason, now);
            self.telemetry.collect_own(&text, &errors, has_area_4, reason);
        }
    }

    /// Returns the contents of data areas 1 and 2, and whether the host takes area 4.
    fn told(&self, reason: &str, now: Duration) -> (String, Vec<u8>, bool) {
        let counters = &self.io.counters;
        let text = format!(
            "reason: {reason}\nms since power-on: {}\nreads: {}\nwrites: {}\nbytes read: {}\nbytes written: {}\nmedia errors: {}\n\
             errors: {}\n",
            now.as_millis(),
            counters.reads,
            counters.writes,
            counters.bytes_read,
            counters.bytes_written,
            counters.media_errors,
            self.io.errors.count
        );
        let has_area_4 = self.host_data.behavior.extended_telemetry_data_area_4 == 1;
        (text, self.io.errors.page(), has_area_4)
    }
}
