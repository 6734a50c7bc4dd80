//! The `upcie` program as a user meets it: arguments, pipes, files, signals, exit codes; on the embedded controller.

mod program;

use program::{Dir, fails, succeeds};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::FileExt,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn upcie(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upcie"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).env_remove("UPCIE_LOG");
    command
}

fn run(arguments: &str) -> Output {
    upcie(arguments).output().unwrap()
}

/// Runs with `input` on stdin.
fn feed(arguments: &str, input: &[u8]) -> Output {
    let mut child =
        upcie(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may refuse its input.
    let feeder = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join().unwrap();
    output
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[track_caller]
fn perf(arguments: &str) -> Value {
    let output = succeeds(run(&format!("perf {arguments} --json")));
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn perf_json_is_one_object_with_sane_values() {
    let dir = Dir::made("json");
    let plot = dir.path("plot.svg");
    let report = perf(&format!("emu:size=64M --time 300ms --plot {plot}"));
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {report}"))
    };
    assert!(number("/iops") > 100.0);
    assert!((number("/bytes_per_second") / number("/iops") - 4096.0).abs() < 0.01);
    assert_eq!(number("/errors"), 0.0);
    let latency = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "p99_999", "max"];
    let latency = latency.map(|key| number(&format!("/latency_ns/{key}")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
    let mean = number("/latency_ns/mean");
    assert!(latency[0] <= mean && mean <= latency[7]);
    // Little's law: what is in flight is the rate times the latency.
    let in_flight = number("/iops") * mean / 1e9;
    assert!((16.0..=33.0).contains(&in_flight), "{in_flight} of 32 in flight");
    assert!((0.25e9..5e9).contains(&number("/elapsed_ns")));
    assert!(number("/cpu_ns_per_io") > 0.0);
    assert_eq!(report["device"]["namespaces"], serde_json::json!([1]));
    assert_eq!(report["parameters"]["rw"], "randread");
    assert!(report["write"].is_null() && report["read"]["ios"] == report["ios"]);
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.contains("IOPS over time") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn perf_counts_exactly_on_every_way_to_wait_and_workload() {
    for wait in ["poll", "irq", "adaptive"] {
        for rw in ["read", "write", "randread", "randwrite", "randrw"] {
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
fn perf_waits_by_the_kind_of_interrupts_asked_for() {
    for (options, irq, used) in [
        ("", "", "msix"),
        ("", "--irq auto", "msix"),
        ("", "--irq intx", "intx"),
        ("", "--irq msi", "msi"),
        ("", "--irq msix", "msix"),
        (",vectors=0", "", "msi"),
        (",vectors=0,msi=0", "", "intx"),
    ] {
        for wait in ["irq", "adaptive"] {
            let report = perf(&format!(
                "emu:size=16M,msi=4,intx=true{options} --count 2001 --queues 3 --depth 7 --wait {wait} {irq}"
            ));
            assert_eq!((&report["ios"], &report["parameters"]["irq"]), (&2001.into(), &used.into()), "{irq}");
        }
    }
    assert!(perf("emu:size=16M --count 10")["parameters"]["irq"].is_null(), "polling");
}

#[test]
fn interrupts_that_are_not_there_are_refused() {
    let text = fails(2, run("perf emu:size=16M --wait poll --irq msix --count 10"));
    assert!(text.contains("--wait irq") && text.contains("Usage: upcie perf"), "{text}");
    let text = fails(1, run("perf emu:size=16M,msi=2 --wait irq --irq intx --count 10"));
    assert!(text.contains("no INTx interrupts: it has MSI-X and MSI"), "{text}");
    let text = fails(1, run("perf emu:size=16M,vectors=0 --wait irq --count 10"));
    assert!(text.contains("use --wait poll"), "{text}");
}

#[test]
fn info_counts_the_interrupts_of_each_kind() {
    let json = succeeds(run("info emu:msi=8,intx=true --json"));
    let info: Value = serde_json::from_slice(&json).unwrap();
    let expected = serde_json::json!({ "msix": 65, "msi": 8, "intx": 1, "in_use": "msix" });
    assert_eq!(info["interrupts"], expected);
}

#[test]
fn perf_says_what_it_found_and_what_came_out() {
    let text = String::from_utf8(succeeds(run("perf emu:lba=4096,serial=S123 --count 1000"))).unwrap();
    for part in
        ["S123", "firmware", "blocks of 4096 bytes", "MDTS", "IOPS", "MiB/s", "p99.99", "max", "CPU per I/O"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn verify_is_content_with_a_good_device() {
    for (address, options) in [
        ("emu:size=8M,lba=512", "--rw randrw --block-size 512 --queues 2"),
        ("emu:size=8M,lba=4096", "--rw randwrite --mix 0 --block-size 64K --depth 4"),
        ("emu:size=8M", "--rw read --block-size 12K --wait irq"),
        ("emu:size=8M", "--rw write --offset 512 --size 4M"),
    ] {
        let report = perf(&format!("{address} {options} --verify --count 5000"));
        assert_eq!((&report["errors"], &report["ios"]), (&0.into(), &5000.into()), "{options}");
    }
}

#[test]
fn verify_notices_that_data_was_not_moved() {
    let output = run("perf emu:size=8M,null=true --verify --count 500 --json");
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["mismatches"].as_u64() > Some(0));
    assert_eq!(report["errors"], report["mismatches"]);
}

#[test]
fn verify_notices_what_is_changed_behind_its_back() {
    let dir = Dir::made("behind");
    let disk = dir.path("disk");
    let mut child = upcie(&format!("perf emu:file={disk},size=1M --verify --destructive --depth 4 --time 3"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The disk holds data once the range has been written.
    let start = Instant::now();
    let written = |disk: &str| {
        fs::read(disk)
            .is_ok_and(|data| data.len() == 1 << 20 && data[(1 << 20) - 512..].iter().any(|&byte| byte != 0))
    };
    while !written(&disk) && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(10));
    }
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"X", 300_000).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{text}");
    assert!(text.contains("block 585: not what was written (version 1), from byte 480 on"), "{text}");
}

#[test]
fn data_survives_only_with_consent() {
    let dir = Dir::made("consent");
    let disk = dir.path("disk");
    succeeds(feed(&format!("write emu:file={disk},size=1M"), &bytes(1 << 20)));
    let error = fails(1, run(&format!("perf emu:file={disk} --verify --count 10")));
    assert!(error.contains("--destructive") && error.contains("1 MiB"), "{error}");
    assert_eq!(fs::read(&disk).unwrap(), bytes(1 << 20));
}

#[test]
fn blocks_make_the_round_trip_through_pipes_and_files() {
    let dir = Dir::made("trip");
    let (disk, copy) = (format!("emu:file={},size=8M,lba=512", dir.path("disk")), dir.path("copy"));
    // Not a whole number of commands, nor an even number of pages.
    let data = bytes((3 << 20) + 512 * 13);
    succeeds(feed(&format!("write {disk} --offset 1536 --verify"), &data));
    let length = data.len();
    assert_eq!(succeeds(run(&format!("read {disk} --offset 1536 --length {length}"))), data);
    succeeds(run(&format!("read {disk} {copy} --offset 1536 --length {length}")));
    assert_eq!(fs::read(&copy).unwrap(), data);
    succeeds(run(&format!("write {disk} {copy} --verify")));
    assert_eq!(succeeds(run(&format!("read {disk}")))[..length], data);
    assert_eq!(succeeds(run(&format!("read {disk} --length 1M"))).len(), 1 << 20);
}

#[test]
fn a_wrong_length_is_refused_and_nothing_is_written() {
    let dir = Dir::made("length");
    let (image, odd, big) = (dir.path("disk"), dir.path("odd"), dir.path("big"));
    let disk = format!("emu:file={image},size=1M,lba=512");
    fs::write(&odd, bytes(1000)).unwrap();
    fs::write(&big, bytes((1 << 20) + 512)).unwrap();
    for (arguments, part) in [
        (format!("write {disk} {odd}"), "512 bytes"),
        (format!("write {disk} {odd} --length 1K"), "less than --length"),
        (format!("write {disk} {odd} --length 500"), "512 bytes"),
        (format!("write {disk} {big}"), "only 1048576"),
        (format!("write {disk} {big} --offset 1M"), "ends at byte 1048576"),
        (format!("write {disk} {big} --offset 100"), "512 bytes"),
        (format!("write {disk} {}", dir.path("absent")), "absent"),
        (format!("write {disk} {}", dir.0.display()), "directory"),
        (format!("read {disk} --length 2M"), "only 1048576"),
    ] {
        let error = fails(1, run(&arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    assert!(succeeds(run(&format!("read {disk}"))).iter().all(|&byte| byte == 0), "nothing was written");
}

#[test]
fn a_pipe_s_rest_of_a_block_is_refused_not_padded() {
    let dir = Dir::made("rest");
    let disk = format!("emu:file={},size=1M,lba=512", dir.path("disk"));
    let error = fails(1, feed(&format!("write {disk}"), &bytes(1000)));
    assert!(
        error.contains("488 bytes of a block of 512") && error.contains("512 bytes) were written"),
        "{error}"
    );
    let data = succeeds(run(&format!("read {disk}")));
    assert_eq!(data[..512], bytes(512));
    assert!(data[512..].iter().all(|&byte| byte == 0));
    let error = fails(1, feed(&format!("write {disk}"), &bytes((1 << 20) + 1)));
    assert!(error.contains("more than the namespace"), "{error}");
    assert!(fails(1, feed(&format!("write {disk} --length 1K"), &bytes(512))).contains("ended after 512"));
    assert!(fails(1, feed(&format!("write {disk}"), b"")).contains("ended after 0"));
}

#[test]
fn a_read_only_disk_is_an_error() {
    let dir = Dir::made("readonly");
    let image = dir.path("disk");
    fs::write(&image, bytes(1 << 20)).unwrap();
    let mut permissions = fs::metadata(&image).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&image, permissions).unwrap();
    let error = fails(1, feed(&format!("write emu:file={image}"), &[0; 4096]));
    assert!(error.contains("read-only") || error.contains("denied"), "{error}");
    assert_eq!(fs::read(&image).unwrap(), bytes(1 << 20));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut child = upcie("read emu:size=64M").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 4096]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn wrong_arguments_are_usage_errors_that_name_the_way_out() {
    for (arguments, part) in [
        ("perf", "ADDR"),
        ("perf nvme0", "vfio-user:/path"),
        ("perf /dev/nvme0n1", "0000:01:00.0"),
        ("perf emu:colour=red", "latency="),
        ("perf emu --rw sideways", "randread"),
        ("perf emu --time 0", "above 0"),
        ("perf emu --time 5 --count 5", "--count"),
        ("perf emu --block-size 4X", "K, M, G"),
        ("perf emu --mix 101", "100"),
        ("perf emu --depth 0", "65535"),
        ("read emu --length=-1", "is not a size"),
        ("frobnicate", "subcommand"),
        ("", "Usage"),
    ] {
        let error = fails(2, run(arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn what_the_device_can_t_do_is_an_error_that_says_what_it_can() {
    for (arguments, part) in [
        ("perf emu --block-size 1000", "512"),
        ("perf emu --block-size 2M", "1 MiB"),
        ("perf emu --depth 9999", "4095"),
        ("perf emu --queues 100", "64"),
        ("perf emu --namespace 7", "[1]"),
        ("perf emu:size=1M --offset 1M", "1 MiB"),
        ("perf emu:size=1M --size 2M", "1 MiB"),
        ("perf emu --verify --size 64K", "--depth"),
        ("perf emu --plot /absent/x.svg", "/absent/x.svg"),
        ("perf 0000:ff:1f.7", "upcie list"),
        ("info vfio:0000:ff:1f.7", "0000:ff:1f.7"),
        ("perf vfio-user:/absent/socket", "/absent/socket"),
        ("write 0000:ff:1f.7 /dev/null", "upcie list"),
        ("perf emu --count 1 --log=a=b=c", "UPCIE_LOG"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.starts_with("upcie: ") && error.contains(part), "{arguments}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
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
fn an_interrupt_gives_the_results_so_far() {
    let mut child = upcie("perf emu:size=16M --time 60").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Its description comes before the run.
    assert!(lines.any(|line| line.starts_with("randread")));
    thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<_> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(5));
    let rest = rest.join("\n");
    assert!(rest.contains("Interrupted after") && rest.contains("IOPS") && rest.contains("p99.99"), "{rest}");
}

#[test]
fn info_and_list_speak_to_people_and_programs() {
    let text = String::from_utf8(succeeds(run("info emu:namespaces=2,lba=512+4096"))).unwrap();
    for part in ["Controller", "Namespace 2", "4096 bytes", "CAP", "CSTS", "ready yes", "EMU0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let info: Value = serde_json::from_slice(&succeeds(run("info emu:size=1M,lba=4096 --json"))).unwrap();
    assert_eq!(info["namespaces"][0]["size"], 1 << 20);
    assert_eq!(info["registers"]["CSTS"]["ready"], true);
    let list: Value = serde_json::from_slice(&succeeds(run("list --all --json"))).unwrap();
    assert!(list.is_array());
    succeeds(run("list -v --all"));
    succeeds(run("list"));
}

#[test]
fn help_and_completions_are_complete() {
    let help = String::from_utf8(succeeds(run("--help"))).unwrap();
    for part in ["Exit codes", "130", "vfio-user:", "emu:size=", "perf", "completions"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    for command in ["perf", "p2p", "read", "write", "info", "list", "completions"] {
        let help = String::from_utf8(succeeds(run(&format!("{command} --help")))).unwrap();
        assert!(help.contains("Example"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(!succeeds(run(&format!("completions {shell}"))).is_empty());
    }
}

/// Runs on a terminal, which `script` (Debian's bsdutils, essential there) makes; gives what appears on it.
fn on_a_terminal(arguments: &str) -> (i32, String) {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_upcie"));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_terminal_gets_progress_but_no_blocks() {
    let (code, text) = on_a_terminal("perf emu:size=16M --time 1500ms");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("running [=") && text.contains(" IOPS  "), "{text}");
    assert!(text.contains("p99.99"), "{text}");
    let (code, text) = on_a_terminal("read emu:size=1M");
    assert!(code == 1 && text.contains("terminal"), "{text}");
}
