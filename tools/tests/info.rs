//! `upcie info` of controllers without I/O or without an answer, and every tool on a minimal controller.

mod program;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use program::{Dir, Served, complains, fails, run_upcie as run, serve, succeeds, upcie};
use serde_json::Value;
use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Time limit that a busy machine can meet too.
const LIMIT: Duration = Duration::from_secs(30);

fn info(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("info {arguments} --json")))).unwrap()
}

#[test]
fn a_controller_without_io_is_shown_with_the_reason() {
    for (options, part) in
        [("css=0x80", "admin commands only"), ("queues=0", "Number of Queues"), ("depth=1", "CAP.MQES is 0")]
    {
        let shown = info(&format!("emu:{options}"));
        assert!(shown["limits"]["no_io"].as_str().unwrap().contains(part), "{shown}");
        assert!(shown["registers"]["CAP"]["raw"].is_string() && shown["controller"]["model"].is_string());
        let text = String::from_utf8(succeeds(run(&format!("info emu:{options}")))).unwrap();
        assert!(text.contains("no io") && text.contains(part), "{text}");
        for command in ["read emu:OPTIONS --length 4K", "perf emu:OPTIONS --runtime 1"] {
            let error = fails(1, run(&command.replace("OPTIONS", options)));
            assert!(error.contains("takes no I/O") && error.contains(part), "{command}: {error}");
        }
    }
    assert_eq!(info("emu")["limits"]["no_io"], Value::Null);
}

