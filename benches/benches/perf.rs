//! `upcie perf` against a bare loop of the driver that measures nothing, each with an `nvme-emu` of its own over
//! vfio-user.
//!
//! The two take turns on the same two cores while the other emulator is stopped. Rounds in which a thread waited for its
//! core are left out.

use std::{
    env,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use upcie_benches::{
    bare::Work,
    cores,
    entry::Pairs,
    served::{Driver, Emulator, program},
};
use upcie_nvme::Controller;

/// Commands in flight.
const DEPTH: usize = 128;
/// Bytes of the range that is read.
const RANGE: u64 = 64 << 20;
/// The length of one measurement.
const SLICE: Duration = Duration::from_millis(500);
/// Rounds that are wanted, and rounds that are tried.
const ROUNDS: (usize, usize) = (15, 60);
/// The largest share of a round's time that its threads together may wait for a core.
const MOST_DELAY: f64 = 0.02;

/// Runs `upcie perf` on `core`; returns the nanoseconds per I/O, or `None` if its thread did not have the core to itself.
fn perf(address: &str, bytes: u64, core: usize) -> Option<f64> {
    let output = Command::new(program("upcie"))
        .args(["perf", address, "--json", "--wait", "poll", "--rw", "randread"])
        .args(["--depth", &DEPTH.to_string(), "--block-size", &bytes.to_string()])
        .args(["--length", &RANGE.to_string(), "--cores", &core.to_string()])
        .args(["--time", &format!("{}ms", SLICE.as_millis())])
        .stderr(Stdio::inherit())
        .output()
        .expect("upcie perf");
    assert!(output.status.success(), "upcie perf: {}", output.status);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let starved = |problem: &serde_json::Value| problem["kind"] == "starved";
    let quiet = !report["problems"].as_array().expect("a list").iter().any(starved);
    quiet.then(|| 1e9 / report["iops"].as_f64().expect("a rate"))
}

fn measure(name: &str, bytes: u64, [target, initiator]: [usize; 2]) {
    // Threads that start meanwhile may run on either core.
    cores::pin(0, &[target, initiator]);
    let emulators = ["perf", "loop"].map(|name| Emulator::start("null=true", name));
    let [measured, looped] = &emulators;
    let work = Work { depth: DEPTH, blocks: bytes / 512, mask: RANGE / 512 - 1 };
    let mut driver = Driver::start(Controller::open(looped.address()).expect("nvme-emu"), work);
    for emulator in &emulators {
        emulator.pin(target);
        emulator.signal(libc::SIGSTOP);
    }
    cores::pin(0, &[initiator]);
    let address = measured.address().to_string();
    let first = looped.awake(|| driver.run(20_000));
    let count = (SLICE.as_nanos() as f64 / first) as u64;
    let delay = || {
        emulators.iter().map(|emulator| cores::run_delay(emulator.child.id())).sum::<u64>()
            + cores::run_delay(std::process::id())
    };
    let mut pairs = Pairs::default();
    let (mut kept, mut tried) = (0, 0);
    while kept < ROUNDS.0 && tried < ROUNDS.1 {
        tried += 1;
        let (start, before) = (Instant::now(), delay());
        let theirs = looped.awake(|| driver.run(count));
        let ours = measured.awake(|| perf(&address, bytes, initiator));
        let is_quiet = (delay() - before) as f64 <= start.elapsed().as_nanos() as f64 * MOST_DELAY;
        if let Some(ours) = ours.filter(|_| is_quiet) {
            kept += 1;
            pairs.push(ours, theirs);
        }
    }
    looped.signal(libc::SIGCONT);
    drop(driver);
    if kept < ROUNDS.0 {
        eprintln!("{name}: {kept} of {tried} rounds had their cores to themselves, fewer than {}", ROUNDS.0);
    }
    pairs.report(name, "ns", "lower");
}

fn main() {
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let &[target, initiator, ..] = &cores::allowed()[..] else {
        eprintln!("perf: skipped, since it needs two cores");
        return;
    };
    cores::prefer();
    for bytes in [512, 4096] {
        let name = format!("perf/null_{bytes}_qd{DEPTH}");
        if name.contains(&filter) {
            measure(&name, bytes, [target, initiator]);
        }
    }
}
