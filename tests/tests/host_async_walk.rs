//! Every kind of future, dropped at each of its await points: by tasks and by handles, under each driver. A method that
//! has no walk fails.

use std::{collections::BTreeSet, fs, future::Future, path::Path, pin::Pin};
use tokio::task::JoinHandle;
use upcie_nvme::{
    AsyncQueue, Controller, DmaBuf, Io, KeyCommand, ReservationCommand, Result, WithMetadata, Zeroes,
    ZoneSelect,
    async_queue::AsyncHandle,
    protection::Protect,
    spec::{CopyRange, DatasetRange, Key, ReservationType, ZoneAction, ZoneFilter},
};
use upcie_tests::{
    bent::Bent,
    futures::{Bed, exercise, in_one_thread, poll_once, tokio_driver},
};

const BLOCKS: &str = "size=1M";
const PROTECTED: &str = "size=1M,ms=8,pi=1";
const ZONED: &str = "size=1M,zoned=true,zone-size=64K,zde=64";
const KEYS: &str = "size=1M,kv=true";
const PLACED: &str = "size=1M,fdp=true,fdp-handles=4,fdp-unit=64K";

/// A command that must succeed if it is not dropped.
type Walked = Pin<Box<dyn Future<Output = ()>>>;
type Maker<'b> = Box<dyn Fn() -> Walked + 'b>;

fn checked<T: 'static, B: 'static>(future: impl Future<Output = (Result<T>, B)> + 'static) -> Walked {
    Box::pin(async move {
        future.await.0.map(drop).unwrap();
    })
}

/// Makes a buffer that begins with some bytes.
fn holding(bed: &Bed, bytes: &[u8]) -> DmaBuf {
    let mut buffer = bed.buffer();
    buffer.write_at(0, bytes);
    buffer
}

fn with_metadata(bed: &Bed) -> WithMetadata {
    WithMetadata { data: bed.buffer(), metadata: bed.controller.alloc(64).unwrap() }
}

macro_rules! calls {
    ($queue:ident, $($method:ident($($argument:expr),* $(,)?)),* $(,)?) => {
        vec![$((
            stringify!($method),
            Box::new(move || checked($queue.$method($($argument),*))) as Maker<'_>,
        )),*]
    };
}

