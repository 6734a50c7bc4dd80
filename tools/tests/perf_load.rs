//! `upcie perf` with several devices, threads and queue pairs, with rates, sizes and distributions, and with
//! lost devices.

mod program;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use program::{
    Dir, Ended, Served, complains, fails, measuring, number, perf, run_upcie as run, succeeds, upcie,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

fn sum(report: &Value, part: &str, field: &str) -> f64 {
    report[part].as_array().unwrap().iter().map(|entry| entry[field].as_f64().unwrap()).sum()
}

#[test]
fn devices_and_threads_share_the_work_and_add_up() {
    let dir = Dir::made("devices");
    let served = Served::new(&dir, "size=64M,lba=4096");
    for wait in ["poll", "irq", "adaptive"] {
        let report = perf(&format!(
            "emu:size=64M {} --threads 2 --queues 2 --rw randrw --yes --count 8001 --depth 8 --wait {wait}",
            served.1
        ));
        assert_eq!((&report["ios"], &report["errors"]), (&8001.into(), &0.into()), "{wait}");
        for part in ["devices", "threads"] {
            assert_eq!(report[part].as_array().unwrap().len(), 2);
            for field in ["ios", "bytes"] {
                assert_eq!(
                    sum(&report, part, field),
                    number(&report, &format!("/{field}")),
                    "{part} {field}"
                );
            }
            // Eight queue pairs do a thousand I/Os each, and one of them does one more.
            for entry in report[part].as_array().unwrap() {
                assert!(matches!(entry["ios"].as_u64(), Some(4000 | 4001)), "{entry}");
            }
        }
        assert_eq!(report["devices"][1]["address"], served.1);
        assert_eq!(
            (number(&report, "/parameters/queues"), number(&report, "/parameters/threads")),
            (2.0, 2.0)
        );
    }
}

#[test]
fn each_device_has_its_own_numbers() {
    let report = perf("emu emu:latency=1ms emu --depth 1 --count 300");
    // Latencies are rounded to a tenth of a percent.
    for (device, least) in [(0, 0.0), (1, 0.999e6), (2, 0.0)] {
        let entry = &report["devices"][device];
        assert_eq!(entry["ios"], 100, "{entry}");
        assert!(number(entry, "/latency_ns/min") >= least, "{entry}");
    }
    assert!(number(&report, "/devices/0/latency_ns/min") < 0.999e6, "not the latencies of the slow device");
}

/// Checks that the intervals cover exactly the whole run.
#[track_caller]
fn check_intervals(report: &Value) {
    for field in ["ios", "bytes", "errors"] {
        for part in ["intervals", "devices", "threads"] {
            assert_eq!(sum(report, part, field), number(report, &format!("/{field}")), "{part} {field}");
        }
    }
    let intervals = report["intervals"].as_array().unwrap();
    assert_eq!(intervals[0]["start_ns"], 0);
    assert!(intervals.windows(2).all(|pair| pair[0]["end_ns"] == pair[1]["start_ns"]), "{intervals:?}");
    assert_eq!(intervals.last().unwrap()["end_ns"], report["elapsed_ns"]);
}

#[test]
fn nothing_is_lost_between_intervals_under_load() {
    for arguments in [
        "emu --threads 16 --time 200ms",
        "emu --threads 16 --count 20000",
        "emu emu:null=true --threads 12 --queues 2 --rw randrw --time 200ms --wait irq",
        "emu:null=true --threads 12 --rate 100k --time 200ms",
    ] {
        check_intervals(&perf(&format!("{arguments} --interval 10ms")));
    }
    // One device is given up during the run.
    let output = run(
        "perf emu emu:latency=60s emu:null=true --threads 8 --interval 10ms --timeout 200ms --time 400ms --json",
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    complains(1, output);
    assert!(!report["devices"][1]["lost"].is_null() && number(&report, "/ios") > 0.0, "{report}");
    check_intervals(&report);
}

#[test]
fn intervals_add_up_to_the_whole() {
    let report = perf("emu emu --threads 2 --time 400ms --interval 100ms --warmup 100ms");
    check_intervals(&report);
    let intervals = report["intervals"].as_array().unwrap();
    assert!((2..=6).contains(&intervals.len()), "{intervals:?}");
    assert_eq!(number(&report, "/parameters/warmup_ns"), 1e8);
}

#[test]
fn threads_are_pinned_and_a_forbidden_core_is_named() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first: usize = allowed.split([',', '-']).next().unwrap().parse().unwrap();
    let report = perf(&format!("emu --cores {first} --count 1000"));
    assert_eq!(report["threads"][0]["core"], first);
    assert_eq!(report["parameters"]["cores"], serde_json::json!([first]));
    let mut child = upcie(&format!("perf emu --cores {first} --time 60 --interval 10ms"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let child = Ended(child);
    let mut lines = BufReader::new(stdout).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" MiB/s   p50")));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.0.id())).unwrap();
    let read = |path: std::path::PathBuf, name| std::fs::read_to_string(path.join(name)).unwrap();
    let found = tasks
        .map(|task| task.unwrap().path())
        .find(|task| read(task.clone(), "comm").trim() == "upcie-perf0");
    let status = read(found.unwrap(), "status");
    assert!(status.contains(&format!("Cpus_allowed_list:\t{first}\n")), "{status}");
    drop(child);
    let error = fails(1, run("perf emu --cores 1023 --count 1"));
    assert!(error.contains("core 1023") && error.contains(allowed), "{error}");
    // taskset leaves the program only one core.
    let pinned = Command::new("taskset")
        .args([
            "-c",
            &first.to_string(),
            env!("CARGO_BIN_EXE_upcie"),
            "perf",
            "emu",
            "--count",
            "1",
            "--cores",
            allowed,
        ])
        .output()
        .unwrap();
    if allowed != first.to_string() {
        assert!(fails(1, pinned).contains("is not allowed for this process"));
    }
}

