//! fio with the engine of `fio-plugin`: the example jobs, all that fio can ask for, and refusals.

use std::env;
use upcie_nvme::{
    Address,
    spec::{ALL_NAMESPACES, Command, LogPageId, OptionalCommands},
};
use upcie_tests::{Device, in_guest, left_out};

mod fio;
use fio::{fio, property, total, with_fio};

const EXAMPLES: &[(&str, &str)] = &[
    ("latency", include_str!("../../fio-plugin/examples/latency.fio")),
    ("bandwidth", include_str!("../../fio-plugin/examples/bandwidth.fio")),
    ("iops", include_str!("../../fio-plugin/examples/iops.fio")),
    ("verify", include_str!("../../fio-plugin/examples/verify.fio")),
    ("mixed", include_str!("../../fio-plugin/examples/mixed.fio")),
];

#[test]
fn every_example_verifies_its_data() {
    with_fio(|device| {
        for (name, text) in EXAMPLES {
            let more = format!("[global]\nverify=crc32c\nupcie_timeout={}\n", fio::PATIENCE);
            let with_checksums = text.replacen("[global]\n", &more, 1);
            assert_ne!(with_checksums, *text, "{name} has a [global] section");
            fio(device.address()).file(&with_checksums).run().passed(name);
        }
    });
}

#[test]
fn writes_of_all_shapes_verify() {
    with_fio(|device| {
        let write = ["--rw=randwrite", "--verify=crc32c", "--iodepth=8"];
        let jobs: &[(&str, &[&str])] = &[
            ("one command each", &[]),
            ("batches", &["--iodepth=32", "--iodepth_batch=16", "--iodepth_batch_complete_max=16"]),
            (
                "more at a time than are left",
                &["--iodepth=32", "--iodepth_batch_complete_min=7", "--iodepth_batch_complete_max=9"],
            ),
            ("sizes by range", &["--bsrange=4k-64k"]),
            ("sizes by list", &["--bssplit=4k/40:16k/30:12k/30"]),
            ("more than MDTS", &["--rw=write", "--bs=2M", "--iodepth=2"]),
            ("buffers beside pages", &["--iomem_align=64", "--bs=16k"]),
            ("patterns", &["--verify=pattern", "--verify_pattern=0xdeadbeef%o"]),
            ("checked by other threads", &["--verify=sha256", "--verify_async=1"]),
            ("checked while writing", &["--verify_backlog=16"]),
            ("flushes", &["--fsync=8", "--fdatasync=5", "--end_fsync=1"]),
            ("forced to the media", &["--sync=dsync"]),
            ("forced by the engine's option", &["--upcie_fua=1"]),
            ("set up by each job", &["--create_serialize=0"]),
            ("several jobs", &["--numjobs=3", "--size=2M", "--offset_increment=2M"]),
            ("small pages", &["--upcie_hugepage=no"]),
        ];
        for (what, options) in jobs {
            if *what == "small pages"
                && property(device, |controller| controller.heap().space().is_physical())
            {
                continue;
            }
            let jobs = fio(device.address()).job(&write).with(options.iter().copied()).run().passed(what);
            for job in &jobs {
                assert!(total(job, "write") > 0 && total(job, "read") > 0, "{what}: {job}");
            }
        }
    });
}

#[test]
fn a_job_has_several_devices() {
    with_fio(|device| {
        // In the guest the other function joins the same address space, if the transport can share one.
        let name = device.address().to_string();
        let listed = env::var("UPCIE_TEST_DEVICES").unwrap_or_default();
        let second = listed
            .split(',')
            .find(|&other| in_guest() && other != name)
            .map(|other| other.replace(':', "\\:"));
        let emulated = "emu\\:serial=OTHER,lba=4096";
        // fio adds this device to the first one.
        let other = match second {
            Some(second) => format!("--filename={second}:{emulated}"),
            None => format!("--filename={emulated}"),
        };
        let job = ["--rw=randwrite", "--verify=crc32c", "--iodepth=8", &other];
        for wait in ["--upcie_wait=poll", "--iodepth_batch=4"] {
            let jobs = fio(device.address()).job(&job).with([wait]).run().passed(wait);
            assert!(total(&jobs[0], "write") >= 1023, "{wait}: {}", jobs[0]);
        }
    });
}

