//! A controller that answers late or not at all: only the unanswered commands are lost, and only until the
//! answers arrive.

mod fault_plans;

use std::time::{Duration, Instant};
use upcie_nvme::{Controller, Error, Failure, Wait};
use upcie_tests::{
    bent::{Bent, FAULTS},
    deadline, process, says,
};

/// A deadline that unanswered commands miss soon, and that is long enough for answered ones.
const BRIEF: Duration = Duration::from_millis(100);

/// Repeats work that may miss its deadline on a busy machine, until it succeeds.
fn patiently<T>(what: &str, mut work: impl FnMut() -> Result<T, Error>) -> T {
    let end = Instant::now() + deadline();
    loop {
        match work() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "{what}: {error:?}"),
        }
    }
}

fn open(bent: &Bent) -> Controller {
    let options = Controller::builder().timeout(BRIEF).queues(2);
    patiently("opening", || options.clone().open(bent.address()))
}

/// Late answers make room in the admin queue before the next command needs it.
#[test]
fn the_admin_queue_survives_any_number_of_timeouts() {
    let bent = Bent::start("size=1M");
    let controller = open(&bent);
    bent.faults.hang(true);
    let (mut timeouts, mut full) = (0, 0);
    while full < 3 {
        let error = controller.namespace_ids().unwrap_err();
        match error.failure() {
            Failure::Timeout { .. } => timeouts += 1,
            Failure::Unanswered { count, .. } => {
                assert_eq!(timeouts, *count, "sent, and not answered");
                says(&error, &[controller.name(), "was not sent", "open it again"]);
                full += 1;
            }
            _ => panic!("{error:?}"),
        }
    }
    bent.faults.hang(false);
    assert_eq!(patiently("admin commands", || controller.namespace_ids()), [1]);
    let namespace = patiently("a namespace", || controller.namespace(1));
    patiently("a queue pair", || controller.queue_pair().create::<u64>());
    patiently("a flush", || namespace.flush());
}

/// A queue whose deletion was answered late returns its id and its memory, and later deletions work.
#[test]
fn a_late_deletion_frees_its_id_and_memory() {
    let bent = Bent::start("size=1M");
    let controller = open(&bent);
    let before = controller.heap().in_use();
    let make = || patiently("a queue pair", || controller.queue_pair().create::<u64>());
    let (one, two) = (make(), make());
    bent.faults.hang(true);
    let error = one.close().unwrap_err();
    assert!(matches!(error.failure(), Failure::Undeleted { qid: 1, .. }), "{error}");
    let error = controller.queue_pair().create::<u64>().unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    says(&error, &["all 2 I/O queue pairs", "1 of them were closed", "has not confirmed"]);
    // The next deletion is not waited for again.
    assert!(two.close().is_err());
    bent.faults.hang(false);
    let (one, two) = (make(), make());
    assert_eq!((one.id() + two.id(), controller.max_queue_pairs()), (3, 2), "both ids are back");
    drop((one, two));
    patiently("both ids", || both(&controller));
    assert_eq!(controller.heap().in_use(), before, "and their memory");
}

/// Creates both queue pairs of a controller and closes them.
fn both(controller: &Controller) -> Result<(), Error> {
    let one = controller.queue_pair().create::<u64>()?;
    let two = controller.queue_pair().create::<u64>()?;
    let (one, two) = (one.close(), two.close());
    one.and(two).map(drop)
}

/// A creation that was answered late is undone.
#[test]
fn a_late_creation_is_undone() {
    let bent = Bent::start("size=1M");
    let controller = open(&bent);
    let before = controller.heap().in_use();
    for _ in 0..3 {
        bent.faults.hang(true);
        let error = controller.queue_pair().create::<u64>().unwrap_err();
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error:?}");
        bent.faults.hang(false);
        let pairs = [1, 2].map(|_| patiently("a queue pair", || controller.queue_pair().create::<u64>()));
        pairs.into_iter().for_each(drop);
    }
    patiently("both ids", || both(&controller));
    assert_eq!(controller.heap().in_use(), before);
}

/// A buffer that a timed-out blocking call left to the controller is freed with its queue.
#[test]
fn a_late_blocking_call_frees_its_buffer() {
    let bent = Bent::start("size=1M");
    let controller = open(&bent);
    let namespace = patiently("a namespace", || controller.namespace(1));
    let mut buffer = controller.alloc(4096).unwrap();
    patiently("a read", || {
        if buffer.is_empty() {
            buffer = controller.alloc(4096)?;
        }
        namespace.read(0, &mut buffer)
    });
    let before = controller.heap().in_use();
    bent.faults.hang(true);
    let error = namespace.read(0, &mut buffer).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { kept: true, .. }), "{error:?}");
    assert!(buffer.is_empty());
    bent.faults.hang(false);
    patiently("its end", || {
        let mut another = controller.alloc(4096)?;
        namespace.read(0, &mut another)?;
        buffer = another;
        controller.namespace_ids()?;
        // The blocking calls' queue is made again, and the buffer is free: as much memory is in use as
        // before.
        match controller.heap().in_use() {
            // Less, if the first read timed out already on a busy machine.
            now if now <= before => Ok(()),
            now => {
                let reason = format!("{now} bytes are in use, {before} before");
                Err(upcie_core::Error::unusable(controller.name(), reason).into())
            }
        }
    });
}

