//! Measurements of `upcie perf`, and their output.

mod program;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use program::{Dir, fails, number, perf, run_upcie as run, succeeds, upcie};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

#[test]
fn perf_json_is_one_object_with_sane_values() {
    let dir = Dir::made("json");
    let plot = dir.path("plot.svg");
    let report = perf(&format!("emu:size=64M --time 300ms --plot {plot}"));
    let number = |path: &str| number(&report, path);
    assert!(number("/iops") > 100.0);
    assert!((number("/bytes_per_second") / number("/iops") - 4096.0).abs() < 0.01);
    assert_eq!(number("/errors"), 0.0);
    let latency = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "p99_999", "max"];
    let latency = latency.map(|key| number(&format!("/latency_ns/{key}")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
    let mean = number("/latency_ns/mean");
    assert!(latency[0] <= mean && mean <= latency[7]);
    // Little's law: I/Os in flight = rate × latency.
    let in_flight = number("/iops") * mean / 1e9;
    assert!((16.0..=33.0).contains(&in_flight), "{in_flight} of 32 in flight");
    assert!((0.25e9..5e9).contains(&number("/elapsed_ns")));
    assert!(number("/cpu_ns_per_io") > 0.0);
    assert_eq!(report["devices"][0]["namespaces"], serde_json::json!([1]));
    assert_eq!(report["parameters"]["rw"], "randread");
    assert!(report["write"].is_null() && report["read"]["ios"] == report["ios"]);
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.contains("IOPS over time") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn a_range_may_be_a_share_of_the_namespace() {
    let report = perf("emu:size=1M --size 50% --offset 256K --count 100 --fua");
    assert_eq!(
        (number(&report, "/devices/0/offset"), number(&report, "/devices/0/size")),
        (262_144.0, 524_288.0)
    );
    assert_eq!(report["parameters"]["fua"], true);
    let error = fails(1, run("perf emu:size=1M --length 60% --offset 512K"));
    assert!(error.contains("--length 60%: only 524288 bytes"), "{error}");
}

#[test]
fn perf_counts_exactly_in_every_wait_mode_and_workload() {
    for wait in ["poll", "irq", "adaptive"] {
        for rw in ["read", "write", "rw", "randread", "randwrite", "randrw"] {
            let report =
                perf(&format!("emu:size=16M --rw {rw} --count 2001 --queues 2 --depth 7 --wait {wait}"));
            assert_eq!(report["ios"], 2001, "{wait} {rw}");
            let of = |kind: &str| report[kind]["ios"].as_u64().unwrap_or(0);
            assert_eq!(of("read") + of("write"), 2001);
            assert_eq!(
                (of("read") > 0, of("write") > 0),
                (rw.contains('r') && !rw.ends_with("write"), rw.contains('w'))
            );
        }
    }
}

#[test]
fn perf_uses_the_wanted_kind_of_interrupts() {
    for (options, irq, used) in [
        ("msi=4", "", "msix"),
        ("msi=4", "--irq auto", "msix"),
        ("msi=4", "--irq intx", "intx"),
        ("msi=4", "--irq msi", "msi"),
        ("msi=4", "--irq msix", "msix"),
        ("vectors=0,msi=4", "", "msi"),
        ("vectors=0", "", "intx"),
    ] {
        for wait in ["irq", "adaptive"] {
            let report = perf(&format!(
                "emu:size=16M,intx=true,{options} --count 2001 --queues 3 --depth 7 --wait {wait} {irq}"
            ));
            assert_eq!((&report["ios"], &report["devices"][0]["irq"]), (&2001.into(), &used.into()), "{irq}");
        }
    }
    assert!(perf("emu:size=16M --count 10 --wait poll")["devices"][0]["irq"].is_null(), "polling");
}

#[test]
fn missing_interrupts_are_refused() {
    let text = fails(2, run("perf emu:size=16M --wait poll --irq msix --count 10"));
    assert!(text.contains("--wait irq") && text.contains("Usage: upcie perf"), "{text}");
    let text = fails(1, run("perf emu:size=16M,msi=2 --wait irq --irq intx --count 10"));
    assert!(text.contains("no INTx interrupts: it has MSI-X and MSI"), "{text}");
    let text = fails(1, run("perf emu:size=16M,vectors=0 --wait irq --count 10"));
    assert!(text.contains("use --wait poll"), "{text}");
}

#[test]
fn perf_prints_the_device_and_the_results() {
    let text = String::from_utf8(succeeds(run("perf emu:lba=4096,serial=S123 --count 1000"))).unwrap();
    for part in
        ["S123", "firmware", "blocks of 4096 bytes", "MDTS", "IOPS", "MiB/s", "p99.99", "max", "CPU per I/O"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_device_that_hangs_is_given_up() {
    let start = Instant::now();
    let output = run("perf emu:latency=60s --timeout 500ms --count 1");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("emu:latency=60s") && error.contains("no completion within 500ms"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let error = fails(1, run("read emu:latency=60s --timeout 500ms --length 4K"));
    assert!(error.contains("no completion"), "{error}");
}

#[test]
fn an_interrupt_prints_the_results_so_far() {
    let mut child =
        upcie("perf emu:size=16M --time 60 --interval 100ms").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(" IOPS ")), "no interval");
    let start = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(30), "the run of 60 s goes on: {:?}", start.elapsed());
    let rest = rest.join("\n");
    assert!(rest.contains("Interrupted after") && rest.contains("IOPS") && rest.contains("p99.99"), "{rest}");
}

/// Collects the names in code spans of a section's tables in docs/perf-json.md.
fn documented(section: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/perf-json.md");
    let heading = format!("## `{section}`");
    let body = text.split_once(&heading).unwrap_or_else(|| panic!("no {heading}")).1;
    let body = body.split("\n## ").next().unwrap();
    let rows =
        body.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split_once(" |"));
    rows.flat_map(|(names, _)| {
        names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>()
    })
    .collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_json_has_exactly_the_documented_fields() {
    let report = perf("emu emu --rw randrw --count 1000 --latency-breakdown --threads 2");
    assert_eq!(report["schema"], 2);
    for (section, value) in [
        ("report", &report),
        ("parameters", &report["parameters"]),
        ("latency_ns", &report["latency_ns"]),
        ("latency_ns", &report["devices"][1]["read"]["latency_ns"]),
        ("latency_ns", &report["latency_breakdown_ns"]["device"]),
        ("read", &report["read"]),
        ("read", &report["write"]),
        ("devices", &report["devices"][0]),
        ("threads", &report["threads"][1]),
        ("intervals", &report["intervals"][0]),
        ("latency_breakdown_ns", &report["latency_breakdown_ns"]),
        ("host", &report["host"]),
    ] {
        assert_eq!(keys(value), documented(section), "{section}");
    }
}
