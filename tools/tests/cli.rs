//! Runs the `upcie` program as a user does, on the embedded controller: arguments, pipes, files, signals,
//! exit codes.

mod program;

use program::{Dir, bytes, complains, fails, feed, run_upcie as run, succeeds, upcie};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    process::{Command, Stdio},
};

#[test]
fn info_counts_the_interrupts_of_each_kind() {
    let json = succeeds(run("info emu:msi=8,intx=true --json"));
    let info: Value = serde_json::from_slice(&json).unwrap();
    let expected = serde_json::json!({ "msix": 65, "msi": 8, "intx": 1, "in_use": "msix" });
    assert_eq!(info["interrupts"], expected);
}

#[test]
fn blocks_make_the_round_trip_through_pipes_and_files() {
    let dir = Dir::made("trip");
    let (disk, copy) = (format!("emu:file={},size=8M,lba=512", dir.path("disk")), dir.path("copy"));
    // Neither a whole number of commands nor an even number of pages.
    let data = bytes((3 << 20) + 512 * 13);
    succeeds(feed(&format!("write {disk} --offset 1536 --verify --destructive"), &data));
    let length = data.len();
    assert_eq!(succeeds(run(&format!("read {disk} --offset 1536 --length {length}"))), data);
    succeeds(run(&format!("read {disk} {copy} --offset 1536 --length {length}")));
    assert_eq!(fs::read(&copy).unwrap(), data);
    succeeds(run(&format!("write {disk} {copy} --verify --yes")));
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
        (format!("write {disk} --destructive {odd}"), "512 bytes"),
        (format!("write {disk} --destructive {odd} --length 1K"), "less than --length"),
        (format!("write {disk} --destructive {odd} --length 500"), "512 bytes"),
        (format!("write {disk} --destructive {big}"), "only 1048576"),
        (format!("write {disk} --destructive {big} --offset 1M"), "ends at byte 1048576"),
        (format!("write {disk} --destructive {big} --offset 100"), "512 bytes"),
        (format!("write {disk} --destructive {}", dir.path("absent")), "absent"),
        (format!("write {disk} --destructive {}", dir.0.display()), "directory"),
        (format!("read {disk} --length 2M"), "only 1048576"),
    ] {
        let error = fails(1, run(&arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    assert!(succeeds(run(&format!("read {disk}"))).iter().all(|&byte| byte == 0), "nothing was written");
}

#[test]
fn a_partial_block_from_a_pipe_is_refused() {
    let dir = Dir::made("rest");
    let disk = format!("emu:file={},size=1M,lba=512", dir.path("disk"));
    let error = fails(1, feed(&format!("write {disk} --destructive"), &bytes(1000)));
    assert!(
        error.contains("partial block of 488 bytes (of 512)") && error.contains("512 bytes) were written"),
        "{error}"
    );
    let data = succeeds(run(&format!("read {disk}")));
    assert_eq!(data[..512], bytes(512));
    assert!(data[512..].iter().all(|&byte| byte == 0));
    let error = fails(1, feed(&format!("write {disk} --destructive"), &bytes((1 << 20) + 1)));
    assert!(error.contains("more data than the namespace"), "{error}");
    assert!(
        fails(1, feed(&format!("write {disk} --destructive --length 1K"), &bytes(512)))
            .contains("ended after 512")
    );
    let error = fails(1, feed(&format!("write {disk} --destructive"), b""));
    assert!(error.contains("ended after 0 bytes; nothing was written"), "{error}");
}

#[test]
fn a_read_only_disk_is_an_error() {
    let dir = Dir::made("readonly");
    let image = dir.path("disk");
    fs::write(&image, bytes(1 << 20)).unwrap();
    let mut permissions = fs::metadata(&image).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&image, permissions).unwrap();
    let error = fails(1, feed(&format!("write emu:file={image} --destructive"), &[0; 4096]));
    assert!(error.contains("read-only") || error.contains("denied"), "{error}");
    assert_eq!(fs::read(&image).unwrap(), bytes(1 << 20));
}

#[test]
fn a_reader_that_leaves_ends_read_quietly() {
    let mut child = upcie("read emu:size=64M").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 4096]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn usage_errors_name_the_valid_values() {
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
fn limits_of_the_device_are_named_in_errors() {
    for (arguments, part) in [
        ("perf emu --block-size 1000", "512"),
        ("perf emu --block-size 2M", "1 MiB"),
        ("perf emu --depth 9999", "4095"),
        ("perf emu --queues 100", "64"),
        ("perf emu --namespace 7", "[1]"),
        ("perf emu:size=1M --offset 1M", "1 MiB"),
        ("perf emu:size=1M --length 2M", "1 MiB"),
        ("perf emu --verify --size 64K", "--depth"),
        ("perf emu --plot /absent/x.svg", "/absent/x.svg"),
        ("perf 0000:ff:1f.7", "upcie list"),
        ("info vfio:0000:ff:1f.7", "0000:ff:1f.7"),
        ("perf vfio-user:/absent/socket", "/absent/socket"),
        ("write 0000:ff:1f.7 /dev/null", "upcie list"),
        ("p2p emu emu", "an address space of its own"),
        ("p2p emu:cmb=1M emu:cmb=1M", "copy through the host's memory"),
        ("perf emu --count 1 --log=a=b=c", "UPCIE_LOG"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.starts_with("upcie: ") && error.contains(part), "{arguments}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn info_and_list_print_text_and_json() {
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
fn the_list_has_named_devices_and_goes_on_after_a_failure() {
    let text = String::from_utf8(succeeds(run("list emu:size=1M,namespaces=2"))).unwrap();
    assert!(
        text.starts_with("emu") && text.contains("2 namespaces, 2 MiB, ") && text.contains(" °C"),
        "{text}"
    );
    let output = run("list vfio-user:/absent emu:size=1M --json");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(list[0]["controller"].is_null(), "{list}");
    assert!(list[0]["controller_unknown"].as_str().unwrap().contains("/absent"), "{list}");
    let emu = &list[1]["controller"];
    assert_eq!((&emu["namespaces"], &emu["size_bytes"]), (&1.into(), &(1 << 20).into()));
    assert!(emu["temperature_celsius"].is_i64() && emu["serial"].is_string(), "{list}");
    let output = run("list");
    if output.stdout.is_empty() {
        assert!(String::from_utf8_lossy(&output.stderr).contains("`upcie list emu`"));
    }
    fails(2, run("list emu --all"));
}

#[test]
fn help_and_completions_are_complete() {
    let help = String::from_utf8(succeeds(run("--help"))).unwrap();
    for part in ["Exit codes", "130", "vfio-user:", "emu:size=", "perf", "completions"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let verbs = ["perf", "plot", "p2p", "read", "write", "info", "list", "completions", "manual"];
    let managing = ["ns", "format", "sanitize", "fw", "selftest", "io", "reset", "security", "directive"];
    let others = ["lockdown", "virt", "capacity", "lba-status", "feature", "property"];
    let blocks = ["flush", "dsm", "compare", "verify", "write-zeroes", "write-uncor", "copy"];
    for command in verbs.into_iter().chain(managing).chain(others).chain(blocks) {
        let help = String::from_utf8(succeeds(run(&format!("{command} --help")))).unwrap();
        assert!(help.contains("Example"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(!succeeds(run(&format!("completions {shell}"))).is_empty());
    }
}

#[test]
fn each_command_has_a_man_page() {
    let dir = Dir::new("manual");
    succeeds(run(&format!("manual {}", dir.path("man1"))));
    for (page, part) in
        [("upcie.1", "vfio\\-user:"), ("upcie-format.1", "block"), ("upcie-ns-create.1", "attach")]
    {
        let text = dir.read(&format!("man1/{page}"));
        assert!(text.starts_with(".ie") && text.contains(".TH") && text.contains(part), "{page}: {text}");
    }
    let error = fails(1, run("manual /dev/null/man1"));
    assert!(error.contains("/dev/null/man1"), "{error}");
}

/// Runs a command on a terminal made by `script` (Debian's bsdutils, an essential package); returns the exit
/// code and the terminal's content.
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
fn a_terminal_gets_progress_and_a_result_but_no_blocks() {
    let (code, text) = on_a_terminal("perf emu:size=16M --time 1500ms");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("running ") && text.contains("[=") && text.contains(" IOPS  "), "{text}");
    assert!(text.contains("p99.99"), "{text}");
    let dir = Dir::made("terminal");
    fs::write(dir.path("data"), bytes(64 << 10)).unwrap();
    let (code, text) = on_a_terminal(&format!("write emu:size=1M {} --verify", dir.path("data")));
    assert_eq!(code, 0, "{text}");
    for part in ["64 KiB (65536 bytes) were written from byte 0 on in ", "/s), and verified"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let page = dir.path("page");
    let (code, text) = on_a_terminal(&format!("log emu:mdts=8K telemetry-log --lsp 1 --raw {page}"));
    assert!(code == 0 && text.contains("reading ["), "{text}");
    let (code, text) = on_a_terminal("format emu:size=1M");
    assert!(code == 0 && text.contains("formatted namespace 1"), "{text}");
    let (code, text) = on_a_terminal("read emu:size=1M");
    assert!(code == 1 && text.contains("terminal"), "{text}");
}

#[test]
fn a_closed_stderr_keeps_the_exit_code() {
    for (program, arguments, code) in [
        (env!("CARGO_BIN_EXE_upcie"), "info vfio-user:/nonexistent", 1),
        (env!("CARGO_BIN_EXE_upcie"), "perf nonsense", 2),
        (env!("CARGO_BIN_EXE_nvme-emu"), "--socket /nonexistent/x", 1),
        (env!("CARGO_BIN_EXE_devbind"), "bind vfio-pci ffff:1f:1f.7", 1),
        (env!("CARGO_BIN_EXE_hugepages"), "info --nonsense", 2),
        (env!("CARGO_BIN_EXE_hugepages"), "release ffff:1f:1f.7", 0),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let status = Command::new(program).args(arguments.split_whitespace()).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(code), "{program} {arguments}");
    }
}

/// The help on a full disk, and a result without a stdout, were lost with exit code 0.
#[test]
fn a_text_that_stdout_does_not_take_is_an_error() {
    let (upcie, hugepages) = (env!("CARGO_BIN_EXE_upcie"), env!("CARGO_BIN_EXE_hugepages"));
    for (program, arguments) in [
        (upcie, "--help"),
        (upcie, "help perf"),
        (upcie, "version"),
        (upcie, "info emu --json"),
        (upcie, "completions bash"),
        (upcie, "read emu:size=1M"),
        (hugepages, "setup --help"),
        (hugepages, "info --json"),
        (env!("CARGO_BIN_EXE_devbind"), "--version"),
        (env!("CARGO_BIN_EXE_nvme-emu"), "--help"),
    ] {
        for (to, part) in [("> /dev/full", "No space left"), (">&-", "Bad file descriptor")] {
            let line = format!("exec \"$0\" {arguments} {to}");
            let output =
                Command::new("sh").args(["-c", &line, program]).stdin(Stdio::null()).output().unwrap();
            let error = complains(1, output);
            assert!(error.contains(part) && error.contains("stdout"), "{program} {arguments} {to}: {error}");
        }
    }
    // A verb that prints nothing on stdout needs none.
    let dir = Dir::made("closed");
    let (line, copy) = ("exec \"$0\" read emu:size=1M \"$1\" >&-", dir.path("copy"));
    succeeds(Command::new("sh").args(["-c", line, upcie, &copy]).output().unwrap());
    assert_eq!(fs::read(copy).unwrap().len(), 1 << 20);
}

#[test]
fn version_is_a_word_as_well() {
    for program in [
        env!("CARGO_BIN_EXE_upcie"),
        env!("CARGO_BIN_EXE_hugepages"),
        env!("CARGO_BIN_EXE_devbind"),
        env!("CARGO_BIN_EXE_nvme-emu"),
    ] {
        let shown = |how: &str| String::from_utf8(succeeds(program::run(program, how))).unwrap();
        let name = std::path::Path::new(program).file_name().unwrap().to_str().unwrap();
        assert_eq!(shown("version"), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        assert_eq!(shown("version"), shown("--version"));
    }
}

/// Verbs with nvme-cli's names have nvme-cli's letters; those of our own agree.
#[test]
fn a_letter_means_one_option_in_all_programs() {
    let (upcie, devbind, hugepages) =
        (env!("CARGO_BIN_EXE_upcie"), env!("CARGO_BIN_EXE_devbind"), env!("CARGO_BIN_EXE_hugepages"));
    let mut seen = BTreeMap::<String, (String, String)>::new();
    for (program, verbs) in [
        (upcie, &["perf", "soak", "p2p", "plot", "list", "info"][..]),
        (devbind, &["list", "bind", "unbind", "restore"]),
        (hugepages, &["info", "setup", "clear", "mount", "unmount", "release"]),
        (env!("CARGO_BIN_EXE_nvme-emu"), &[""]),
    ] {
        for verb in verbs {
            let help = String::from_utf8(succeeds(program::run(program, &format!("{verb} --help")))).unwrap();
            for (letter, name) in help.lines().filter_map(|line| line.trim_start().split_once(", --")) {
                if !letter.starts_with('-') || letter.len() != 2 {
                    continue;
                }
                let name = name.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
                let here = (name.to_owned(), format!("{program} {verb}"));
                let first = seen.entry(letter.to_owned()).or_insert_with(|| here.clone());
                assert_eq!(first.0, here.0, "{letter} of {} and of {}", first.1, here.1);
            }
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
    // The letters that scripts may have.
    succeeds(program::run(devbind, "-n list -c all"));
}

#[test]
fn sizes_are_powers_of_1024() {
    for size in ["4K", "4KB", "4KiB", "4096"] {
        assert_eq!(succeeds(run(&format!("read emu:size=1M --length {size}"))).len(), 4096, "{size}");
    }
    let emulator = program::run(env!("CARGO_BIN_EXE_nvme-emu"), "--help");
    for output in [run("--help"), run("perf --help"), run("read --help"), emulator] {
        let help = String::from_utf8(succeeds(output)).unwrap();
        assert!(help.contains("powers of 1024") && help.contains("4K = 4KB = 4KiB"), "{help}");
    }
}
