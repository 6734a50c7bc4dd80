//! The server against clients that set interrupts: invalid settings, other files than eventfds, eventfds that block.

use super::{hostile_client::default_session, *};
use crate::{
    irq::EventFd,
    memory::other_files,
    vfio_user::wire::{SetIrqs, vfio},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        eventfd::EfdFlags,
        memfd::{MFdFlags, memfd_create},
    },
};

#[test]
fn invalid_interrupt_settings_are_refused() {
    let mut session = default_session();
    let set = |flags, index, start, count| SetIrqs { argsz: 20, flags, index, start, count };
    let (none, boolean, eventfd) = (vfio::SET_NONE, vfio::SET_BOOL, vfio::SET_EVENTFD);
    let (mask, unmask, trigger) = (vfio::SET_MASK, vfio::SET_UNMASK, vfio::SET_TRIGGER);
    let irq = EventFd::new().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let (one, nothing) = (&[irq.as_fd()][..], &[][..]);
    for (bad, data, fds) in [
        (set(eventfd | trigger, 5, 0, 1), &[][..], one),
        (set(eventfd | trigger, 2, 20, 1), &[], one),
        (set(eventfd | trigger, 2, 1, u32::MAX), &[], one),
        (set(eventfd | trigger, 2, 0, 2), &[], one),
        (set(eventfd | trigger, 2, 0, 1), &[], &[socket.as_fd()]),
        (set(none | trigger, 2, 0, 1), &[], one),
        (set(none | boolean | trigger, 2, 0, 1), &[1], nothing),
        (set(none | mask | trigger, 2, 0, 1), &[], nothing),
        (set(none, 2, 0, 1), &[], nothing),
        (set(boolean | trigger, 2, 0, 2), &[1], nothing),
        (set(none | mask, 3, 0, 1), &[], nothing),
        (set(none | trigger | 1 << 9, 2, 0, 1), &[], nothing),
    ] {
        assert_eq!(session.set(bad, data, fds), Err(Errno::EINVAL), "{bad:?}");
    }
    assert_eq!(session.set(set(eventfd | mask, 2, 0, 1), &[], one), Err(Errno::ENOTSUP));

    // With an eventfd, and triggered by the client itself.
    session.set(set(eventfd | trigger, 2, 1, 1), &[], one).unwrap();
    session.set(set(boolean | trigger, 2, 0, 3), &[1, 0, 1], nothing).unwrap();
    assert_eq!(irq.take().unwrap(), 0);
    session.set(set(boolean | trigger, 2, 0, 3), &[0, 1, 0], nothing).unwrap();
    assert_eq!(irq.take().unwrap(), 1);
    // Setting no descriptors removes the eventfds.
    session.set(set(eventfd | trigger, 2, 0, 20), &[], nothing).unwrap();
    session.set(set(none | trigger, 2, 1, 1), &[], nothing).unwrap();
    assert_eq!(irq.take().unwrap(), 0);

    // INTx masks itself, and a further interrupt is delivered at the unmasking.
    session.set(set(eventfd | trigger, 0, 0, 1), &[], one).unwrap();
    for _ in 0..3 {
        session.set(set(none | trigger, 0, 0, 1), &[], nothing).unwrap();
    }
    assert_eq!(irq.take().unwrap(), 1);
    session.set(set(none | unmask, 0, 0, 1), &[], nothing).unwrap();
    assert_eq!(irq.take().unwrap(), 1);
    session.set(set(none | unmask, 0, 0, 1), &[], nothing).unwrap();
    assert_eq!(irq.take().unwrap(), 0);
    session.leave().unwrap();
}

/// Regression: the server checked once whether a write could block, but the client can change that later.
#[test]
fn an_eventfd_made_blocking_does_not_stop_the_server() {
    let mut session = default_session();
    let full = nix::sys::eventfd::EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
    let flags = vfio::SET_EVENTFD | vfio::SET_TRIGGER;
    session.set(SetIrqs { argsz: 20, flags, index: 2, start: 0, count: 1 }, &[], &[full.as_fd()]).unwrap();
    full.write(u64::MAX - 2).unwrap();
    fcntl(full.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let flags = vfio::SET_NONE | vfio::SET_TRIGGER;
    session.set(SetIrqs { argsz: 20, flags, index: 2, start: 0, count: 1 }, &[], &[]).unwrap();
    session.write(RAISE, 0).unwrap();
    session.leave().unwrap();
}

/// Regression: the server wrote to a client's file with its own rights.
#[test]
fn only_eventfds_are_accepted_for_interrupts() {
    let mut session = default_session();
    let file = memfd_create(c"anon_inode:[eventfd]", MFdFlags::MFD_CLOEXEC).unwrap();
    let (_pipe, write) = nix::unistd::pipe().unwrap();
    let others = other_files();
    for fd in [file.as_fd(), write.as_fd()].into_iter().chain(others.iter().map(AsFd::as_fd)) {
        let flags = vfio::SET_EVENTFD | vfio::SET_TRIGGER;
        let set = SetIrqs { argsz: 20, flags, index: 2, start: 0, count: 1 };
        assert_eq!(session.set(set, &[], &[fd]), Err(Errno::EINVAL), "{fd:?}");
    }
    session.write(RAISE, 0).unwrap();
    session.leave().unwrap();
    assert_eq!(nix::sys::stat::fstat(&file).unwrap().st_size, 0);
}