/// Defines the list of a namespace's commands for a queue or its handles, whose methods are the same. Each command leaves
/// the namespace as the next one needs it, the last one as the first one does.
macro_rules! list {
    ($name:ident, $queue:ty) => {
        fn $name<'b>(queue: &'b $queue, bed: &'b Bed, options: &str) -> Vec<(&'static str, Maker<'b>)> {
            let namespace = &bed.namespace;
            match options {
                BLOCKS => {
                    let (cancel, kind) = (bed.controller.cancel().unwrap(), ReservationType::WRITE_EXCLUSIVE);
                    calls![
                        queue,
                        write(namespace, 0, bed.buffer()),
                        read(namespace, 0, bed.buffer()),
                        submit(Io::write(namespace, 0).fua(), bed.buffer()),
                        flush(namespace),
                        write_zeroes(Zeroes::new(namespace, 0, 8)),
                        deallocate(namespace, holding(bed, &DatasetRange::new(0, 8).to_bytes()), 1),
                        compare(namespace, 0, bed.buffer()),
                        verify(namespace, 0, 8, None),
                        copy(namespace, holding(bed, &CopyRange::new(0, 8).to_bytes()), 1, 64),
                        compare_and_write(namespace, 0, bed.buffer(), bed.buffer()),
                        write_uncorrectable(namespace, 128, 1),
                        cancel(cancel),
                        submit_reservation(ReservationCommand::register(namespace, 5), bed.buffer()),
                        submit_reservation(ReservationCommand::replace(namespace, Some(5), 6), bed.buffer()),
                        submit_reservation(ReservationCommand::acquire(namespace, 6, kind), bed.buffer()),
                        submit_reservation(ReservationCommand::report(namespace, false), bed.buffer()),
                        submit_reservation(ReservationCommand::release(namespace, 6, kind), bed.buffer()),
                        submit_reservation(ReservationCommand::clear(namespace, 6), bed.buffer()),
                    ]
                }
                PROTECTED => {
                    let made = Protect::new().action();
                    calls![
                        queue,
                        submit_with_metadata(Io::write(namespace, 0), with_metadata(bed)),
                        submit_with_metadata(Io::read(namespace, 0), with_metadata(bed)),
                        copy_protected(
                            namespace,
                            &[(CopyRange::new(64, 4), Protect::new())],
                            bed.buffer(),
                            128,
                            made
                        ),
                    ]
                }
                ZONED => {
                    let zone = namespace.zones().unwrap().start_of(3);
                    calls![
                        queue,
                        set_zone_extension(namespace, zone, bed.controller.alloc(64).unwrap()),
                        report_zones(namespace, 0, ZoneFilter::ALL, bed.buffer()),
                        report_extended(namespace, 0, ZoneFilter::ALL, bed.buffer()),
                        append(namespace, zone, bed.buffer()),
                        manage_zones(namespace, ZoneAction::RESET, ZoneSelect::At(zone), false),
                    ]
                }
                KEYS => {
                    let key = Key::new(b"key").unwrap();
                    calls![
                        queue,
                        submit_key(KeyCommand::store(namespace, key), bed.buffer()),
                        submit_key(KeyCommand::retrieve(namespace, key), bed.buffer()),
                        submit_key(KeyCommand::list(namespace, None), bed.buffer()),
                        submit_key(KeyCommand::exist(namespace, key), DmaBuf::empty()),
                        submit_key(KeyCommand::delete(namespace, key), DmaBuf::empty()),
                    ]
                }
                PLACED => {
                    let third = namespace.placement().unwrap().identifier(0, 2);
                    calls![
                        queue,
                        copy_placed(namespace, holding(bed, &CopyRange::new(0, 8).to_bytes()), 1, 64, third),
                        handle_status(namespace, bed.buffer()),
                        update_handles(namespace, holding(bed, &third.to_le_bytes()), 1),
                    ]
                }
                other => panic!("{other}"),
            }
        }
    };
}

list!(by_tasks, AsyncQueue);
list!(by_handles, AsyncHandle);

/// The point at which a future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Unpolled,
    /// It waits behind another one, which has the only slot of the handles.
    Behind,
    Waiting,
    InFlight,
    /// Its command has ended, and it was not polled since.
    Ended,
    Taken,
}

const POINTS: [Point; 6] =
    [Point::Unpolled, Point::Behind, Point::Waiting, Point::InFlight, Point::Ended, Point::Taken];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    /// The test makes progress itself.
    Held,
    Polled,
    Interrupts,
}

struct Walk<'b> {
    bent: &'b Bent,
    bed: &'b Bed,
    queue: &'b AsyncQueue,
    driver: Driver,
}

impl Walk<'_> {
    /// Lets the driver run.
    async fn step(&self) {
        if self.driver == Driver::Held {
            self.queue.progress().unwrap();
        }
        tokio::task::yield_now().await;
    }

    /// Drops a future at a point, and checks that its memory is free once the device is done with it, and no sooner.
    async fn drop_at(&self, point: Point, name: &str, make: &Maker<'_>) {
        let Self { bent, bed, queue, driver } = self;
        let case = format!("{name} dropped at {point:?} under {driver:?}");
        let before = bed.in_use();
        let mut future = make();
        bent.faults.hang(matches!(point, Point::InFlight | Point::Ended));
        match point {
            Point::Unpolled => {}
            Point::Behind => {
                let mut ahead = make();
                assert!(poll_once(&mut ahead).is_pending() && poll_once(&mut future).is_pending(), "{case}");
            }
            Point::Waiting => assert!(poll_once(&mut future).is_pending(), "{case}"),
            Point::InFlight | Point::Ended => {
                while queue.in_flight() == 0 {
                    assert!(poll_once(&mut future).is_pending(), "{case}");
                    self.step().await;
                }
            }
            Point::Taken => {
                while poll_once(&mut future).is_pending() {
                    self.step().await;
                }
            }
        }
        if point == Point::Ended {
            bent.faults.hang(false);
            while queue.in_flight() > 0 {
                self.step().await;
            }
        }
        let held = bed.in_use();
        drop(future);
        if point == Point::InFlight {
            self.step().await;
            assert!(
                bed.in_use() == held && queue.in_flight() > 0,
                "{case}: the device may still use its memory"
            );
            bent.faults.hang(false);
        }
        loop {
            self.step().await;
            if queue.in_flight() + queue.waiting() == 0 {
                break;
            }
        }
        assert_eq!(bed.in_use(), before, "{case}");
    }
}

