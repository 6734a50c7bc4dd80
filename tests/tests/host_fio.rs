//! fio's engine on embedded controllers: refusals, logs to replay, timeouts. The transport does not matter for these.

mod fio;

use fio::{fio, property, total, with_fio};
use std::{
    fs,
    time::{Duration, Instant},
};
use upcie_nvme::Address;
use upcie_tests::{left_out, process::Directory};

#[test]
fn impossible_jobs_are_refused_in_one_line() {
    with_fio(|device| {
        let (depth, block, last) = property(device, |controller| {
            let ids = controller.namespace_ids().expect("namespaces");
            let block = controller.namespace(1).expect("namespace 1").block_size();
            (controller.max_depth(), block, ids.into_iter().max().unwrap_or(0))
        });
        let block = format!("blocks of {block} bytes");
        let (beyond, nsid) = (format!("--iodepth={depth}"), format!("--upcie_nsid={}", last + 1));
        let queue = format!("--upcie_queue_depth={depth}");
        let cases: &[(&[&str], &[&str])] = &[
            (&["--thread=0"], &["thread=1 is needed"]),
            (&["--bs=1000"], &["bs (reads) of 1000 bytes", &block]),
            (&["--bssplit=4k/50:4100/50"], &["4100 bytes", &block]),
            (&["--blockalign=100"], &["blockalign (reads) of 100 bytes", &block]),
            (&["--bs_unaligned=1"], &["bs_unaligned"]),
            (&["--offset=100"], &["offset of 100 bytes", &block]),
            (&[&nsid], &["there is no namespace", "the active ones are"]),
            (&[&beyond], &["iodepth=", "CAP.MQES"]),
            (&["--iodepth=32", "--upcie_queue_depth=8"], &["upcie_queue_depth=8 is less than the 32"]),
            (&[&queue], &["upcie_queue_depth=", "CAP.MQES"]),
            (&["--mem=malloc"], &["mem= is not for this engine"]),
            (&["--offset=900T"], &["offset of 989560464998400 bytes", "no room for a bs of 4096 bytes"]),
            (&["--offset=100%"], &["no room for a bs of 4096 bytes"]),
            (&["--offset=25%", "--offset_align=100"], &["offset of ", &block]),
            (
                &["--offset_increment=60%", "--numjobs=3", "--io_size=64k"],
                &["offset_increment", "no room for a bs"],
            ),
            (&["--zonemode=zbd", "--zonesize=1M"], &["zonemode=zbd", "namespace 1 is none"]),
            (
                &["--rw=read", "--zonemode=strided", "--zonesize=64k", "--zoneskip=1000"],
                &["at byte 66536 was not sent", &block],
            ),
            (&["--upcie_timeout=1us"], &["upcie_timeout"]),
        ];
        for (options, parts) in cases {
            fio(device.address())
                .job(&["--rw=randread"])
                .with(options.iter().copied())
                .run()
                .refused(&format!("{options:?}"), parts);
        }
        // The refusals have not harmed the device.
        fio(device.address()).job(&["--rw=read"]).run().passed("after the refusals");
    });
}

/// One queue pair of two entries, one vector, and the least MDTS.
#[test]
fn a_minimal_controller_is_enough_for_one_unit_at_a_time() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu:size=16M,queues=1,depth=2,vectors=1,mdts=8K".parse().expect("an address");
    for wait in ["--upcie_wait=poll", "--upcie_wait=irq"] {
        let job = ["--rw=randwrite", "--verify=crc32c", "--iodepth=1", wait];
        let done = fio(&emu).job(&job).run().passed(wait);
        assert!(total(&done[0], "write") > 0 && total(&done[0], "read") > 0, "{}", done[0]);
    }
    fio(&emu).job(&["--rw=randread", "--iodepth=2"]).run().refused("two units", &["iodepth=2", "CAP.MQES"]);
}

