//! The repetition of commands of blocking calls that the controller has failed without "do not retry" (DNR).
//!
//! | command | repeated | reason |
//! |---|---|---|
//! | Read | yes | it changes nothing |
//! | Flush | yes | what is durable stays so |
//! | Write, Write Zeroes | no | another writer may have changed the blocks since: the repetition would undo that |
//! | Retrieve, Exist, List | yes | they change nothing |
//! | Store, Delete | no | another writer may have changed the key since |
//! | Dataset Management, Write Uncorrectable, Copy | no | the blocks may have been written since |
//! | Compare, Verify | no | a failure is what they look for |

use crate::{
    Result,
    controller::{Inner, Limit},
    spec::Status,
};

/// The repetitions that a call has left.
#[derive(Debug)]
pub(super) struct Tries {
    /// The most repetitions of one command.
    most: u32,
    /// The command that failed last, and its repetitions.
    last: (u64, u32),
}

impl Tries {
    /// No repetition.
    pub(super) const NONE: Self = Self { most: 0, last: (0, 0) };

    /// Returns the repetitions that the controller was opened with.
    pub(super) fn of(controller: &Inner) -> Self {
        Self { most: controller.retries(), ..Self::NONE }
    }

    /// Decides whether a command that `failed` with a status is sent again. Waits for the time that the status asks for first;
    /// if that ends after the `limit`, the command is not sent again.
    ///
    /// # Errors
    /// The controller is gone or fails.
    pub(super) fn again(
        &mut self,
        controller: &Inner,
        failed: (Status, u64),
        limit: &mut Limit<'_>,
        what: &dyn Fn() -> String,
    ) -> Result<bool> {
        let (status, tag) = failed;
        if tag != self.last.0 {
            self.last = (tag, 0);
        }
        self.last.1 += 1;
        if self.last.1 > self.most || status.do_not_retry() {
            return Ok(false);
        }
        // Without the queue of the blocking calls: other threads use it meanwhile.
        controller.wait_to_retry(status, limit, what)
    }
}
