//! A forked child may not use its parent's handles: each call that reaches the device or waits for it is
//! refused with an error that says so.

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use std::{
    cell::RefCell,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};
use upcie_core::{
    irq::{EventFd, IrqKind},
    pci::{ConfigSpace, offset},
};
use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, Namespace, QueueGroup, QueuePair, Wait,
    spec::{AdminOpcode, Command},
};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, only, read},
    left_out, on_each_device, raw, scaled,
    stepping::{Hooks, Stepping},
};

/// A child of a test.
#[derive(Clone, Copy, Debug)]
enum Child {
    /// It is a child of this process.
    Fork,
    /// It is the first process of a pid namespace.
    Nested,
}

/// Asserts that `work` succeeds in a child. Returns `false` if this user may not make such a child.
///
/// The child comes from glibc's fork(2): after a plain clone(2) it waits for ever for a lock of the allocator that some
/// other thread held, such as one that is about to end.
fn in_child(child: Child, work: impl FnOnce() -> Result<(), String>) -> bool {
    /// The exit code of a child that this user may not make.
    const NOT_ALLOWED: i32 = 77;
    let code = in_fork(|| match child {
        Child::Fork => code(work()),
        // The children of this child are in the new namespace.
        Child::Nested => match unshare(CloneFlags::CLONE_NEWPID) {
            Err(Errno::EPERM) => NOT_ALLOWED,
            Err(_) => 2,
            Ok(()) => in_fork(|| if std::process::id() == 1 { code(work()) } else { 3 }),
        },
    });
    assert!([0, NOT_ALLOWED].contains(&code), "the child's exit code is {code}: {child:?}");
    code == 0
}

/// Returns the exit code of `result`, and tells its text.
fn code(result: Result<(), String>) -> i32 {
    let Err(text) = result else { return 0 };
    // Standard error itself: what `eprintln` gets here belongs to the parent's test.
    let _ = nix::unistd::write(std::io::stderr(), format!("in the child: {text}\n").as_bytes());
    1
}

/// Returns the exit code of a child that does `work`. It is 100 if a signal has ended the child, as one does at the
/// deadline.
fn in_fork(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: glibc makes its allocator usable in the child, which takes no lock that a thread of its parent may hold,
    // and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the signal ends a child that waits for ever.
        unsafe { libc::alarm(deadline().as_secs() as u32) };
        let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) }
    }
    match waitpid(Pid::from_raw(child), None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        _ => 100,
    }
}

/// Calls everything that reaches the device or waits for it. Returns the first call that was not refused, or
/// was refused in other words.
fn try_all(
    controller: &Controller,
    namespace: &Namespace,
    queue: &mut QueuePair<u64>,
    buffer: &mut DmaBuf,
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
    refused("a write of bytes", namespace.write_at(1, &[1]))?;
    refused("asking for an interrupt", queue.arm())?;
    refused("a check", QueueGroup::new().check(&mut [&mut *queue]).map_err(Error::from))?;
    refused("admin commands of its own", controller.namespace_ids().map(drop))?;
    refused("a namespace", controller.namespace(1).map(drop))?;
    let identify = Command::identify(upcie_nvme::spec::Cns::CONTROLLER, 0, 0);
    refused("an admin command", controller.admin(&identify, &mut [0; 4096]).map(drop))?;
    let format = Command::admin(AdminOpcode::FORMAT_NVM, 1);
    refused("an optional command", controller.admin(&format, &mut []).map(drop))?;
    // SAFETY: it is refused.
    let raw = unsafe { controller.admin_raw(&identify, DmaBuf::empty()) };
    refused("a raw command", raw.map(drop))?;
    refused("a register", controller.register(0).map(drop))?;
    refused("counting interrupts", controller.irq_count(IrqKind::Msix).map(drop))?;
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
        for child in [Child::Fork, Child::Nested] {
            if !in_child(child, || try_all(&controller, &namespace, &mut queue, &mut buffer)) {
                left_out("a pid namespace: this user may not make one");
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
        refused("counting interrupts", device.irq_count(kind).map(drop))?;
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
        assert!(in_child(Child::Fork, || try_raw(&*transport, &events)));
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
            let code = in_fork(|| {
                let works = Controller::open("emu:size=1M").is_ok_and(|controller| {
                    let namespace = controller.namespace(1).expect("its namespace");
                    namespace.write_at(0, &[7; 4096]).is_ok()
                });
                (!works).into()
            });
            if code != 0 {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: the child's exit code is {code}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

thread_local! {
    /// Ends of channels: the thread tells of its next sleep, and waits in it.
    static STOPS: RefCell<Option<(Sender<()>, Receiver<()>)>> = const { RefCell::new(None) };
}

/// Stops a thread that has [`STOPS`] in its next sleep.
struct Stops;

impl Hooks for Stops {
    fn before_sleep(&self) {
        if let Some((stopped, go)) = STOPS.take() {
            stopped.send(()).expect("a test that waits");
            // An error means that the test has ended.
            let _ = go.recv();
        }
    }
}

/// A child waited for the end of a reset, which the thread that makes it is not there for.
#[test]
fn a_childs_calls_in_the_midst_of_a_reset_are_refused() {
    let controller = Stepping::new("size=1M", Stops).open(Controller::builder());
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(8));
    let mut buffer = controller.alloc(4096).unwrap();
    let ((stopped, stops), (go, wait)) = (channel(), channel());
    std::thread::scope(|scope| {
        // Dropped when this test fails, which ends the reset as well.
        let go = go;
        let reset = || {
            STOPS.set(Some((stopped, wait)));
            controller.reset()
        };
        let resets = scope.spawn(reset);
        stops.recv_timeout(deadline()).expect("it waits for the controller's Identify data");
        assert!(in_child(Child::Fork, || try_all(&controller, &namespace, &mut queue, &mut buffer)));
        go.send(()).unwrap();
        resets.join().unwrap().unwrap();
    });
    assert!(queue.recover().unwrap().is_empty());
    namespace.flush().unwrap();
}
