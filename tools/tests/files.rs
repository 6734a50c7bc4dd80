//! Files of `upcie`: an input is never written to, reading creates nothing, and only data replaces a file.

mod program;

use nix::{sys::signal::Signal, unistd::Pid};
use program::{Dir, Served, bytes, complains, fails, run_upcie as run, succeeds, upcie};
use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    process::Stdio,
};

/// Makes other names of a file.
fn names(dir: &Dir, file: &str) -> Vec<String> {
    let (hard, soft) = (dir.path("hard"), dir.path("soft"));
    fs::hard_link(file, &hard).unwrap();
    symlink(file, &soft).unwrap();
    let (parent, name) = file.rsplit_once('/').unwrap();
    vec![file.into(), hard, soft, format!("{parent}/../{}/{name}", parent.rsplit_once('/').unwrap().1)]
}

/// `read` and `write` refuse a device's own medium as their file, by each of its names.
#[test]
fn a_disk_is_not_read_into_itself() {
    let dir = Dir::made("itself");
    let (disk, data) = (dir.path("disk"), bytes(1 << 20));
    fs::write(&disk, &data).unwrap();
    for name in names(&dir, &disk) {
        let error = fails(1, run(&format!("read emu:file={disk} {name}")));
        assert!(error.contains("same file"), "{name}: {error}");
        let error = fails(1, run(&format!("write emu:file={disk} {name} --destructive")));
        assert!(error.contains("same file"), "{name}: {error}");
        assert!(fs::read(&disk).unwrap() == data, "{name}");
    }
    let stdout = fs::File::options().append(true).open(&disk).unwrap();
    let error = fails(1, upcie(&format!("info emu:file={disk}")).stdout(stdout).output().unwrap());
    assert!(error.contains("same file"), "{error}");
    // The stream that the shell has opened, and its names.
    for name in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        let stdout = fs::File::options().append(true).open(&disk).unwrap();
        let output = upcie(&format!("read emu:file={disk} {name}")).stdout(stdout).output().unwrap();
        let error = fails(1, output);
        assert!(error.contains("same file"), "{name}: {error}");
        assert!(fs::read(&disk).unwrap() == data, "{name}");
    }
    for name in ["-", "/dev/stdin"] {
        let stdin = fs::File::open(&disk).unwrap();
        let write = format!("write emu:file={disk} {name} --destructive");
        let error = fails(1, upcie(&write).stdin(stdin).output().unwrap());
        assert!(error.contains("same file"), "{name}: {error}");
    }
    assert!(fs::read(&disk).unwrap() == data);
}

/// The medium of a server, which has locked its file, is refused as well.
#[test]
fn a_server_s_disk_is_not_replaced() {
    let dir = Dir::made("server");
    let (disk, data) = (dir.path("disk"), bytes(1 << 20));
    fs::write(&disk, &data).unwrap();
    let Served(_server, address) = Served::new(&dir, &format!("file={disk}"));
    for name in names(&dir, &disk) {
        for arguments in [
            format!("read {address} {name}"),
            format!("write {address} {name} --destructive"),
            format!("perf {address} --count 1 --histogram {name}"),
        ] {
            let error = fails(1, run(&arguments));
            assert!(error.contains("locked"), "{arguments}: {error}");
        }
    }
    let stdout = fs::File::options().append(true).open(&disk).unwrap();
    let output = upcie(&format!("read {address}")).stdout(stdout).output().unwrap();
    assert!(fails(1, output).contains("locked"));
    let stdin = fs::File::open(&disk).unwrap();
    let output = upcie(&format!("write {address} --destructive")).stdin(stdin).output().unwrap();
    assert!(fails(1, output).contains("locked"));
    assert!(fs::read(&disk).unwrap() == data);
    // Another file can be written, and the server still works.
    let copy = dir.path("copy");
    succeeds(run(&format!("read {address} {copy}")));
    assert!(fs::read(&copy).unwrap() == data);
}

