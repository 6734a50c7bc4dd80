//! The delays that a controller asks for before a command is sent again (Base, "Command Retry Delay" of the status, and
//! feature "Host Behavior Support").

use super::{Inner, Limit};
use crate::{
    Error, Result,
    spec::{Command, FeatureId, Status},
    wait::LOOK,
};
use std::time::Duration;

/// Bytes of Host Behavior Support. Byte 0 is ACRE: statuses then name a delay. Byte 2 is LBAFEE: namespaces may have formats
/// with 32- and 64-bit guards, or with storage tags. Byte 4 is CDFE: source ranges of a Copy may have formats 2 and 3.
const BEHAVIOR: usize = 512;

impl Inner {
    /// Returns how often a command that changes nothing may be sent again.
    pub(crate) fn retries(&self) -> u32 {
        self.link.options.retries
    }

    /// Returns the delay that a status asks for: CRDT1 to CRDT3 of Identify Controller, in units of 100 ms, or none.
    fn retry_delay(&self, status: Status) -> Duration {
        let index = usize::from(status.retry_delay()).checked_sub(1);
        let units = index.and_then(|index| self.properties.identify.crdt.get(index).copied());
        Duration::from_millis(100) * u32::from(units.unwrap_or(0))
    }

    /// Waits for the time that a status asks for. Returns `false`, at once, if that does not end within `limit`.
    ///
    /// # Errors
    /// The controller is gone or fails.
    pub(crate) fn wait_to_retry(
        &self,
        status: Status,
        limit: &mut Limit<'_>,
        what: &dyn Fn() -> String,
    ) -> Result<bool> {
        let delay = self.retry_delay(status);
        if delay >= limit.left() {
            return Ok(false);
        }
        tracing::debug!(device = self.name(), %status, ?delay, "{}: sent again", what());
        let clock = self.clock();
        let end = clock.now().saturating_add(delay);
        loop {
            let rest = end.saturating_sub(clock.now());
            if rest.is_zero() {
                return Ok(true);
            }
            clock.sleep(rest.min(LOOK));
            // A stopwatch counts at most 250 ms between two readings.
            limit.left();
            self.check_alive_once(what)?;
        }
    }

    /// Sends a command that reads what the controller says, by `send`, and up to `most` times again while the controller fails it
    /// without "do not retry": after the delay that the status asks for, within `limit`.
    pub(super) fn retrying<R>(
        &self,
        most: u32,
        what: &dyn Fn() -> String,
        limit: &mut Limit<'_>,
        mut send: impl FnMut(&mut Limit<'_>) -> Result<R>,
    ) -> Result<R> {
        let mut left = most;
        loop {
            let result = send(limit);
            let status = result.as_ref().err().and_then(Error::status);
            let Some(status) = status.filter(|status| left > 0 && !status.do_not_retry()) else {
                return result;
            };
            left -= 1;
            if !self.wait_to_retry(status, limit, what)? {
                return result;
            }
        }
    }

    /// Returns the formats of source ranges that the controller takes, one bit each: those of other namespaces if they are
    /// turned on.
    pub(super) fn copy_formats(&self) -> u16 {
        // Older controllers report none, and have format 0.
        let all = match self.properties.identify.cdfs {
            0 => 0b11,
            formats => formats,
        };
        all & if self.link.options.copies_between { 0b1111 } else { 0b0011 }
    }

    /// Tells the controller what this driver copes with, at bring-up and after a reset: delays of retries, if it has some and
    /// commands are sent again, extended block formats, and copies between namespaces if they are turned on. A controller that
    /// refuses reports no delays, and commands are sent again at once.
    pub(super) fn tell_behavior(&self, limit: &mut Limit<'_>) -> Result<()> {
        let delays = self.retries() != 0 && self.properties.identify.crdt != [0; 3];
        let formats = self.properties.identify.has_extended_formats();
        let copies = self.copy_formats() as u8 & 0b1100;
        if !delays && !formats && copies == 0 {
            return Ok(());
        }
        let _budget = limit.budget();
        let mut data = self.memory.heap.alloc(BEHAVIOR)?;
        data.write_at(0, &[delays.into(), 0, formats.into(), 0, copies]);
        let command = Command::set_features(FeatureId::HOST_BEHAVIOR_SUPPORT, 0);
        match self.admin_data(&command, data, "Set Features (Host Behavior Support)", limit) {
            Err(error) if error.status().is_some() => {
                tracing::warn!(
                    device = self.name(),
                    %error,
                    "it reports no delays before retries, has plain block formats, and copies within namespaces"
                );
                Ok(())
            }
            other => other.map(drop),
        }
    }
}