/// Late answers use up no resource of the process.
#[test]
fn a_thousand_faulty_sessions_leave_nothing_behind() {
    // In a process without other tests, whose descriptors and mappings come and go.
    if process::role().is_none() {
        let name = "a_thousand_faulty_sessions_leave_nothing_behind";
        let mut alone = process::again(name, "alone");
        let output = process::within(20 * deadline(), move || alone.output().expect("this executable"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let bent = Bent::start("size=1M");
    // Makes the resources that stay, the server's for interrupts among them: the sessions below may all fail on a busy
    // machine.
    let controller = Controller::open(bent.address()).unwrap();
    let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
    let (namespace, buffer) = (controller.namespace(1).unwrap(), controller.alloc(4096).unwrap());
    queue.turn().unwrap().read(&namespace, 0, buffer, 0).unwrap();
    assert!(queue.wait(Wait::Interrupt, deadline()).unwrap());
    drop((queue, namespace, controller));
    let mut before = (0, 0, 0);
    for round in 0..upcie_tests::scaled(1000) {
        if round == 20 {
            before = held();
        }
        let options = Controller::builder().timeout(Duration::from_millis(3)).queues(2);
        // On a busy machine bring-up itself may time out: then that is the fault.
        let Ok(controller) = options.open(bent.address()) else { continue };
        let namespace = controller.namespace(1).ok();
        let queue = controller.queue_pair().create::<u64>();
        if let (Some(namespace), Ok(mut queue)) = (&namespace, queue) {
            bent.faults.hang(round % 3 > 0);
            for tag in 0..2 {
                queue.turn().unwrap().read(namespace, 0, controller.alloc(4096).unwrap(), tag).unwrap();
            }
            match round % 11 {
                9 => bent.faults.reset(),
                10 => bent.faults.close(),
                _ => {}
            }
            match round % 4 {
                0 => drop(queue.close()),
                1 => {
                    drop((controller.namespace_ids(), queue.close(), controller.queue_pair().create::<u64>()))
                }
                2 => drop((namespace.read(0, &mut controller.alloc(4096).unwrap()), queue)),
                _ => drop((controller.queue_pair().create::<u64>(), queue)),
            }
        }
        // The answers arrive during the session or not at all.
        if round % 5 > 0 {
            bent.faults.hang(false);
        }
        drop((namespace, controller));
        bent.faults.hang(false);
    }
    // The server closes its end of a session in its own time: the last one soon, an earlier one perhaps after
    // the first count.
    let is_more = |now: (usize, usize, usize)| now.0 > before.0 || now.1 > before.1 || now.2 > before.2;
    let end = Instant::now() + deadline();
    while is_more(held()) {
        assert!(
            Instant::now() < end,
            "descriptors, mappings and pages {:?}, at first {before:?}: {:?}",
            held(),
            files()
        );
        std::thread::yield_now();
    }
}

/// Returns the names of the open files.
fn files() -> Vec<std::path::PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// Returns the numbers of open descriptors, of mapped files, and of pages that these map.
fn held() -> (usize, usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let files = maps.lines().filter(|line| line.contains("memfd:") || line.contains("/upcie-"));
    let pages = files.clone().map(|line| {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-')).expect("a range");
        let [start, end] = [range.0, range.1].map(|at| usize::from_str_radix(at, 16).expect("an address"));
        (end - start) / 4096
    });
    (descriptors, files.count(), pages.sum())
}

/// Faults are noticed during a wait, not after its timeout, and the queue refuses everything after that.
#[test]
fn faults_are_noticed_during_a_wait() {
    // Far beyond any deadline of a test: a wait that the fault does not end fails the test.
    let whole = 20 * deadline();
    for (what, fault, text) in FAULTS {
        for how in [Wait::Poll, Wait::Interrupt, Wait::Adaptive(Duration::from_millis(1))] {
            let bent = Bent::start("size=1M");
            let controller = Controller::open(bent.address()).unwrap();
            let namespace = controller.namespace(1).unwrap();
            let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
            bent.faults.hang(true);
            queue.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), 1).unwrap();
            // Hung until the driver sees the reset, which a hung controller shows too.
            fault(&bent);
            let (sent, start) = (text, Instant::now());
            let (error, mut queue) =
                process::within(deadline(), move || (queue.wait(how, whole).unwrap_err(), queue));
            println!("{what}, {how:?}: noticed after {:?}", start.elapsed());
            says(&error, &["vfio-user:", sent]);
            // The server sends nothing any more.
            let error = queue.turn().unwrap_err();
            says(&error, &["vfio-user:"]);
            assert!(queue.wait(how, whole).is_err(), "{what}");
            bent.faults.set_status(0);
            bent.faults.hang(false);
        }
    }
}

/// Once the controller has let go of all memory, everything that waited for that is freed while the controller is
/// still open: queues that were not deleted, commands that were not answered, and kept memory.
#[test]
fn kept_memory_is_freed_when_the_controller_lets_go() {
    for (what, fault, _) in
        FAULTS.into_iter().filter(|(what, ..)| what.contains("reset") || what.contains("closed"))
    {
        let bent = Bent::start("size=1M");
        let controller = open(&bent);
        let namespace = patiently("a namespace", || controller.namespace(1));
        let before = controller.heap().in_use();
        let mut queue = patiently("a queue pair", || controller.queue_pair().create::<u64>());
        bent.faults.hang(true);
        queue.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), 1).unwrap();
        assert!(
            matches!(queue.close(), Err(error) if matches!(error.failure(), Failure::Undeleted { .. })),
            "{what}"
        );
        controller.keep(controller.alloc(4096).unwrap());
        assert!(controller.namespace_ids().is_err(), "it hangs");
        let kept = controller.heap().in_use();
        assert!(kept > before + 3 * 4096, "{what}: {kept} bytes are in use, {before} before");
        fault(&bent);
        patiently(what, || {
            let error = controller.namespace_ids().expect_err("it is of no more use");
            if controller.heap().in_use() == before { Ok(()) } else { Err(error) }
        });
        // Memory that is kept from now on is freed at once.
        controller.keep(controller.alloc(4096).unwrap());
        assert_eq!(controller.heap().in_use(), before, "{what}");
        bent.faults.hang(false);
    }
}