/// The old content stays until there is data.
#[test]
fn a_file_is_replaced_only_by_data() {
    let dir = Dir::made("kept");
    let (disk, copy, fresh) = (dir.path("disk"), dir.path("copy"), dir.path("fresh"));
    fs::write(&disk, bytes(1 << 20)).unwrap();
    fs::write(&copy, bytes(3 << 20)).unwrap();
    for arguments in ["--length 2M", "--namespace 7", "--offset 1"] {
        for file in [&copy, &fresh] {
            fails(1, run(&format!("read emu:file={disk} {file} {arguments}")));
        }
        assert!(fs::read(&copy).unwrap() == bytes(3 << 20), "{arguments}");
        assert!(!fs::exists(&fresh).unwrap(), "{arguments}");
    }
    // The device loses all its data before the first block is read.
    let Served(_server, address) = Served::new(&dir, &format!("file={disk}"));
    fs::File::options().write(true).open(&disk).unwrap().set_len(0).unwrap();
    for file in [&copy, &fresh] {
        let error = fails(1, run(&format!("read {address} {file}")));
        assert!(error.contains("Unrecovered Read Error") && error.contains("is unchanged"), "{error}");
    }
    assert!(fs::read(&copy).unwrap() == bytes(3 << 20));
    assert!(!fs::exists(&fresh).unwrap());
    // The device loses a part of its data.
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.set_len(512 << 10).unwrap();
    let error = fails(1, run(&format!("read {address} {copy}")));
    assert!(error.contains("512 KiB of 1 MiB were written to"), "{error}");
    assert_eq!(fs::metadata(&copy).unwrap().len(), 512 << 10);
    succeeds(run(&format!("read {address} {copy} --length 256K")));
    assert_eq!(fs::metadata(&copy).unwrap().len(), 256 << 10, "shorter than it was");
}

/// An interrupted copy reports how much it has copied.
#[test]
fn an_interrupted_copy_reports_its_progress() {
    let dir = Dir::made("interrupted");
    let copy = dir.path("copy");
    fs::write(&copy, b"before").unwrap();
    let mut child =
        upcie(&format!("read emu:size=64M,latency=20ms {copy}")).stderr(Stdio::piped()).spawn().unwrap();
    while fs::metadata(&copy).unwrap().len() <= 256 << 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::yield_now();
    }
    nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let error = complains(130, child.wait_with_output().unwrap());
    assert!(error.contains("interrupted: ") && error.contains("of 64 MiB were written to"), "{error}");
    assert!(fs::read(&copy).unwrap().iter().all(|&byte| byte == 0));
}

/// Two outputs, or an output and an input, can't be one file.
#[test]
fn outputs_that_are_one_file_are_refused() {
    let dir = Dir::made("outputs");
    let (disk, json, one, link) =
        (dir.path("disk"), dir.path("a.json"), dir.path("one"), dir.path("link.svg"));
    fs::write(&disk, bytes(1 << 20)).unwrap();
    symlink(&one, &link).unwrap();
    for arguments in [
        format!("perf emu --count 9 --plot {link} --histogram {one}"),
        format!("perf emu:file={disk} --count 9 --histogram {disk}"),
        "perf emu --count 9 --json --histogram -".into(),
        "perf emu --count 9 --json --plot /dev/stdout".into(),
        "perf emu --count 9 --histogram /proc/self/fd/1".into(),
    ] {
        let error = fails(1, run(&arguments));
        assert!(error.contains("same file"), "{arguments}: {error}");
        assert!(!fs::exists(&one).unwrap(), "{arguments}");
    }
    assert!(fs::read(&disk).unwrap() == bytes(1 << 20));
    fs::write(&json, succeeds(run("perf emu --count 9 --json"))).unwrap();
    let before = fs::read(&json).unwrap();
    let same = dir.path("same.svg");
    fs::hard_link(&json, &same).unwrap();
    assert!(fails(1, run(&format!("plot {json} --out {same}"))).contains("same file"));
    assert_eq!(fs::read(&json).unwrap(), before);
    // /dev/null may be used twice.
    succeeds(run("perf emu --count 9 --histogram /dev/null --plot /dev/null"));
}

