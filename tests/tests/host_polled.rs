//! Programs that only open turns and never wait notice a faulty controller.

use std::time::{Duration, Instant};
use upcie_nvme::{Controller, Error, Failure, Namespace, QueuePair};
use upcie_tests::{
    bent::{Bent, FATAL, FAULTS},
    deadline, process, says,
};

/// The number of empty turns after which the driver reads the clock.
const EMPTY_TURNS: u32 = 1024;
/// The time that commands in flight may take before the queue checks the controller.
const QUIET: Duration = Duration::from_millis(50);

struct Polled {
    bent: Bent,
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u64>,
}

impl Polled {
    fn start(options: &str) -> Self {
        let bent = Bent::start(options);
        let controller = Controller::open(bent.address()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let queue = controller.queue_pair().create().unwrap();
        Self { bent, controller, namespace, queue }
    }

    fn read(&mut self) {
        let buffer = self.controller.alloc(4096).unwrap();
        self.queue.turn().unwrap().read(&self.namespace, 0, buffer, 1).unwrap();
    }

    /// Runs up to `count` turns until one finds something; returns the number of turns before it, and its
    /// result.
    fn turns(&mut self, count: u32) -> (u32, Result<bool, Error>) {
        for turn in 0..count {
            match self.queue.turn().map(|mut turn| turn.next().is_some()) {
                Ok(false) => {}
                other => return (turn, other),
            }
        }
        (count, Ok(false))
    }

    /// Opens turns until `time` has passed or a completion arrives.
    fn turns_for(&mut self, time: Duration) -> Result<bool, Error> {
        let start = Instant::now();
        while start.elapsed() < time {
            match self.turns(64).1 {
                Ok(false) => {}
                other => return other,
            }
        }
        Ok(false)
    }
}

/// Regression: a loop over `turn()` alone never noticed these faults.
#[test]
fn faults_are_noticed_by_turns_alone() {
    for (what, fault, text) in FAULTS {
        let mut polled = Polled::start("size=1M");
        polled.bent.faults.hang(true);
        polled.read();
        fault(&polled.bent);
        let (error, mut polled) = process::within(deadline(), move || {
            loop {
                match polled.turns(EMPTY_TURNS).1 {
                    Ok(came) => assert!(!came, "{what}: a hung controller completes nothing"),
                    Err(error) => break (error, polled),
                }
            }
        });
        says(&error, &["vfio-user:", text]);
        // The server sends nothing any more.
        says(&polled.queue.turn().unwrap_err(), &["vfio-user:", text]);
        polled.bent.faults.set_status(0);
        polled.bent.faults.hang(false);
    }
}

/// A program that polls now and then notices a fault within a bounded number of turns.
#[test]
fn faults_are_noticed_within_a_number_of_turns() {
    let mut polled = Polled::start("size=1M");
    polled.bent.faults.hang(true);
    polled.read();
    polled.bent.faults.set_status(FATAL);
    // The program does something else meanwhile.
    std::thread::sleep(QUIET);
    let (turns, result) = polled.turns(EMPTY_TURNS + 1);
    let error = result.expect_err("it is noticed");
    assert!(matches!(error.failure(), Failure::Fatal { .. }) && turns <= EMPTY_TURNS, "{turns}: {error:?}");
    polled.bent.faults.set_status(0);
    polled.bent.faults.hang(false);
}

/// The queue waits for a slow command without limit, and checks the controller once in 50 ms at most.
#[test]
fn a_slow_command_is_no_fault() {
    let mut polled = Polled::start("size=1M,latency=450ms");
    polled.read();
    let (start, before) = (Instant::now(), polled.bent.faults.looks());
    let came = polled.turns_for(deadline());
    assert!(matches!(came, Ok(true)), "{came:?}");
    let (took, looks) = (start.elapsed(), polled.bent.faults.looks() - before);
    assert!(u128::from(looks) <= took.as_millis() / QUIET.as_millis() + 1, "{looks} looks in {took:?}");
}

/// While nothing is in flight, nothing can be late, and the queue reads no register.
#[test]
fn empty_turns_without_commands_read_no_register() {
    let mut polled = Polled::start("size=1M");
    polled.read();
    let came = polled.turns_for(deadline());
    assert!(matches!(came, Ok(true)), "{came:?}");
    let before = polled.bent.faults.looks();
    let came = polled.turns_for(3 * QUIET).and_then(|_| polled.turns(4 * EMPTY_TURNS).1);
    assert!(matches!(came, Ok(false)), "{came:?}");
    assert_eq!(polled.bent.faults.looks(), before);
}
