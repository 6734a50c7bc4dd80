//! `upcie perf` and `upcie plot` show problems of a run, and the wait mode that was chosen.

mod program;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use program::{Dir, Served, fails, measuring, number, perf, run_upcie as run, succeeds, upcie};
use serde_json::Value;
use std::{fs, num::NonZero, thread::available_parallelism};

/// Returns the texts of a report's problems of one kind.
fn problems<'a>(report: &'a Value, kind: &str) -> Vec<&'a str> {
    let all = report["problems"].as_array().unwrap();
    all.iter().filter(|one| one["kind"] == kind).map(|one| one["text"].as_str().unwrap()).collect()
}

/// Runs perf with an expected exit code; returns its report and its image.
#[track_caller]
fn drawn(arguments: &str, dir: &Dir, code: i32) -> (Value, String) {
    let svg = dir.path("run.svg");
    let output = run(&format!("perf {arguments} --json --plot {svg}"));
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), fs::read_to_string(svg).unwrap())
}

/// Wrong data shows in the JSON, in the image of the run, and in `upcie plot` of one result and of two.
#[test]
fn wrong_data_shows_in_json_and_images() {
    let dir = Dir::made("wrongdata");
    let served = Served::new(&dir, "size=8M,null=true");
    let (report, svg) = drawn(&format!("{} --verify --destructive --count 500", served.1), &dir, 3);
    let [text] = problems(&report, "mismatches")[..] else { panic!("{report}") };
    assert!(text.ends_with("I/Os returned wrong data"), "{text}");
    assert!(svg.contains(text), "the image of the run");
    let (bad, good, out) = (dir.path("bad.json"), dir.path("good.json"), dir.path("out.svg"));
    fs::write(&bad, report.to_string()).unwrap();
    fs::write(&good, succeeds(run("perf emu --count 100 --json"))).unwrap();
    for files in [bad.clone(), format!("{bad} {good}")] {
        succeeds(run(&format!("plot {files} --out {out}")));
        assert!(fs::read_to_string(&out).unwrap().contains(text), "plot {files}");
    }
    let text = run(&format!("perf {} --verify --destructive --count 500", served.1)).stdout;
    assert!(String::from_utf8(text).unwrap().lines().any(|line| line.starts_with("! ")), "a line for people");
}

#[test]
fn verify_of_a_device_that_moves_no_data_is_refused() {
    let error = fails(2, run("perf emu emu:size=8M,null=true --verify --count 5"));
    assert!(error.contains("emu:size=8M,null=true moves none"), "{error}");
}

/// The JSON and the image name the rate that was asked for.
#[test]
fn a_missed_rate_is_shown() {
    let dir = Dir::made("rate");
    // The device does at most 1000 I/Os per second, one at a time.
    let (report, svg) = drawn("emu:latency=1ms --depth 1 --rate 10k --count 100", &dir, 0);
    let [text] = problems(&report, "rate")[..] else { panic!("{report}") };
    assert!(text.contains("of 10.0k IOPS") && svg.contains(text), "{text}");
}

