//! A forked child may not use its parent's handles: each call that reaches the device or waits for it is
//! refused with an error that says so.

use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};
use upcie_core::{
    irq::{EventFd, IrqKind},
    pci::{ConfigSpace, offset},
};
use upcie_nvme::{Controller, Error, Failure, Namespace, QueuePair, Wait, spec::Command};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, only, read},
    left_out, on_each_device, process, raw, scaled,
};

/// Asserts that `work` succeeds in a child that clone(2) makes with `flags`. Returns `false` if the system
/// can't make such a child.
fn in_child(flags: i32, work: impl FnOnce() -> Result<(), String>) -> bool {
    // SAFETY: without CLONE_VM and a stack this is fork(2). The child takes no locks but those of the
    // allocator and of standard error, which no other thread holds here, and it ends by `_exit`.
    let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags | libc::SIGCHLD), 0, 0, 0, 0) };
    if child == 0 {
        let result = work();
        if let Err(text) = &result {
            eprintln!("in the child: {text}");
        }
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(result.is_err().into()) }
    }
    if child < 0 {
        assert_eq!(Errno::last(), Errno::EPERM);
        return false;
    }
    let child = Pid::from_raw(child as i32);
    let ended = process::within(deadline(), move || waitpid(child, None));
    assert_eq!(ended, Ok(WaitStatus::Exited(child, 0)), "the child");
    true
}

/// Calls everything that reaches the device or waits for it. Returns the first call that was not refused, or
/// was refused in other words.
fn try_all(
    controller: &Controller,
    namespace: &Namespace,
    queue: &mut QueuePair<u64>,
    buffer: &mut upcie_nvme::DmaBuf,
) -> Result<(), String> {
    let refused = |what: &str, result: Result<(), Error>| match result {
        Ok(()) => Err(format!("{what} was not refused")),
        Err(error) => {
            let text = format!("{error:?}");
            let good = is_forked(&error) && text.contains("forked from") && text.contains(controller.name());
            if good { Ok(()) } else { Err(format!("{what}: {text}")) }
        }
    };
    refused("a turn", queue.turn().map(drop))?;
    for how in [Wait::Poll, Wait::Interrupt] {
        refused("a wait", queue.wait(how, deadline()).map(drop))?;
    }
    refused("a read", namespace.read(0, buffer))?;
    if buffer.is_empty() {
        return Err("the buffer of a refused read is gone".into());
    }
    refused("a flush", namespace.flush())?;
    refused("admin commands of its own", controller.namespace_ids().map(drop))?;
    refused("a namespace", controller.namespace(1).map(drop))?;
    let identify = Command::identify(upcie_nvme::spec::Cns::CONTROLLER, 0, 0);
    refused("an admin command", controller.admin(&identify, &mut [0; 4096]).map(drop))?;
    refused("a queue pair", controller.queue_pair().create::<u64>().map(drop))?;
    refused("memory", controller.alloc(4096).map(drop))?;
    refused("vectors", controller.vectors().map(drop))?;
    refused("its memory buffer", controller.cmb().map(drop))?;
    // The invalidation has no effect on this copy of the stamp: the queue still refuses everything.
    controller.invalidate_namespaces();
    refused("a turn after an invalidation", queue.turn().map(drop))?;
    refused("another beside it", Controller::builder().open_beside(controller, "emu").map(drop))
}

/// Soundness R6 and R3: the child may have its parent's id, if both are the first process of their
/// namespaces, so the id can't decide.
#[test]
fn a_childs_turns_waits_and_commands_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(device.queue_pair(&controller, 1).depth(8));
        let mut buffer = controller.alloc(4096).unwrap();
        for (what, flags) in [("clone", 0), ("a pid namespace", libc::CLONE_NEWPID)] {
            if !in_child(flags, || try_all(&controller, &namespace, &mut queue, &mut buffer)) {
                left_out(format!("{what}: this user may not make one"));
            }
            // The parent can still use all of them.
            queue.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), 3).unwrap();
            assert_eq!(only(&mut queue).0, 3);
            read(&controller, &namespace, 0, 1);
            create::<u64>(controller.queue_pair().depth(4));
        }
    });
}

fn is_forked(error: &Error) -> bool {
    let Failure::Core(core) = error.failure() else { return false };
    matches!(core.failure(), upcie_core::Failure::Forked { .. })
}

/// Calls everything that a program can do to a device without a driver. Returns the first call that was not
/// refused.
fn try_raw(device: &dyn upcie_core::device::Device, events: &EventFd) -> Result<(), String> {
    let refused = |what: &str, result: upcie_core::Result<()>| match result {
        Err(error) if matches!(error.failure(), upcie_core::Failure::Forked { .. }) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    refused("a read of configuration space", device.config_read(0, &mut [0; 4]))?;
    refused("a write to configuration space", raw::set_config_u16(device, offset::COMMAND, 0))?;
    refused("a base address register", device.bar(0).map(drop))?;
    refused("a reset", raw::reset(device))?;
    for kind in [IrqKind::Intx, IrqKind::Msi, IrqKind::Msix] {
        refused("setting interrupts", device.set_irqs(kind, &[]))?;
        refused("setting an interrupt", device.set_irqs(kind, &[events.as_fd()]))?;
        refused("masking an interrupt", device.mask_irq(kind, 0, true))?;
    }
    refused("memory for DMA", device.dma().allocate(4096, None).map(drop))
}

/// Soundness R6: a child's turns and commands were refused, but its raw calls reached its parent's device.
#[test]
fn a_childs_raw_calls_on_a_device_are_refused() {
    on_each_device(|device| {
        let transport = device.transport();
        let command = transport.command().unwrap();
        // Before the fork, so that the child allocates as little as possible.
        let events = EventFd::new().unwrap();
        assert!(in_child(0, || try_raw(&*transport, &events)));
        assert_eq!(transport.command().unwrap(), command, "nothing of the device has changed");
    });
}

/// A child hung now and then: a thread of its parent had a list of the whole process at the fork.
#[test]
fn a_child_opens_a_device_of_its_own_while_its_parent_opens_some() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(Controller::open("emu:size=1M").unwrap());
            }
        });
        for round in 0..scaled(20) {
            // SAFETY: glibc makes its allocator and threads usable in the child, which takes no other lock that the parent's
            // threads may hold, and ends by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the signal ends a child that waits for ever.
                unsafe { libc::alarm(deadline().as_secs() as u32) };
                let works = Controller::open("emu:size=1M").is_ok_and(|controller| {
                    let namespace = controller.namespace(1).expect("its namespace");
                    namespace.write_at(0, &[7; 4096]).is_ok()
                });
                // SAFETY: ends the process at once.
                unsafe { libc::_exit((!works).into()) }
            }
            let child = Pid::from_raw(child);
            let ended = process::within(2 * deadline(), move || waitpid(child, None));
            if ended != Ok(WaitStatus::Exited(child, 0)) {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: {ended:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
