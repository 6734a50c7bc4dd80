//! Sanitize operations: their progress, and the log of the last one. An operation takes a while, for its progress to be seen, and
//! longer if its medium does. If the medium does not erase the data, the operation ends as failed, and no namespace takes commands
//! until another one succeeds.

use crate::spec::{SanitizeAction, SanitizeState, SanitizeStateInformation, SanitizeStatusLog, Status};
use std::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// Crypto erase, block erase and overwrite; all of them deallocate, and nothing else changes the medium.
pub(super) const CAPABILITIES: u32 = 0b111 | 1 << 29 | 1 << 30;
/// The time of an erase, and of each pass of an overwrite.
const TAKES: Duration = Duration::from_millis(200);
/// Bit 3 of command dword 10 (AUSE): a failure may be left by Exit Failure Mode.
const UNRESTRICTED: u32 = 1 << 3;
/// The time in the log, in seconds, rounded up.
const ESTIMATE: u32 = 1;

/// The last Sanitize operation.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    /// Command dword 10 of the last Sanitize.
    dword: u32,
    state: SanitizeState,
    /// The beginning and the duration of the operation in progress.
    running: Option<(Duration, Duration)>,
    /// The medium is erased, or has failed to be.
    erased: bool,
    /// The operation in progress does not succeed, or the last one has not.
    failed: bool,
    /// The number of writes when it ended: the media was not written to while it stays.
    writes: u64,
}

impl Sanitizer {
    /// Returns `true` while an operation is in progress.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Returns `true` while the last operation has failed, and the failure was not left.
    pub fn has_failed(&self) -> bool {
        self.running.is_none() && self.failed
    }

    /// Notes that the medium is erased, or that this has failed: the operation in progress ends accordingly when its time is over.
    pub fn erased(&mut self, succeeded: bool) {
        self.erased = true;
        self.failed |= !succeeded;
    }

    /// Begins an operation; returns `false` if the command begins none, and there is no failure any more.
    pub fn begin(&mut self, dword: u32, now: Duration) -> Result<bool, Status> {
        let passes = match SanitizeAction((dword & 7) as u8) {
            SanitizeAction::EXIT_FAILURE if self.failed && self.dword & UNRESTRICTED == 0 => {
                return Err(Status::SANITIZE_FAILED.with_do_not_retry());
            }
            SanitizeAction::EXIT_FAILURE => {
                self.failed = false;
                return Ok(false);
            }
            SanitizeAction::BLOCK_ERASE | SanitizeAction::CRYPTO_ERASE => 1,
            SanitizeAction::OVERWRITE => (dword >> 4 & 0xf).wrapping_sub(1) % 16 + 1,
            _ => return Err(INVALID_FIELD),
        };
        // No-deallocate is inhibited, and media verification is not there.
        if dword >> 9 & 3 != 0 {
            return Err(INVALID_FIELD);
        }
        (self.dword, self.erased, self.failed) = (dword, false, false);
        self.running = Some((now, TAKES * passes));
        self.state = SanitizeState::new().with_operation(2);
        Ok(true)
    }

    /// Ends the operation if its time is over and the medium erased; returns `true` if so. `writes` is the number of writes so far.
    pub fn settle(&mut self, now: Duration, writes: u64) -> bool {
        let over = self.erased && self.running.is_some_and(|(from, takes)| now >= from + takes);
        if over {
            self.running = None;
            let passes = if self.dword & 7 == 3 && !self.failed { self.dword >> 4 & 0xf } else { 0 };
            let ended = SanitizeState::new().with_operation(if self.failed { 3 } else { 1 });
            self.state = ended.with_overwrite_passes(passes as u8);
            self.writes = writes;
        }
        over
    }

    /// Returns the Sanitize Status log page. `erased` is the share of the medium that is erased, in 1/65536.
    pub fn page(&self, now: Duration, writes: u64, erased: u128) -> Vec<u8> {
        let mut log = SanitizeStatusLog::new_zeroed();
        let done = |(from, takes): (Duration, Duration)| {
            let share = (now.saturating_sub(from)).as_micros() * 65536 / takes.as_micros();
            share.min(erased).min(65535) as u16
        };
        log.progress = self.running.map_or(0xffff, done);
        let is_clean = self.state.operation() == 1 && writes == self.writes;
        log.status = self.state.with_global_data_erased(is_clean);
        log.command_dword_10 = self.dword;
        let estimates =
            [&mut log.time_for_overwrite, &mut log.time_for_block_erase, &mut log.time_for_crypto_erase];
        estimates.into_iter().for_each(|time| *time = ESTIMATE);
        log.time_for_overwrite_without_deallocation = u32::MAX;
        log.time_for_block_erase_without_deallocation = u32::MAX;
        log.time_for_crypto_erase_without_deallocation = u32::MAX;
        log.time_for_post_verification_deallocation = u32::MAX;
        // Processing and failure are 1 and 2 if they are restricted, 3 and 4 if not.
        let unrestricted = if self.dword & UNRESTRICTED == 0 { 0 } else { 2 };
        let (state, failure) = match () {
            () if self.is_running() => (1 + unrestricted, 0),
            () if self.failed => (2 + unrestricted, 1 + unrestricted),
            () => (0, 0),
        };
        log.state_information = SanitizeStateInformation::new().with_state(state).with_failure_state(failure);
        log.as_bytes().to_vec()
    }
}