#[test]
fn latency_counts_from_the_scheduled_start() {
    for load in ["", "emu --threads 2 --queues 2", "--wait irq", "--latency-breakdown"] {
        let report = perf(&format!("emu {load} --rate 2k --count 401"));
        assert_eq!(report["ios"], 401, "{load}");
        // The last I/O starts 400 periods after the first.
        assert!(number(&report, "/elapsed_ns") >= 0.2e9, "{load}: {report}");
    }
    // The device takes 1 ms for one I/O at a time, so it can't do 10000 per second: the last of 100 starts 90
    // ms late.
    let report = perf("emu:latency=1ms --depth 1 --rate 10k --count 100");
    assert!(number(&report, "/latency_ns/max") >= 89e6, "{report}");
    assert!(number(&report, "/latency_ns/min") >= 0.999e6, "{report}");
    let unhurried = perf("emu:latency=1ms --depth 1 --count 100");
    assert!(number(&unhurried, "/latency_ns/p50") < number(&report, "/latency_ns/p50") / 4.0, "{unhurried}");
}

#[test]
fn a_queue_pair_without_ios_is_not_waited_for() {
    // The first I/O of such a queue pair would be due after a minute.
    let report = perf("emu --queues 30 --count 1 --rate 1 --threads 2 --warmup 10ms");
    assert_eq!(report["ios"], 1);
    let elapsed = number(&report, "/elapsed_ns");
    assert!(elapsed < 20e9, "{elapsed}");
}

#[test]
fn a_run_that_needs_too_much_memory_is_refused() {
    // The limit protects this machine if the program does not refuse.
    let arguments =
        "--as=8589934592 {} perf emu:size=4G,mdts=1G,depth=65536 --depth 65535 --block-size 32M --queues 64";
    let arguments = arguments.replace("{}", env!("CARGO_BIN_EXE_upcie"));
    let output = Command::new("prlimit").args(arguments.split_whitespace()).output().unwrap();
    let error = fails(1, output);
    assert!(error.contains("128.00 TiB of memory") && error.contains("--depth"), "{error}");
}

