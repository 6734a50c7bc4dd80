//! An uncorrectable error of the PCI Express function, which the kernel tells by VFIO's ERR interrupt: here a vfio-user server
//! raises the same interrupt. The suite `guest_errors_pci` has the kernel's own.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
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
use upcie_nvme::{Controller, Error, ErrorKind, Failure, Wait, emu::Emulator};
use upcie_tests::{
    deadline,
    io::{create, finish},
    process::within,
    says,
};

/// An embedded controller with an ERR interrupt, which `fails` raises.
struct Failing {
    inner: Emulator,
    layout: Layout,
    fails: Arc<AtomicBool>,
}

impl Backend for Failing {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.inner.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        if self.fails.swap(false, Ordering::Relaxed) {
            client.trigger(IrqKind::Error, 0);
        }
        self.inner.poll(client)
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}

fn open(options: &str) -> (Controller, Arc<AtomicBool>) {
    let inner = Emulator::new(&options.parse().unwrap()).unwrap();
    let mut layout = inner.layout().clone();
    layout.irqs[IrqKind::Error as usize] = 1;
    let fails = Arc::new(AtomicBool::new(false));
    let mut backend = Failing { inner, layout, fails: fails.clone() };
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        // The client notices the end, whatever its reason.
        let _ = Server::new().serve_stream(theirs, &mut backend, &AtomicBool::new(false));
    });
    let client = VfioUserDevice::with_deadline(ours, "failing", None, deadline()).unwrap();
    (Controller::builder().from_device(Arc::new(client)).unwrap(), fails)
}

#[test]
fn an_error_of_the_function_ends_each_wait() {
    let (controller, fails) = open("size=1M,latency=60s");
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(4));
    queue.turn().unwrap().flush(&namespace, 0).unwrap();
    assert!(!queue.wait(Wait::Poll, Duration::from_millis(120)).unwrap(), "it goes on while all is well");
    fails.store(true, Ordering::Relaxed);
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
    let (controller, fails) = open("size=1M,serial=FAILING");
    let namespace = controller.namespace(1).unwrap();
    let mut idle = create::<u64>(controller.queue_pair().depth(4));
    let (calls, commands) = (namespace.clone(), controller.clone());
    fails.store(true, Ordering::Relaxed);
    let errors = [
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
    for error in errors {
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
    fails.store(true, Ordering::Relaxed);
    let error = fails_in_time(move || commands.namespace_ids().map(drop));
    assert!(matches!(error.failure(), Failure::PciError { .. }), "{error:?}");
    assert!(matches!(idle.turn().unwrap_err().failure(), Failure::PciError { .. }));
    within(deadline(), move || drop((idle, namespace, controller)));
}
