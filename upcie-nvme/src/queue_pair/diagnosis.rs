//! A description of a queue whose completions don't come.

use crate::{controller::Inner, engine::Queue};

/// Describes for a message how many commands are in flight, where the rings stand, and what the cause may be.
#[cold]
pub(super) fn diagnose<T>(queue: &Queue<T>, controller: &Inner) -> String {
    format!("{}; {}", queue.position(), cause(queue, controller))
}

fn cause<T>(queue: &Queue<T>, controller: &Inner) -> String {
    if let Err(error) = controller.check_owner("looking for the cause") {
        return error.to_string();
    }
    // Before the controller's status: a failed status may be a consequence of moved memory.
    if let Err(error) = controller.heap().verify() {
        return error.to_string();
    }
    let status = match controller.registers().status() {
        Ok(status) => status,
        Err(error) => return error.to_string(),
    };
    let cause = if queue.is_ready() {
        "a completion has arrived since: it was late, or its interrupt was lost"
    } else if status.cfs() {
        "the controller reports a fatal status"
    } else if !status.rdy() {
        "the controller is not enabled: something else has reset or stopped it"
    } else if status.pp() {
        "the controller has paused processing"
    } else {
        "the controller is enabled and reports no fault: it hangs, or needs more time"
    };
    format!("{cause} (CSTS {:x}h)", status.into_bits())
}
