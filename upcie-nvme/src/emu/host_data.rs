//! What a host tells of itself: its behavior, the time, and that it is alive.

use super::host_buffer::HostBuffer;
use crate::spec::{HostBehaviorData, TimestampAttributes, TimestampData};
use std::time::Duration;
use zerocopy::FromZeros;

/// Units of the keep alive timer, in 100 ms (KAS).
pub(super) const KEEP_ALIVE_UNITS: u16 = 1;

/// The values that hosts set by data, and the keep alive timer.
#[derive(Debug)]
pub(super) struct HostData {
    pub behavior: HostBehaviorData,
    /// The host's time in ms since 1970, and the time since power-on at which it was set.
    pub timestamp: Option<(u64, Duration)>,
    /// The keep alive timeout in ms; 0 is off.
    pub keep_alive: u32,
    /// Memory that the host lends.
    pub buffer: HostBuffer,
    /// The last sign of life.
    alive: Duration,
}

impl Default for HostData {
    fn default() -> Self {
        Self {
            behavior: HostBehaviorData::new_zeroed(),
            timestamp: None,
            keep_alive: 0,
            buffer: HostBuffer::default(),
            alive: Duration::ZERO,
        }
    }
}

impl HostData {
    /// Clears what a controller reset clears; the timestamp goes on.
    pub fn reset(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.disable();
        *self = Self { timestamp: self.timestamp, buffer, ..Self::default() };
    }

    /// Notes a Keep Alive command.
    pub fn keep_alive(&mut self, now: Duration) {
        self.alive = now;
    }

    /// Returns `true` while a keep alive timeout is set.
    pub fn has_timeout(&self) -> bool {
        self.keep_alive != 0
    }

    /// Returns `true` if the keep alive timer has run out.
    pub fn is_abandoned(&self, now: Duration) -> bool {
        self.has_timeout() && now > self.alive + Duration::from_millis(self.keep_alive.into())
    }

    /// Returns the Timestamp: the host's, or the time since power-on.
    pub fn time(&self, now: Duration) -> TimestampData {
        let millis = |time: Duration| time.as_millis() as u64;
        let (time, origin) = match self.timestamp {
            Some((base, at)) => (base.wrapping_add(millis(now.saturating_sub(at))), 1),
            None => (millis(now), 0),
        };
        let mut data = TimestampData::new_zeroed();
        data.timestamp.copy_from_slice(&time.to_le_bytes()[..6]);
        data.attributes = TimestampAttributes::new().with_origin(origin);
        data
    }
}