/// The same for admin commands and blocking calls; after another host's reset or a closed connection the
/// buffer comes back.
#[test]
fn faults_are_noticed_by_calls_that_wait() {
    for (what, fault, text) in FAULTS {
        let bent = Bent::start("size=1M");
        let options = Controller::builder().timeout(20 * deadline());
        let controller = options.open(bent.address()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut buffer = controller.alloc(4096).unwrap();
        namespace.read(0, &mut buffer).unwrap();
        bent.faults.hang(true);
        fault(&bent);
        let result = process::within(deadline(), move || {
            let read = namespace.read(0, &mut buffer).unwrap_err();
            (read, controller.namespace_ids().unwrap_err(), buffer.len(), (namespace, controller))
        });
        let (read, admin, len, handles) = result;
        says(&read, &["vfio-user:", text]);
        says(&admin, &["vfio-user:", text]);
        // A controller that is gone or has failed may still write to the buffer.
        let has_let_go = ["reset by another", "closed connection"].contains(&what);
        assert!(!has_let_go || len == 4096, "{what}: the controller has let go of the buffer");
        bent.faults.set_status(0);
        bent.faults.hang(false);
        drop(handles);
    }
}

/// A queue pair that a controller does not create again loses neither its commands nor its id.
#[test]
fn commands_come_back_though_the_queue_pair_does_not() {
    let directory = process::Directory::new();
    let plan = directory.path().join("plan.toml");
    // The second one: after the reset.
    let drop_create =
        "[[fault]]\nkind = \"drop\"\nqueue = \"admin\"\nopcode = \"create-sq\"\nafter = 1\ncount = 1\n";
    std::fs::write(&plan, drop_create).unwrap();
    let address = format!("emu:size=1M,latency=60s,faults={}", plan.display());
    let controller = Controller::builder().timeout(Duration::from_secs(1)).queues(1).open(&*address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut pair = controller.queue_pair().create::<u8>().unwrap();
    let in_flight = |pair: &mut upcie_nvme::QueuePair<u8>| {
        pair.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), 7).unwrap();
    };
    in_flight(&mut pair);
    controller.reset().unwrap();
    let error = pair.recover().unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
    assert!(!pair.is_ready() && pair.turn().is_err());
    says(&error, &[controller.name()]);
    assert!(!pair.diagnose().is_empty());
    assert!(matches!(pair.recover().unwrap_err().failure(), Failure::Undeleted { .. }));
    let returned = pair.close().unwrap();
    assert_eq!(returned.iter().map(|command| *command.tag()).collect::<Vec<_>>(), [7]);
    drop(returned);
    // The reset shows that the controller has let go of the queues that it may have created.
    controller.reset().unwrap();
    let mut pair = controller.queue_pair().create::<u8>().expect("the one id is free again");
    in_flight(&mut pair);
    controller.reset().unwrap();
    assert_eq!(pair.recover().unwrap().len(), 1);
}