#[test]
fn results_do_not_need_a_reader_of_stderr() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let arguments = "perf emu emu:latency=60s --timeout 200ms --time 500ms --json";
    let output = upcie(arguments).stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!report["devices"][1]["lost"].is_null(), "{report}");
}

#[test]
fn an_idle_device_is_not_given_up() {
    // Each I/O takes 200 ms, one second after the last.
    let report = perf("emu:latency=200ms --rate 1 --count 3 --timeout 800ms");
    assert_eq!((&report["ios"], &report["devices"][0]["lost"]), (&3.into(), &Value::Null));
}

#[test]
fn a_timed_run_with_a_rate_does_the_ios_that_were_due() {
    let report = perf("emu --rate 1000 --time 500ms");
    let ios = number(&report, "/ios");
    // No I/O starts early; a busy machine may start the last ones too late to count.
    assert!((100.0..=501.0).contains(&ios), "{report}");
    assert!((0.5e9..5e9).contains(&number(&report, "/elapsed_ns")), "{report}");
}

#[test]
fn mixed_sizes_come_in_their_shares() {
    for rw in ["read", "randrw"] {
        let report = perf(&format!("emu:size=64M --rw {rw} --block-size 4k:75,64k:25 --count 20000"));
        let mean = number(&report, "/bytes") / number(&report, "/ios");
        assert!((19_000.0..20_000.0).contains(&mean), "{rw}: {mean}");
        assert_eq!(report["parameters"]["block_size"], Value::Null);
        assert_eq!(
            report["parameters"]["block_sizes"][1],
            serde_json::json!({ "bytes": 65536, "percent": 25 })
        );
    }
}

#[test]
fn blocks_are_deallocated() {
    let dir = Dir::made("trim");
    let disk = dir.path("disk");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    // 64 KiB is more than a transfer may have, but a range may be longer.
    let report =
        perf(&format!("emu:file={disk},mdts=8K --rw trim --block-size 64K --count 16 --threads 2 --yes"));
    assert_eq!(
        (&report["trim"]["ios"], &report["write"], &report["errors"]),
        (&16.into(), &Value::Null, &0.into())
    );
    assert_eq!(report["bytes"], 1 << 20);
    assert!(std::fs::read(&disk).unwrap().iter().all(|&byte| byte == 0), "every block was deallocated");
    assert_eq!(perf("emu emu --rw randtrim --random zipf:1 --count 3000")["trim"]["ios"], 3000);
}

#[test]
fn zipf_breakdowns_and_small_pages_work_together() {
    let report =
        perf("emu emu:lba=4096 --random zipf:1.2 --latency-breakdown --buffers 4k --threads 2 --count 10000");
    assert_eq!((&report["ios"], &report["errors"]), (&10_000.into(), &0.into()));
    assert_eq!(report["parameters"]["random"], "zipf:1.2");
    let whole = number(&report, "/latency_ns/mean");
    let parts: f64 = ["submit", "device"]
        .iter()
        .map(|part| number(&report, &format!("/latency_breakdown_ns/{part}/mean")))
        .sum();
    // The latency counts from the start of the turn, so it includes both parts.
    assert!(parts > 0.0 && parts <= whole * 1.01, "{parts} of {whole}");
    assert!(perf("emu --count 10")["latency_breakdown_ns"].is_null());
}

#[test]
fn data_by_sgls_is_verified() {
    let sizes = "--block-size 64k --length 4M --count 3000";
    let report = perf(&format!("emu --rw randrw --verify --sgl {sizes} --destructive"));
    assert_eq!(
        (&report["ios"], &report["errors"], &report["mismatches"]),
        (&3000.into(), &0.into(), &0.into())
    );
    assert_eq!(report["parameters"]["sgl"], true);
}