/// Starts a task for a driver, for which tasks wait from its first poll on: that is this one.
fn started(mut driver: impl Future<Output = Result<()>> + Unpin + 'static) -> JoinHandle<Result<()>> {
    assert!(poll_once(&mut driver).is_pending());
    tokio::task::spawn_local(driver)
}

/// Returns the names of the methods that return such a future.
fn methods(future: &str) -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upcie-nvme/src/async_queue");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(sources).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for function in text.split("pub fn ").skip(1) {
            let head = function.split('{').next().unwrap_or_default();
            if let (true, Some((name, _))) = (head.contains(&format!("-> {future}")), head.split_once('(')) {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn each_future_is_dropped_at_each_await_point() {
    let mut walked = [BTreeSet::new(), BTreeSet::new()];
    for options in [BLOCKS, PROTECTED, ZONED, KEYS, PLACED] {
        let bent = Bent::start(&format!("{options},serial=WALK"));
        let bed = Bed::of(Controller::open(bent.address()).unwrap());
        for driver in [Driver::Held, Driver::Polled, Driver::Interrupts] {
            let builder = bed.controller.queue_pair().depth(4);
            let builder = if driver == Driver::Interrupts { builder.interrupt(1) } else { builder };
            let queue = builder.create_async().unwrap();
            in_one_thread(async {
                let hold = (driver == Driver::Held).then(|| queue.hold());
                let task = match driver {
                    Driver::Held => None,
                    Driver::Polled => Some(started(queue.drive_polled())),
                    Driver::Interrupts => Some(started(tokio_driver(&queue))),
                };
                let handle = queue.handle(1).unwrap();
                let lists = [by_tasks(&queue, &bed, options), by_handles(&handle, &bed, options)];
                let walk = Walk { bent: &bent, bed: &bed, queue: &queue, driver };
                for (list, walked) in lists.iter().zip(&mut walked) {
                    for point in POINTS {
                        for (name, make) in list {
                            walk.drop_at(point, name, make).await;
                            walked.insert((*name).to_owned());
                        }
                    }
                }
                task.into_iter().for_each(|task| task.abort());
                drop(hold);
            });
        }
    }
    assert_eq!(walked, ["Submission", "RemoteSubmission"].map(methods), "each method has a walk");
}

#[test]
fn a_driver_by_interrupts_is_dropped_in_flight() {
    let bent = Bent::start("size=1M,serial=DRIVER");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    // The tasks go on by themselves, or another driver does.
    for has_successor in [false, true] {
        let queue = bed.controller.queue_pair().depth(4).interrupt(1).create_async().unwrap();
        let before = bed.in_use();
        in_one_thread(async {
            let driver = started(tokio_driver(&queue));
            bent.faults.hang(true);
            let work = exercise(queue.clone(), bed.namespace.clone(), bed.buffer(), 0, 3);
            let task = tokio::task::spawn_local(work);
            while queue.in_flight() == 0 {
                tokio::task::yield_now().await;
            }
            driver.abort();
            assert!(driver.await.unwrap_err().is_cancelled());
            assert_eq!(queue.in_flight(), 1);
            let successor = has_successor.then(|| started(tokio_driver(&queue)));
            bent.faults.hang(false);
            task.await.unwrap();
            successor.into_iter().for_each(|task| task.abort());
        });
        assert_eq!(bed.in_use(), before);
    }
}