/// fio writes zones from their write pointers on, within the limit of open zones, and resets full ones.
#[test]
fn zones_are_written_in_order() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu = "emu:size=4M,zoned=true,zone-size=256K,zone-capacity=192K,max-open=3,max-active=3,mdts=64K";
    let emu: Address = emu.parse().expect("an address");
    let zbd = ["--zonemode=zbd", "--direct=1", "--size=4M", "--iodepth=8"];
    let verify = ["--verify=crc32c", "--do_verify=1"];
    let run = || fio(&emu).job(&zbd);
    let jobs = run().with(["--rw=write"]).with(verify).run().passed("each zone once");
    // 16 zones of 192 KiB.
    assert_eq!(total(&jobs[0], "write"), 16 * 48);
    let jobs = run().with(["--rw=randwrite", "--io_size=8M"]).run().passed("zones are reset");
    assert_eq!(total(&jobs[0], "write"), 2048);
    // Longer than one command.
    run().with(["--rw=randwrite", "--bs=128k", "--io_size=1M"]).with(verify).run().passed("long writes");
    run().with(["--rw=write", "--size=1M"]).with(verify).run().passed("verified");
    let text = include_str!("../../fio-plugin/examples/zones.fio");
    fio(&emu).file(text).run().passed("the example");
}

#[test]
fn a_trim_is_one_command_whatever_its_size() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu:size=16T,null=true".parse().expect("an address");
    let trim = ["--rw=trim", "--size=16T"];
    let jobs = fio(&emu).job(&trim).with(["--bs=1T", "--iodepth=16"]).run().passed("1 TiB each");
    assert_eq!(total(&jobs[0], "trim"), 16);
    // A range of Dataset Management counts its blocks in 32 bits.
    fio(&emu)
        .job(&trim)
        .with(["--bs=2T"])
        .run()
        .refused("2 TiB each", &["trim of 2199023255552 bytes", "longer"]);
    // These jobs write all that they have trimmed.
    let emu: Address = "emu".parse().expect("an address");
    let both = ["--rw=randtrimwrite", "--bs=4k,4k,64k", "--iodepth=16", "--size=16M"];
    fio(&emu).job(&both).run().passed("trims longer than bs");
}

#[test]
fn a_replayed_log_may_exceed_bs() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu".parse().expect("an address");
    let log = "fio version 2 iolog\nemu add\nemu open\nemu write 0 4194304\nemu read 4096 65536\nemu close\n";
    for how in ["--read_iolog_chunked=0", "--read_iolog_chunked=1"] {
        let jobs = fio(&emu).job(&[how]).replay(log).run().passed(how);
        assert_eq!((total(&jobs[0], "write"), total(&jobs[0], "read")), (1, 1), "{how}");
    }
}

#[test]
fn a_bad_device_name_is_refused() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu".parse().expect("an address");
    let cases: &[(&str, &[&str])] = &[
        ("nvme0n1", &["\"nvme0n1\" is not a device address", "0000:01:00.0"]),
        ("0000.ff.1f.7", &["0000:ff:1f.7", "no such device"]),
        ("vfio\\:0000.ff.1f.7", &["0000:ff:1f.7"]),
        ("vfio-user\\:/nowhere", &["/nowhere"]),
        ("emu\\:colour=red", &["\"colour\" is not an option"]),
    ];
    for (name, parts) in cases {
        let filename = format!("--filename={name}");
        fio(&emu).job(&["--rw=read"]).with([filename.as_str()]).run().refused(name, parts);
    }
    let engine = format!("--ioengine=external:{}", fio::engine().unwrap_or_default());
    let unnamed = fio(&emu).with(["--name=job", &engine, "--thread=1", "--rw=read", "--size=1M"]).run();
    unnamed.refused("no name", &["filename= is missing"]);
}

#[test]
fn another_fio_version_is_told_how_to_get_an_engine() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    fio::of_another_version(|program| {
        let emu: Address = "emu".parse().expect("an address");
        let outcome = fio(&emu).job(&["--rw=read"]).by(program).run();
        outcome.refused(
            "another version",
            &["this engine was built for fio-", "cargo xtask fio", "--fio-source"],
        );
    });
}