/// Reads neither make nor change a file that does not exist, is empty, or can't be written.
#[test]
fn reading_creates_nothing() {
    let dir = Dir::made("look");
    let (typo, empty, image, copy) =
        (dir.path("typo"), dir.path("empty"), dir.path("image"), dir.path("copy"));
    fs::write(&empty, []).unwrap();
    fs::write(&image, bytes(1 << 20)).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o400)).unwrap();
    for options in ["", ",size=1M", ",ro=true"] {
        for arguments in ["info", "read"] {
            let out = if arguments == "read" { &copy } else { "" };
            let error = fails(1, run(&format!("{arguments} emu:file={typo}{options} {out}")));
            assert!(error.contains("no such file"), "{arguments} {options}: {error}");
            assert!(fails(1, run(&format!("{arguments} emu:file={empty}{options} {out}"))).contains("empty"));
        }
    }
    let error = fails(1, run(&format!("perf emu:file={typo} --count 9")));
    assert!(error.contains("no such file") && error.contains("size="), "{error}");
    assert!(!fs::exists(&typo).unwrap() && !fs::exists(&copy).unwrap());
    assert_eq!(fs::metadata(&empty).unwrap().len(), 0);
    let before = fs::metadata(&image).unwrap().modified().unwrap();
    let info = String::from_utf8(succeeds(run(&format!("info emu:file={image}")))).unwrap();
    assert!(info.contains("write protected              yes"), "{info}");
    assert!(succeeds(run(&format!("read emu:file={image}"))) == bytes(1 << 20));
    assert_eq!(fs::metadata(&image).unwrap().modified().unwrap(), before);
    for arguments in [
        format!("write emu:file={image},ro=true {copy} --destructive"),
        format!("perf emu:file={image},ro=true --rw randwrite --count 9 --destructive"),
    ] {
        fs::write(&copy, [0; 4096]).unwrap();
        let error = fails(1, run(&arguments));
        assert!(error.contains("write protected"), "{error}");
    }
    assert!(fs::read(&image).unwrap() == bytes(1 << 20));
}

/// Image sizes: the backup header of a GPT is in the last block.
#[test]
fn an_image_is_copied_to_its_last_block() {
    let dir = Dir::made("sizes");
    let (image, copy) = (dir.path("gpt.img"), dir.path("copy"));
    fs::write(&image, bytes(2055 * 512)).unwrap();
    succeeds(run(&format!("read emu:file={image} {copy}")));
    assert!(fs::read(&copy).unwrap() == bytes(2055 * 512));
    fs::File::options().append(true).open(&image).unwrap().write_all(b"rest").unwrap();
    let error = fails(1, run(&format!("read emu:file={image} {copy}")));
    assert!(error.contains("gpt.img") && error.contains("last 4 bytes"), "{error}");
}

/// `-` is a stream, and a plot's file name ends in .svg.
#[test]
fn plots_read_and_write_streams() {
    let dir = Dir::made("streams");
    let json = dir.path("a.json");
    fs::write(&json, succeeds(run("perf emu --count 99 --json"))).unwrap();
    let to_stdout = succeeds(upcie(&format!("plot {json} -o -")).current_dir(&dir.0).output().unwrap());
    assert!(to_stdout.starts_with(b"<svg"));
    assert!(succeeds(run(&format!("plot {json}"))) == to_stdout, "a pipe gets the image");
    let stdin = fs::File::open(&json).unwrap();
    let output = upcie("plot - --out /dev/stdout").stdin(stdin).output().unwrap();
    assert!(succeeds(output) == to_stdout);
    assert!(!fs::exists(dir.path("-")).unwrap());
    for arguments in [format!("plot {json} -o {}", dir.path("x.png")), format!("plot {json} -o {json}.html")]
    {
        let error = fails(1, run(&arguments));
        assert!(error.contains("SVG"), "{arguments}: {error}");
    }
    let error = fails(2, run(&format!("perf emu --count 9 --plot {}", dir.path("x.png"))));
    assert!(error.contains("SVG"), "{error}");
    assert!(!fs::exists(dir.path("x.png")).unwrap());
}

/// A full disk is logged once with the file's name, and then counted.
#[test]
fn a_log_reports_a_cause_once() {
    let dir = Dir::made("log");
    let disk = dir.path("disk");
    fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
    // Writes above the limit of 64 MiB fail (EFBIG), because the signal SIGXFSZ is ignored.
    let script = format!(
        "trap '' XFSZ; ulimit -f 131072; exec {} perf emu:file={disk} --offset 512M --rw randwrite --count 2000 --destructive",
        env!("CARGO_BIN_EXE_upcie")
    );
    let output =
        std::process::Command::new("sh").args(["-c", &script]).env_remove("UPCIE_LOG").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.contains("EFBIG")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|line| line.contains(&disk)), "{text}");
    assert!(lines[1].contains("writing failed 2000 times"), "{text}");
}