#[test]
fn impossible_runs_are_refused_with_the_limit() {
    for (arguments, part) in [
        ("perf emu:sgl=false --sgl", "emu:sgl=false: it takes no scatter gather lists"),
        ("perf emu emu:lba=4096 --block-size 512", "emu:lba=4096: --block-size 512"),
        ("perf emu --block-size 4k:50,6000:50", "--block-size 6000"),
        (
            "perf emu emu:mdts=8K --block-size 4k:50,64k:50",
            "emu:mdts=8K: --block-size 64k: the device takes at most 8 KiB",
        ),
        ("perf emu emu:queues=2 --threads 3", "3 queue pairs: the device granted 2"),
        ("perf emu emu:depth=16 --depth 32", "emu:depth=16: --depth 32: the device takes at most 15"),
        ("perf emu:size=8K --threads 3", "fewer than one for each of the 3 queue pairs"),
        ("perf emu emu:vectors=0 --wait irq", "emu:vectors=0: the device has no interrupts"),
        ("perf emu --histogram /absent/x", "/absent/x"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.starts_with("upcie: ") && error.contains(part), "{arguments}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    for (arguments, part) in [
        ("perf vfio-user:/x vfio-user:/x", "given twice"),
        ("perf emu --rate 0", "1 to 1000M"),
        ("perf emu --rw read --random zipf:1.1", "in order"),
        ("perf emu --verify --block-size 4k:50,8k:50", "one --block-size"),
        ("perf emu --cores 0 --threads 2", "--threads"),
        ("perf emu --cores 0,x", "0,2-3"),
        ("perf emu --block-size 4k:50,8k:60", "110 %"),
    ] {
        let error = fails(2, run(arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn a_lost_device_costs_only_its_own_numbers() {
    let dir = Dir::made("lost");
    let mut served = Served::new(&dir, "size=16M");
    let (child, lines) = measuring(&format!("emu:size=16M {} --time 2 --interval 100ms", served.1));
    served.0.0.kill().unwrap();
    let rest = lines.collect::<Vec<_>>().join("\n");
    let error = complains(1, child.wait_with_output().unwrap());
    // One line names the device and says that the other goes on; consequences of the loss are not reported.
    assert!(error.contains(&served.1) && error.contains("the other device goes on"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(rest.contains("(lost)") && rest.contains("p99.99"), "{rest}");
}

#[test]
fn a_device_that_hangs_does_not_delay_the_others() {
    let output = run("perf emu emu:latency=60s --timeout 300ms --time 1 --json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = complains(1, output);
    assert!(error.contains("emu:latency=60s: queue 1: no completion within 300ms"), "{error}");
    assert!(report["devices"][0]["lost"].is_null() && number(&report, "/devices/0/ios") > 0.0);
    assert!(report["devices"][1]["lost"].as_str().unwrap().contains("no completion"), "{report}");
    assert_eq!(report["devices"][1]["ios"], 0);
    assert!(report["devices"][1]["latency_ns"].is_null());
}

#[test]
fn a_time_while_perf_was_stopped_does_not_count() {
    let dir = Dir::made("stopped");
    let served = Served::new(&dir, "size=16M");
    for wait in ["poll", "irq"] {
        let command = format!("{} --time 3 --interval 100ms --timeout 1500ms --wait {wait}", served.1);
        let (child, lines) = measuring(&command);
        let send = |id, name| kill(Pid::from_raw(id as i32), name).unwrap();
        let server = served.0.0.id();
        // The server continues later, so that nothing has completed when perf checks again.
        send(server, Signal::SIGSTOP);
        send(child.id(), Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(2));
        send(child.id(), Signal::SIGCONT);
        thread::sleep(Duration::from_millis(300));
        send(server, Signal::SIGCONT);
        let rest = lines.collect::<Vec<_>>().join("\n");
        succeeds(child.wait_with_output().unwrap());
        assert!(rest.contains("p99.99"), "{rest}");
    }
}