/// Values have units for people, and JSON has the same types as that of `upcie list --json`.
#[test]
fn values_are_shown_with_their_units() {
    assert_eq!(info("emu")["controller"]["vendor"], 0x7570);
    let text = String::from_utf8(succeeds(run("info emu:vectors=0"))).unwrap();
    let shown = |name: &str, value: &str| {
        let found = text.lines().filter_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        assert!(found.clone().any(|found| found == value), "{name}: {text}");
    };
    shown("vendor", "0x7570");
    shown("max power", "1 W");
    shown("warning temperature", "70 °C");
    shown("in use", "none: polling only");
    shown("max transfer", "1 MiB");
    // CAP had a line of 200 columns.
    let (_, registers) = text.split_once("\nRegisters\n").unwrap();
    assert!(registers.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(!text.contains("mdts"), "{text}");
}

#[test]
fn registers_are_shown_without_a_bring_up() {
    let shown = info("emu:depth=100 --registers");
    assert_eq!(shown["registers"]["CAP"]["max_queue_entries"], 100);
    assert_eq!(shown["registers"]["CSTS"]["ready"], false);
    assert_eq!(shown["registers"]["CC"]["enabled"], false);
    assert!(shown.get("controller").is_none());
    let text = String::from_utf8(succeeds(run("info emu --registers"))).unwrap();
    assert!(text.starts_with("emu\n") && text.contains("CSTS"), "{text}");
}

/// Writes a plan of which one fault strikes when a host identifies the controller.
fn plan(dir: &Dir, kind: &str) -> String {
    let path = dir.path("plan.toml");
    let rule = format!("[[fault]]\nkind = \"{kind}\"\nqueue = \"admin\"\nopcode = \"identify\"\n");
    fs::write(&path, rule).unwrap();
    path
}

#[test]
fn a_controller_that_does_not_become_ready_shows_its_registers() {
    let dir = Dir::made("never-ready");
    let plan = plan(&dir, "never-ready");
    let Served(_server, address) = Served::with(&dir, "size=1M", &["--faults", &plan]);
    // The fault strikes in this session, and lasts.
    succeeds(run(&format!("info {address}")));
    let error = fails(1, run(&format!("info {address}")));
    for part in [&*address, "waiting for the controller to become ready (CSTS.RDY = 1)"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(error.contains(&format!("`upcie info --registers {address}`")), "{error}");
    let shown = info(&format!("{address} --registers"));
    assert_eq!(shown["registers"]["CSTS"]["ready"], false, "{shown}");
    assert!(shown["registers"]["CAP"]["raw"].is_string(), "{shown}");
    let text = String::from_utf8(succeeds(run(&format!("info {address} --registers")))).unwrap();
    assert!(text.contains("Registers") && text.contains("ready no"), "{text}");
}

#[test]
fn a_controller_that_fails_at_once_is_an_error_with_the_reason() {
    let dir = Dir::made("fatal");
    let plan = plan(&dir, "fatal");
    let error = fails(1, run(&format!("info emu:size=1M,faults={plan} --timeout 20s")));
    assert!(error.contains("fatal status (CSTS.CFS)"), "{error}");
    assert!(error.contains("`upcie info --registers emu:"), "{error}");
    // Another host finds a controller that was reset.
    let Served(_server, address) = Served::with(&dir, "size=1M", &["--faults", &plan]);
    fails(1, run(&format!("info {address} --timeout 20s")));
    assert_eq!(info(&format!("{address} --registers"))["registers"]["CSTS"]["fatal"], false);
}

/// No register can be read: not even those of the configuration space.
#[test]
fn a_controller_whose_registers_read_as_ones_is_an_error() {
    let dir = Dir::made("all-ones");
    let plan = plan(&dir, "all-ones");
    let Served(_server, address) = Served::with(&dir, "size=1M", &["--faults", &plan]);
    for how in ["", "", "--registers"] {
        let error = fails(1, run(&format!("info {address} {how} --timeout 20s")));
        assert!(error.contains(&address) && error.contains("gone"), "{how}: {error}");
    }
}

/// Each tool works with one queue pair, one vector, two entries and the smallest MDTS together.
#[test]
fn every_tool_works_on_a_minimal_controller() {
    let dir = Dir::made("least");
    let (image, data, copy) = (dir.path("disk"), dir.path("data"), dir.path("copy"));
    let emu = format!("emu:file={image},size=4M,queues=1,depth=2,vectors=1,mdts=8K");
    fs::write(&data, (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
    succeeds(run(&format!("write {emu} {data} --verify --destructive")));
    succeeds(run(&format!("read {emu} {copy} --length 1M")));
    assert_eq!(fs::read(&data).unwrap(), fs::read(&copy).unwrap());
    succeeds(run(&format!("info {emu}")));
    for how in ["", "--wait irq", "--wait poll", "--rw randrw --verify --destructive"] {
        succeeds(run(&format!("perf {emu} --runtime 200ms {how}")));
    }
    for verb in [
        "log ADDR",
        "log ADDR smart-log",
        "log ADDR error-log",
        "id ADDR ctrl",
        "id ADDR ns --namespace 1",
        "ns list ADDR",
        "feature ADDR get number-of-queues",
        "feature ADDR set temperature-threshold threshold=350",
    ] {
        let shown = succeeds(run(&verb.replace("ADDR", &emu)));
        assert!(!shown.is_empty(), "{verb}");
    }
    // By default it asked for two threads and 32 commands in flight, and took the refusal for a lost device.
    for how in ["--time 500ms", "--time 2 --kill 400ms"] {
        let start = Instant::now();
        let text = String::from_utf8(succeeds(run(&format!("soak {emu} {how} --destructive")))).unwrap();
        assert!(text.contains("no block is wrong"), "{text}");
        assert!(start.elapsed() < LIMIT, "{how}: {:?}", start.elapsed());
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn a_stopped_server_is_named_within_the_timeout() {
    let dir = Dir::made("stopped");
    let socket = dir.path("socket");
    let (server, _) = serve(&socket, ["--size", "16M"]);
    signal(&server.0, Signal::SIGSTOP);
    let start = Instant::now();
    let error = fails(1, run(&format!("info vfio-user:{socket} --timeout 1s")));
    for part in [socket.as_str(), "stopped or hung", "within 1s"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    // The server recovers, and serves the next client.
    signal(&server.0, Signal::SIGCONT);
    succeeds(run(&format!("info vfio-user:{socket}")));
}

#[test]
fn an_interrupt_ends_the_wait_for_a_stopped_server() {
    let dir = Dir::made("interrupted");
    let socket = dir.path("socket");
    let (server, _) = serve(&socket, ["--size", "16M"]);
    signal(&server.0, Signal::SIGSTOP);
    let mut command = upcie(&format!("info vfio-user:{socket} --timeout 600s"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    // The program installs its signal handler before it opens a socket.
    let has_socket = || {
        let links = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|to| to.to_string_lossy().starts_with("socket:"))
    };
    while !has_socket() {
        assert!(start.elapsed() < LIMIT, "no connection");
        std::thread::yield_now();
    }
    signal(&child, Signal::SIGINT);
    let error = complains(130, child.wait_with_output().unwrap());
    assert!(error.contains(&socket), "{error}");
    assert!(start.elapsed() < 2 * LIMIT, "{:?}", start.elapsed());
}

#[test]
fn metadata_and_protection_are_shown() {
    let shown = &info("emu:ms=8,pi=1,extended=true")["namespaces"][0];
    assert_eq!((&shown["block_size"], &shown["data_size"]), (&520.into(), &512.into()));
    assert_eq!(shown["protection"]["type"], 1);
    let text = String::from_utf8(succeeds(run("info emu:lba=4096,ms=64,pi=3,guard=64,sts=16"))).unwrap();
    assert!(text.contains("4096+64 bytes, metadata apart, protection type 3 with a 64-bit guard"), "{text}");
}

#[test]
fn blocks_with_metadata_are_read_and_written_or_refused() {
    let dir = Dir::made("metadata");
    let (disk, data, copy) = (dir.path("disk"), dir.path("data"), dir.path("copy"));
    let bytes: Vec<u8> = (0..4 * 520_u32).map(|at| ((at * 7) >> 3) as u8).collect();
    fs::write(&data, &bytes).unwrap();
    let emu = format!("emu:file={disk},size=1M,ms=8,extended=true");
    succeeds(run(&format!("write {emu} {data} --destructive --verify")));
    succeeds(run(&format!("read {emu} {copy} --length 2080")));
    assert!(fs::read(&copy).unwrap() == bytes, "with the metadata, and kept in the file");
    let error = fails(1, run(&format!("read {emu} {copy} --length 512")));
    assert!(error.contains("multiple of the block size") && error.contains("520"), "{error}");
    for verb in ["read ADDR --length 4K", "perf ADDR --time 100ms", "soak ADDR --time 1"] {
        let error = fails(1, run(&verb.replace("ADDR", "emu:ms=8")));
        assert!(error.contains("metadata apart") && error.contains("--extended-metadata"), "{verb}: {error}");
    }
    for options in ["ms=8,extended=true", "ms=8,pi=1"] {
        succeeds(run(&format!("perf emu:{options} --time 200ms --depth 4")));
    }
}

#[test]
fn memory_of_the_controller_is_shown() {
    let shown = &info("emu:size=1M,cmb=1M")["own_memory"]["controller_memory_buffer"];
    assert_eq!((&shown["bar"], &shown["size"]), (&2.into(), &(1 << 20).into()));
    for what in ["submission_queues", "completion_queues", "lists", "read_data", "write_data"] {
        assert_eq!(shown["uses"][what], true, "{what}");
    }
    let shown = &info("emu:size=1M,pmr=2M")["own_memory"]["persistent_memory_region"];
    assert_eq!(
        (&shown["bar"], &shown["size"], &shown["health"]),
        (&5.into(), &(2 << 20).into(), &"normal".into())
    );
    assert_eq!((&shown["uses"]["read_data"], &shown["uses"]["write_data"]), (&true.into(), &true.into()));
    for what in ["controller_memory_buffer", "persistent_memory_region"] {
        assert_eq!(info("emu:size=1M")["own_memory"][what], Value::Null, "{what}");
    }
}
