//! Device self-tests: their progress, and the log of the last ones. They find nothing.

use crate::spec::{SelfTestCode, SelfTestLog, SelfTestResult, SelfTestStatus, Status};
use std::{collections::VecDeque, time::Duration};
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// The time of an extended test, in minutes (EDSTT).
pub(super) const EXTENDED_MINUTES: u16 = 1;
const SHORT: Duration = Duration::from_millis(300);
/// Results that the log has.
const RESULTS: usize = 20;

/// Result of a test (Base, "Device Self-test Status").
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Passed = 0,
    Aborted = 1,
    Reset = 2,
    Formatted = 4,
    Sanitized = 9,
}

/// The test in progress, and the results of earlier ones.
#[derive(Debug, Default)]
pub(super) struct SelfTests {
    running: Option<Running>,
    /// The newest first.
    results: VecDeque<SelfTestResult>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    code: SelfTestCode,
    nsid: u32,
    from: Duration,
    takes: Duration,
}

impl SelfTests {
    /// Begins a test, or ends the one in progress.
    pub fn command(&mut self, code: SelfTestCode, nsid: u32, now: Duration) -> Result<(), Status> {
        self.settle(now);
        let takes = match code {
            SelfTestCode::SHORT => SHORT,
            SelfTestCode::EXTENDED => Duration::from_secs(60) * EXTENDED_MINUTES.into(),
            SelfTestCode::ABORT => {
                self.end(Ended::Aborted, now);
                return Ok(());
            }
            _ => return Err(INVALID_FIELD),
        };
        if self.running.is_some() {
            return Err(Status::SELF_TEST_IN_PROGRESS.with_do_not_retry());
        }
        self.running = Some(Running { code, nsid, from: now, takes });
        Ok(())
    }

    /// Ends the test if its time is over.
    pub fn settle(&mut self, now: Duration) {
        if self.running.is_some_and(|running| now >= running.from + running.takes) {
            self.end(Ended::Passed, now);
        }
    }

    /// Ends the test for the reason of a command.
    pub fn end(&mut self, ended: Ended, now: Duration) {
        let Some(running) = self.running.take() else { return };
        let mut result = SelfTestResult::new_zeroed();
        result.status = SelfTestStatus::new().with_result(ended as u8).with_test(running.code.0);
        result.power_on_hours = (now.as_secs() / 3600).into();
        if !matches!(running.nsid, 0 | u32::MAX) {
            result.valid.set_namespace_id(true);
            result.namespace_id = running.nsid.into();
        }
        self.results.truncate(RESULTS - 1);
        self.results.push_front(result);
    }

    /// Ends a short test: the controller is reset. An extended one goes on.
    pub fn reset(&mut self) {
        if let Some(running) = self.running.filter(|running| running.code == SelfTestCode::SHORT) {
            self.end(Ended::Reset, running.from);
        }
    }

    /// Returns the Device Self-test log page.
    pub fn page(&mut self, now: Duration) -> Vec<u8> {
        self.settle(now);
        let mut log = SelfTestLog::new_zeroed();
        if let Some(Running { code, from, takes, .. }) = self.running {
            log.current_operation = code.0;
            let percent = now.saturating_sub(from).as_millis() * 100 / takes.as_millis();
            log.current_completion = percent.min(99) as u8;
        }
        let mut unused = SelfTestResult::new_zeroed();
        unused.status = SelfTestStatus::new().with_result(15);
        log.all_results = [unused; RESULTS];
        for (entry, result) in log.all_results.iter_mut().zip(&self.results) {
            *entry = *result;
        }
        log.as_bytes().to_vec()
    }
}
