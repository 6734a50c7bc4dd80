//! Calls of a forked child, while a thread of its parent held the controller's locks at the fork.

use super::{Controller, lock};
use crate::{
    Failure, Result,
    spec::{AdminOpcode, Cns, Command},
};
use upcie_core::{dma::DmaBuf, testing::in_child};

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
    let code = in_child(|| {
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
    assert_eq!(code, Some(0), "the number of a call that was not refused, or none after the deadline");
}