/// Every tool can log the bring-up of a controller with the same option.
#[test]
fn the_log_shows_the_bring_up() {
    let dir = Dir::made("trace");
    let Served(_server, address) = Served::new(&dir, "size=8M");
    for address in ["emu", &address] {
        let output = run(&format!("info {address} --log=trace"));
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stderr).unwrap();
        for part in [
            "connected to a vfio-user server",
            "registers as found",
            "register=\"CC\"",
            "register=\"ASQ\"",
            "(CSTS.RDY = 1): done",
            "Identify (controller)",
            "queues granted",
            "mapped DMA memory",
            "(CSTS.RDY = 0): done",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.contains("emu") || line.contains("vfio-user")), "{text}");
        // The level debug leaves out register writes; without --log nothing is printed.
        let text = String::from_utf8(run(&format!("info {address} --log")).stderr).unwrap();
        assert!(text.contains("queues granted") && !text.contains("register write"), "{text}");
        assert!(run(&format!("info {address}")).stderr.is_empty());
    }
    for program in
        [env!("CARGO_BIN_EXE_nvme-emu"), env!("CARGO_BIN_EXE_devbind"), env!("CARGO_BIN_EXE_hugepages")]
    {
        let help = String::from_utf8(succeeds(program::run(program, "--help"))).unwrap();
        assert!(help.contains("--log") && help.contains("UPCIE_LOG"), "{program}");
    }
}

/// Messages quote arguments as typed, and old option names still work.
#[test]
fn arguments_are_quoted_as_typed() {
    for (arguments, part) in [
        ("perf emu --bs 2M", "--block-size 2M:"),
        ("perf emu --block-size 4k:50,2MiB:50", "--block-size 2MiB:"),
        ("perf emu --size 2G", "--length 2G:"),
        ("perf emu --offset 1G", "--offset 1G:"),
        ("read emu --length 2G", "--length 2G:"),
        ("read emu -o 0x40000000", "--offset 0x40000000:"),
        ("write emu:lba=4096 /dev/null --length 1.5K", "--length 1.5K:"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    let read = |arguments: &str| succeeds(run(&format!("read emu:size=1M {arguments}")));
    assert_eq!(read("--offset 512K --length 4K"), read("-o 512K --size 4K"));
    for (arguments, part) in [
        ("perf emu:lba=520", "512 and 4096"),
        ("perf emu:latency=1", "1us, 1ms or 1s"),
        ("perf emu:lba=512,lba=4096", "given twice"),
    ] {
        let error = fails(2, run(arguments));
        assert!(error.contains(part) && !error.contains("namespaces="), "{arguments}: {error}");
    }
    let error = fails(2, run("perf emu:colour=red"));
    assert!(
        error.lines().filter(|line| line.trim_start().split_once('=').is_some()).count() >= 15,
        "{error}"
    );
}

#[test]
fn inputs_without_an_end_are_refused() {
    let dir = Dir::made("endless");
    let huge = dir.path("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let zoned = "emu:size=1M,zoned=true,zone-size=64K,zde=64";
    for (arguments, part) in [
        ("admin emu --opcode 0x09 --dword10 0x81 --data /dev/zero".into(), "longer than 32 MiB"),
        ("io emu --opcode 1 --data /dev/zero".into(), "longer than 32 MiB"),
        ("security send emu --protocol 1 --data /dev/zero".into(), "longer than 32 MiB"),
        ("kv store emu:kv=true key /dev/zero".into(), "longer than 32 MiB"),
        ("feature emu set timestamp --data /dev/zero".into(), "longer than 8 B, the data of"),
        (format!("zns zone-append {zoned} --start-lba 0 --data /dev/zero"), "longer than 32 MiB"),
        (format!("zns set-zone-desc {zoned} --start-lba 0 --data /dev/zero"), "longer than 15.94 KiB"),
        (format!("fw download emu {huge}"), "longer than 256 MiB"),
        (format!("fw download emu {huge} --action replace-boot-partition"), "the most of a boot partition"),
        (format!("plot {huge} --out {}", dir.path("x.svg")), "longer than 256 MiB"),
        (format!("io emu --opcode 1 --data {huge}"), "longer than 32 MiB"),
    ] {
        let error = fails(1, run(&arguments));
        let name = if arguments.contains(&huge) { huge.as_str() } else { "/dev/zero" };
        assert!(error.contains(part) && error.contains(name), "{arguments}: {error}");
    }
    let endless = fs::File::open("/dev/zero").unwrap();
    let error = fails(1, upcie("kv store emu:kv=true key").stdin(endless).output().unwrap());
    assert!(error.contains("stdin is longer than 32 MiB"), "{error}");
}
