//! A program's `tracing` subscriber may call the driver: the driver emits no event while it holds a lock.

use std::{
    cell::RefCell,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tracing::{Event, Metadata, Subscriber, span};
use upcie_nvme::{Controller, Wait};
use upcie_tests::{bent::Bent, deadline, process};

/// A subscriber that has another thread use the controller at each event of a thread with a [`Call`], and
/// waits for that thread.
struct CallsBack;

/// The channel to the other thread, and the number of requests so far.
struct Call {
    call: mpsc::SyncSender<mpsc::Sender<()>>,
    events: usize,
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
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
        CALL.with_borrow_mut(|call| {
            let Some(Call { call, events }) = call else { return };
            let (done, wait) = mpsc::channel();
            call.send(done).expect("a thread that calls back");
            wait.recv().expect("the call has ended");
            *events += 1;
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Takes each lock of the controller in turn. The results don't matter, since the controller may be faulty.
fn use_all(controller: &Controller) {
    let _ = controller.alloc(4096);
    let _ = controller.namespace_ids();
    let _ = controller.queue_pair().create::<u64>();
    let _ = controller.vectors();
    let _ = controller.cmb();
    let _ = controller.pmr();
    if let Ok(namespace) = controller.namespace(1) {
        let _ = namespace.flush();
    }
}

/// Soundness R6: events were emitted with the admin queue or the heap locked, so such a subscriber waited for
/// its own thread for ever.
#[test]
fn a_subscriber_may_call_the_driver() {
    tracing::subscriber::set_global_default(CallsBack).expect("the first one");
    // Unanswered commands need a short timeout; answered ones need a long one on a busy machine.
    for (hangs, timeout) in [(false, deadline()), (true, Duration::from_millis(200))] {
        let bent = Bent::start("size=1M,vectors=4");
        let controller = open(&bent, timeout);
        let (call, calls) = mpsc::sync_channel::<mpsc::Sender<()>>(0);
        let other = controller.clone();
        let caller = thread::spawn(move || {
            for done in calls {
                use_all(&other);
                done.send(()).expect("who asked waits");
            }
        });
        let (seen, bent) = process::within(10 * deadline(), move || {
            CALL.set(Some(Call { call, events: 0 }));
            work(&bent, &controller, hangs);
            drop(controller);
            (CALL.take().map_or(0, |call| call.events), bent)
        });
        caller.join().expect("it ends with the calls");
        assert!(seen > 5, "{seen} events were seen");
        drop(bent);
    }
}

fn open(bent: &Bent, timeout: Duration) -> Controller {
    let end = Instant::now() + deadline();
    loop {
        let options = Controller::builder().timeout(timeout);
        match options.open(bent.address()) {
            Ok(controller) => return controller,
            Err(error) => assert!(Instant::now() < end, "{error:?}"),
        }
    }
}

/// Does all work that logs under locks: mapping memory, admin commands, queues, late answers.
fn work(bent: &Bent, controller: &Controller, hangs: bool) {
    // More than the heap has, so that it maps memory.
    let large = controller.alloc(8 << 20).unwrap();
    if hangs {
        bent.faults.hang(true);
    }
    use_all(controller);
    bent.faults.hang(false);
    // The answers of before come late.
    use_all(controller);
    if let Ok(mut queue) = controller.queue_pair().interrupt(1).create::<u64>() {
        let _ = queue.wait(Wait::Interrupt, Duration::from_millis(1));
    }
    drop(large);
}
