//! Calls of a forked child, while a thread of its parent held the controller's locks at the fork.

use super::{Controller, lock};
use crate::{
    Failure, Result,
    spec::{AdminOpcode, Cns, Command},
};
use upcie_core::dma::DmaBuf;

/// The longest time in seconds that a child may take: it waits for nothing.
const DEADLINE: u32 = 60;

/// Returns the wait status of a child that exits with the code that `work` returns. A signal ends it at the deadline.
fn status_of_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: glibc makes its allocator usable in the child, which takes no other lock of its parent, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the signal ends a child that waits for ever.
        unsafe { libc::alarm(DEADLINE) };
        let code = work();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) }
    }
    let mut status = -1;
    // SAFETY: waits for the child made here.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(ended, child);
    status
}

fn is_refused<T>(result: Result<T>) -> bool {
    let Err(error) = result else { return false };
    match error.failure() {
        Failure::Core(core) => matches!(core.failure(), upcie_core::Failure::Forked { .. }),
        _ => false,
    }
}

#[test]
fn a_childs_calls_take_no_lock_of_its_parent() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let inner = controller.inner();
    // By this thread: the child has no other, and a second lock by the same waits as well.
    let held =
        (inner.subsystem.hold(), inner.effects.hold(), inner.link.live.hold(), lock(&inner.host_buffer.lent));
    let status = status_of_child(|| {
        let identify = Command::identify(Cns::CONTROLLER, 0, 0);
        let format = Command::admin(AdminOpcode::FORMAT_NVM, 1);
        // SAFETY: it is refused.
        let raw = unsafe { controller.admin_entry(&identify, DmaBuf::empty()) };
        let refused = [
            is_refused(raw),
            is_refused(controller.admin(&format, &mut [])),
            is_refused(controller.namespace(1)),
            is_refused(controller.cancel()),
            is_refused(controller.register(0)),
            controller.host_memory() == 0,
        ];
        controller.invalidate_namespaces();
        refused.iter().position(|refused| !refused).map_or(0, |index| index as i32 + 1)
    });
    drop(held);
    assert_eq!(status, 0, "the number of a call that was not refused, or the signal at the deadline");
}
