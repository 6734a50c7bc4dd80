//! A program's `tracing` subscriber may call the driver: no event is emitted while a lock of the driver's is held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{Event, Metadata, Subscriber, span};
use upcie_nvme::{Controller, ControllerOptions, Wait};
use upcie_tests::{bent::Bent, chain, deadline, process};

/// Has another thread use the controller at each event, and waits until it has done so.
struct CallsBack {
    call: mpsc::SyncSender<mpsc::Sender<()>>,
    events: Arc<AtomicUsize>,
}

impl Subscriber for CallsBack {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("upcie")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        let (done, wait) = mpsc::channel();
        self.call.send(done).expect("a thread that calls back");
        wait.recv().expect("the call has ended");
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Takes each lock of the controller's in turn. What comes of it is beside the point: the controller may be at fault.
fn use_all(controller: &Controller) {
    let _ = controller.alloc(4096);
    let _ = controller.namespaces();
    let _ = controller.queue_pair().create::<u64>();
    let _ = controller.vectors();
    let _ = controller.memory_buffer();
    let _ = controller.persistent_memory();
    if let Ok(namespace) = controller.namespace(1) {
        let _ = namespace.flush();
    }
}

/// The end of soundness R6: events were emitted with the admin queue or the heap in hand, so such a subscriber waited for its
/// own thread, for ever.
#[test]
fn a_subscriber_may_call_the_driver() {
    // One that is not answered takes little time; no more is needed of one that is, but on a busy machine.
    for (hangs, timeout) in [(false, deadline()), (true, Duration::from_millis(200))] {
        let bent = Bent::start("size=1M,cmb=1M,pmr=1M,vectors=4");
        let controller = open(&bent, timeout);
        let (call, calls) = mpsc::sync_channel::<mpsc::Sender<()>>(0);
        let other = controller.clone();
        let caller = thread::spawn(move || {
            // Events of this thread go nowhere.
            for done in calls {
                use_all(&other);
                done.send(()).expect("who asked waits");
            }
        });
        let events = Arc::new(AtomicUsize::new(0));
        let subscriber = CallsBack { call, events: events.clone() };
        let bent = process::within(10 * deadline(), move || {
            tracing::subscriber::with_default(subscriber, || work(&bent, &controller, hangs));
            drop(controller);
            bent
        });
        caller.join().expect("it ends with the subscriber");
        assert!(events.load(Ordering::Relaxed) > 5, "events that were seen");
        drop(bent);
    }
}

fn open(bent: &Bent, timeout: Duration) -> Controller {
    let end = Instant::now() + deadline();
    loop {
        let options = ControllerOptions { timeout, ..ControllerOptions::default() };
        match Controller::open_with(&bent.address(), options) {
            Ok(controller) => return controller,
            Err(error) => assert!(Instant::now() < end, "{}", chain(&error)),
        }
    }
}

/// What logs under locks: memory that is mapped, admin commands and queues, late answers, memory in the controller.
fn work(bent: &Bent, controller: &Controller, hangs: bool) {
    // More than the heap has.
    let large = controller.alloc(8 << 20).unwrap_or_else(|error| panic!("{}", chain(&error)));
    if hangs {
        bent.faults.hang(true);
    }
    use_all(controller);
    bent.faults.hang(false);
    // Answers that come late.
    use_all(controller);
    if let Ok(mut queue) = controller.queue_pair().interrupt(1).create::<u64>() {
        let _ = queue.wait(Wait::Interrupt, Duration::from_millis(1));
    }
    drop(large);
}