#[test]
fn every_option_is_documented() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let all = fio::help(None);
    let ours = ["nsid", "wait", "hugepage", "queue_depth", "priority", "fua", "timeout"];
    let common = [
        "md_per_io_size",
        "pi_act",
        "pi_chk",
        "apptag",
        "apptag_mask",
        "enable_sgl",
        "write_mode",
        "verify_mode",
    ];
    let ours = ours.map(|option| format!("upcie_{option}"));
    for option in ours.into_iter().chain(common.map(str::to_owned)) {
        let line = all.lines().find(|line| line.starts_with(&option));
        assert!(line.is_some_and(|line| line.len() > 40), "{option}: {all}");
        // fio shows no default of an option that has none.
        assert!(option == "pi_chk" || fio::help(Some(&option)).contains("default: "), "{option}");
    }
    let waits = fio::help(Some("upcie_wait"));
    assert!(["poll", "irq", "adaptive"].iter().all(|word| waits.contains(word)), "{waits}");
}
#[test]
fn a_late_reap_is_no_timeout() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu".parse().expect("an address");
    // Times are in microseconds: fio has room for more I/Os, so it reaps none while it waits for the next
    // time.
    let log = "fio version 3 iolog\n0 emu add\n0 emu open\n1 emu write 0 4096\n1500000 emu read 0 4096\n\
               3000000 emu read 4096 4096\n4500000 emu read 8192 4096\n4500001 emu close\n";
    let jobs = fio(&emu).job(&["--iodepth=8", "--upcie_timeout=1"]).replay(log).run().passed("a slow log");
    assert_eq!((total(&jobs[0], "write"), total(&jobs[0], "read")), (1, 3));
}

#[test]
fn a_partly_submitted_unit_ends_by_the_timeout() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    // The second half of the unit begins beyond the end of the namespace.
    let late = ["no completion within 1s", "upcie_timeout", "1 commands in flight"];
    for (latency, parts) in [("200ms", &["beyond the end", "was not sent"][..]), ("60s", &late)] {
        let name = format!("emu:size=1M,mdts=8K,latency={latency}");
        let log = format!(
            "fio version 2 iolog\n{name} add\n{name} open\n{name} write 1040384 16384\n{name} close\n"
        );
        let emu: Address = name.parse().expect("an address");
        let start = Instant::now();
        fio(&emu).job(&["--upcie_timeout=1", "--size=1M"]).replay(&log).run().refused(latency, parts);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}

#[test]
fn a_job_that_waits_for_all_ends_by_the_timeout() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu:latency=60s".parse().expect("an address");
    for pause in ["--thinktime=1ms", "--rate_iops=5"] {
        let job = ["--rw=randread", "--iodepth=4", "--upcie_timeout=1", pause];
        fio(&emu).job(&job).run().refused(pause, &["no completion within 1s", "upcie_timeout"]);
    }
}

#[test]
fn a_pause_of_fio_is_no_timeout() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    // The latency keeps the command in flight when the pause begins.
    let emu: Address = "emu:latency=200ms".parse().expect("an address");
    let job = ["--rw=randread", "--iodepth=1", "--number_ios=3", "--thinktime=3500ms", "--upcie_timeout=1s"];
    let jobs = fio(&emu).job(&job).run().passed("a pause");
    assert_eq!(total(&jobs[0], "read"), 3);
}

#[test]
fn a_timed_out_command_ends_the_job_with_a_diagnosis() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu:latency=60s".parse().expect("an address");
    for wait in ["--upcie_wait=poll", "--upcie_wait=irq"] {
        let job = ["--rw=randread", "--iodepth=8", "--upcie_timeout=400ms", wait];
        // The number of commands that fio has submitted by then depends on the machine.
        let parts = ["no completion within 400ms", "commands in flight", "CSTS 1h"];
        fio(&emu).job(&job).run().refused(wait, &parts);
    }
}

#[test]
fn writes_without_memory_end_with_one_line() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let emu: Address = "emu".parse().expect("an address");
    let large = ["--rw=randwrite", "--bs=4M", "--iodepth=512", "--size=1G"];
    fio(&emu).job(&large).run().refused("2 GiB of buffers", &["more than the 1 GiB"]);
}

/// fio itself looks at no error of a sync that was queued.
#[test]
fn a_failed_flush_fails_the_job() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let directory = Directory::new();
    let plan = directory.path().join("plan.toml");
    // Write Fault of the second Flush.
    let fault = "[[fault]]\nkind = \"status\"\nstatus = 0x280\nopcode = \"flush\"\nafter = 1\ncount = 1\n";
    fs::write(&plan, fault).expect("a directory of our own");
    let emu: Address = format!("emu:size=4M,faults={}", plan.display()).parse().expect("an address");
    for depth in ["--iodepth=1", "--iodepth=8"] {
        let job = ["--rw=write", "--bs=4k", "--size=1M", "--fsync=16", depth];
        fio(&emu).job(&job).run().refused(depth, &["flush failed", "Write Fault"]);
    }
    fio(&emu).job(&["--rw=write", "--bs=4k", "--size=64k", "--fsync=16"]).run().passed("one Flush");
}
