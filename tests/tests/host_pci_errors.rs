//! An uncorrectable error of the PCI Express function, which the kernel tells by VFIO's ERR interrupt: here a vfio-user server
//! raises the same interrupt. The suite `guest_errors_pci` has the kernel's own.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use upcie_core::{
    irq::IrqKind,
    vfio_user::{
        VfioUserDevice,
        server::{Backend, Client, Layout, Server},
    },
};
use upcie_nvme::{Controller, Error, ErrorKind, Failure, Wait, emu::Emulator, spec::offset};
use upcie_tests::{
    deadline,
    io::{create, finish},
    process::within,
    says,
};

/// The errors of the function.
#[derive(Default)]
struct Errors {
    /// One now.
    now: AtomicBool,
    /// One before the next write of CC with this CC.EN.
    at: Mutex<Option<bool>>,
}

/// An embedded controller with an ERR interrupt, which `errors` raise.
struct Failing {
    inner: Emulator,
    layout: Layout,
    errors: Arc<Errors>,
}

impl Backend for Failing {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.inner.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, at: u64, data: &[u8]) -> io::Result<()> {
        let mut error = self.errors.at.lock().unwrap();
        if (region, at) == (0, offset::CC as u64) && *error == Some(data[0] & 1 == 1) {
            *error = None;
            client.trigger(IrqKind::Error, 0);
        }
        drop(error);
        self.inner.write(client, region, at, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        if self.errors.now.swap(false, Ordering::Relaxed) {
            client.trigger(IrqKind::Error, 0);
        }
        self.inner.poll(client)
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}

fn open(options: &str) -> (Controller, Arc<Errors>) {
    let inner = Emulator::new(&options.parse().unwrap()).unwrap();
    let mut layout = inner.layout().clone();
    layout.irqs[IrqKind::Error as usize] = 1;
    let errors = Arc::<Errors>::default();
    let mut backend = Failing { inner, layout, errors: errors.clone() };
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        // The client notices the end, whatever its reason.
        let _ = Server::new().serve_stream(theirs, &mut backend, &AtomicBool::new(false));
    });
    let client = VfioUserDevice::with_deadline(ours, "failing", None, deadline()).unwrap();
    (Controller::builder().from_device(Arc::new(client)).unwrap(), errors)
}

#[test]
fn an_error_of_the_function_ends_each_wait() {
    let (controller, errors) = open("size=1M,latency=60s");
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(4));
    queue.turn().unwrap().flush(&namespace, 0).unwrap();
    assert!(!queue.wait(Wait::Poll, Duration::from_millis(120)).unwrap(), "it goes on while all is well");
    errors.now.store(true, Ordering::Relaxed);
    let (queue, error) = within(deadline(), move || {
        let error = queue.wait(Wait::Poll, Duration::MAX).unwrap_err();
        (queue, error)
    });
    let mut queue = queue;
    for error in [error, queue.turn().map(drop).unwrap_err()] {
        assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
        assert_eq!((error.kind(), error.device()), (ErrorKind::Failed, Some("failing")));
        says(&error, &["the kernel reports an error of failing", "AER", "open it again"]);
    }
    // A blocking call ends, too, long before its own deadline.
    let (namespace, error) = within(deadline(), move || {
        let error = namespace.flush().unwrap_err();
        (namespace, error)
    });
    assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
    within(deadline(), move || drop((queue, namespace, controller)));
}

/// Calls `call` until it fails, at most for the deadline.
fn fails_in_time(call: impl Fn() -> Result<(), Error> + Send + 'static) -> Error {
    within(deadline(), move || {
        loop {
            if let Err(error) = call() {
                break error;
            }
        }
    })
}

/// Calls that were over at once, and queues that nobody had waited on, went on.
#[test]
fn an_error_of_the_function_refuses_each_call_until_a_reset() {
    let (controller, errors) = open("size=1M,serial=FAILING");
    let namespace = controller.namespace(1).unwrap();
    let mut idle = create::<u64>(controller.queue_pair().depth(4));
    let (calls, commands) = (namespace.clone(), controller.clone());
    errors.now.store(true, Ordering::Relaxed);
    let refusals = [
        fails_in_time(move || calls.flush()),
        namespace.flush().unwrap_err(),
        namespace.read_at(0, &mut [0; 512]).unwrap_err(),
        controller.namespace_ids().unwrap_err(),
        controller.namespace(1).unwrap_err(),
        controller.queue_pair().create::<u64>().unwrap_err(),
        idle.turn().unwrap_err(),
        idle.wait(Wait::Poll, deadline()).unwrap_err(),
        idle.recover().unwrap_err(),
    ];
    for error in refusals {
        assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
    }
    controller.reset().unwrap();
    assert!(matches!(idle.turn().unwrap_err().failure(), Failure::Reset { .. }));
    assert!(idle.recover().unwrap().is_empty());
    idle.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut idle).len(), 1);
    namespace.flush().unwrap();
    assert_eq!(controller.namespace_ids().unwrap(), [1]);

    // Another error counts again, and an admin command finds it at once.
    errors.now.store(true, Ordering::Relaxed);
    let error = fails_in_time(move || commands.namespace_ids().map(drop));
    assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
    assert!(matches!(idle.turn().unwrap_err().failure(), Failure::PciError { .. }));
    within(deadline(), move || drop((idle, namespace, controller)));
}

/// The controller was down for good after an error that came while a reset set it up again: no further reset answered it.
#[test]
fn the_next_reset_answers_an_error_after_the_stop() {
    let (controller, errors) = open("size=1M,serial=TWICE");
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(4));
    // Before the stop: that reset answers it.
    *errors.at.lock().unwrap() = Some(false);
    controller.reset().unwrap();
    assert_eq!(*errors.at.lock().unwrap(), None);
    namespace.flush().unwrap();
    // After the stop.
    *errors.at.lock().unwrap() = Some(true);
    for error in [
        controller.reset().unwrap_err(),
        namespace.flush().unwrap_err(),
        controller.namespace_ids().unwrap_err(),
        queue.recover().unwrap_err(),
    ] {
        assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
    }
    controller.reset().unwrap();
    assert!(queue.recover().unwrap().is_empty());
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut queue).len(), 1);
    namespace.flush().unwrap();
    within(deadline(), move || drop((queue, namespace, controller)));
}