#[test]
fn trims_are_deallocations_or_refused() {
    with_fio(|device| {
        let has = property(device, |controller| {
            controller.identify().optional_commands().contains(OptionalCommands::DATASET_MANAGEMENT)
        });
        for rw in ["--rw=trim", "--rw=randtrim", "--rw=trimwrite"] {
            let outcome = fio(device.address()).job(&[rw, "--bs=64k", "--iodepth=4"]).run();
            if has {
                let jobs = outcome.passed(rw);
                assert_eq!(total(&jobs[0], "trim"), 64, "{rw}");
            } else {
                outcome.refused(rw, &["trim", "optional command"]);
            }
        }
    });
}

#[test]
fn waiting_by_interrupt_works_or_is_refused() {
    with_fio(|device| {
        let vectors = property(device, |controller| controller.vectors().expect("an answer"));
        for wait in ["--upcie_wait=irq", "--upcie_wait=adaptive"] {
            let outcome =
                fio(device.address()).job(&["--rw=randread", "--iodepth=4", wait, "--io_size=1M"]).run();
            if vectors > 0 {
                outcome.passed(wait);
            } else {
                outcome.refused(wait, &["interrupt"]);
            }
        }
    });
}

#[test]
fn a_priority_is_given_or_refused() {
    with_fio(|device| {
        let has = property(device, |controller| controller.capabilities().supports_weighted_round_robin());
        let outcome =
            fio(device.address()).job(&["--rw=read", "--upcie_priority=high", "--io_size=64k"]).run();
        if has {
            outcome.passed("a priority");
        } else {
            outcome.refused("a priority", &["weighted round robin", "CAP.AMS"]);
        }
    });
}

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
            (&["--zonemode=zbd", "--zonesize=1M"], &["zonemode=zbd", "zoned namespaces"]),
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

/// Returns the counts of reads and writes in the controller's SMART log.
fn done(device: &Device) -> [u128; 2] {
    let mut log = [0; 512];
    let command = Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 512, 0);
    property(device, |controller| controller.admin(&command, &mut log)).expect("a SMART log");
    let field = |at: usize| u128::from_le_bytes(log[at..at + 16].try_into().expect("16 bytes"));
    [field(64), field(80)]
}

#[test]
fn fio_counts_what_the_controller_has_done() {
    with_fio(|device| {
        // Only a controller that outlives a run keeps its counts.
        if device.server().is_none() {
            return;
        }
        let jobs: &[&[&str]] = &[
            &["--rw=randrw", "--iodepth=32", "--iodepth_batch=7"],
            &["--rw=randrw", "--iodepth=8", "--numjobs=3", "--bsrange=4k-64k", "--fsync=5"],
            &["--rw=randwrite", "--verify=crc32c", "--iodepth=16", "--verify_backlog=8"],
            &["--rw=randrw", "--iodepth=64", "--time_based", "--runtime=1"],
        ];
        for options in jobs {
            let before = done(device);
            let jobs = fio(device.address()).job(options).run().passed("a mix");
            let after = done(device);
            for (at, kind) in ["read", "write"].iter().enumerate() {
                let counted: u64 = jobs.iter().map(|job| total(job, kind)).sum();
                assert_eq!(after[at] - before[at], u128::from(counted), "{options:?}: {kind}s");
            }
        }
    });
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
    let options = ["nsid", "wait", "hugepage", "queue_depth", "priority", "fua", "timeout"];
    for option in options.map(|option| format!("upcie_{option}")) {
        let line = all.lines().find(|line| line.starts_with(&option));
        assert!(line.is_some_and(|line| line.len() > 40), "{option}: {all}");
        assert!(fio::help(Some(&option)).contains("default: "), "{option}");
    }
    let waits = fio::help(Some("upcie_wait"));
    assert!(["poll", "irq", "adaptive"].iter().all(|word| waits.contains(word)), "{waits}");
}