/// The output and the image say after which time a signal ended the run.
#[test]
fn an_interrupted_run_is_shown() {
    let dir = Dir::made("interrupted");
    let svg = dir.path("run.svg");
    let (child, lines) = measuring(&format!("emu --time 60 --interval 10ms --plot {svg}"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let rest = lines.collect::<Vec<_>>().join("\n");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(rest.contains("Measured for") && rest.contains("! Interrupted after"), "{rest}");
    assert!(fs::read_to_string(svg).unwrap().contains("Interrupted after"));
}

/// The JSON and the image show the loss, and the JSON has the device's I/Os in flight.
#[test]
fn a_lost_device_is_shown_with_its_ios_in_flight() {
    let dir = Dir::made("lostshown");
    let (report, svg) = drawn("emu emu:latency=60s --depth 3 --timeout 300ms --time 600ms", &dir, 1);
    assert_eq!(
        problems(&report, "lost"),
        ["emu:latency=60s was lost before anything completed, with 3 I/Os in flight"]
    );
    assert!(svg.contains("was lost before anything completed"));
    assert_eq!(
        (&report["devices"][1]["lost_in_flight"], &report["devices"][0]["lost_after_ns"]),
        (&3.into(), &Value::Null)
    );
}

/// The test checks that times are counted; their values depend on the scheduler.
#[test]
fn threads_report_their_share_of_a_core() {
    let report = perf("emu --count 1000");
    let thread = &report["threads"][0];
    assert!(number(thread, "/wall_ns") > 0.0, "{thread}");
    assert!(
        fs::metadata("/proc/thread-self/schedstat").is_err() || thread["core_wait_ns"].is_u64(),
        "{thread}"
    );
}

/// The embedded controller's thread needs a core, too.
#[test]
fn more_threads_than_cores_are_reported() {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let report = perf(&format!("emu:queues=1023 --threads {} --count 1000", cores + 1));
    assert_eq!(report["host"]["cores"], cores);
    let [text] = problems(&report, "cores")[..] else { panic!("{report}") };
    assert!(text.starts_with(&format!("{} threads and 1 embedded controller share", cores + 1)), "{text}");
    let text =
        String::from_utf8(succeeds(run(&format!("perf emu --threads {} --count 1000", cores + 1)))).unwrap();
    assert!(text.contains("they take turns"), "{text}");
}

/// Two threads that poll on one core have half of it each, at most, so the report does not say that polling never
/// sleeps.
#[test]
fn threads_that_share_a_core_are_reported_as_starved() {
    // The program inherits the only core of this thread.
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).unwrap();
    let core = (0..CpuSet::count()).find(|&core| all.is_set(core).unwrap()).expect("a core");
    let mut one = CpuSet::new();
    one.set(core).unwrap();
    sched_setaffinity(this, &one).unwrap();
    let dir = Dir::made("starved");
    let arguments = "emu --threads 2 --wait poll --time 500ms";
    let (report, svg) = drawn(arguments, &dir, 0);
    let [text] = problems(&report, "starved")[..] else { panic!("{report}") };
    assert!(text.contains(" ran only ") && text.ends_with("measure the scheduler, not the device"), "{text}");
    assert!(svg.contains(" ran only "), "the image of the run");
    assert_eq!(problems(&report, "cores").len(), 1, "{report}");
    let text = String::from_utf8(succeeds(run(&format!("perf {arguments}")))).unwrap();
    assert!(text.lines().any(|line| line.starts_with("! ") && line.contains(" ran only ")), "{text}");
    assert!(text.contains("other threads had it") && !text.contains("never sleeps"), "{text}");
}

/// The default wait mode depends on the load of the cores, so only the reason is checked; without interrupts the mode
/// is certain.
#[test]
fn the_chosen_wait_mode_is_printed() {
    for (device, reason) in [("emu", "need one each"), ("emu:vectors=0", "emu:vectors=0 has no interrupts")] {
        let report = perf(&format!("{device} --count 100"));
        let wait = report["parameters"]["wait"].as_str().unwrap();
        let said = report["parameters"]["wait_reason"].as_str().unwrap();
        assert!(said.contains(reason), "{report}");
        assert_eq!(wait == "adaptive", said.contains("to poll all the time"), "{report}");
        let text = String::from_utf8(succeeds(run(&format!("perf {device} --count 100")))).unwrap();
        assert!(text.contains(" was chosen: ") && text.contains(reason), "{text}");
    }
    assert!(perf("emu --count 100 --wait poll")["parameters"]["wait_reason"].is_null());
}

#[test]
fn results_name_the_machine_and_the_time() {
    let report = perf("emu --count 100");
    let host = &report["host"];
    assert_eq!((&host["command"][1], &host["command"][2]), (&"perf".into(), &"emu".into()));
    assert!(
        host["started"].as_str().unwrap().ends_with('Z')
            && host["tool"].as_str().unwrap().starts_with("upcie ")
    );
    assert_eq!(host["kernel"], fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
}

/// Results without the newer fields can still be read.
#[test]
fn results_of_an_earlier_version_are_drawn() {
    let dir = Dir::made("earlier");
    let (old, out) = (dir.path("old.json"), dir.path("out.svg"));
    let mut report = perf("emu --count 100");
    for key in ["problems", "host", "emulator_wait_ns"] {
        report.as_object_mut().unwrap().remove(key).unwrap();
    }
    report["interrupted"] = true.into();
    fs::write(&old, report.to_string()).unwrap();
    succeeds(upcie(&format!("plot {old} --out {out}")).output().unwrap());
    assert!(fs::read_to_string(out).unwrap().contains("Interrupted after"));
}
