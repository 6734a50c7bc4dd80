//! fio with the engine of `fio-plugin`: the example jobs, and all that fio can ask for.

use std::env;
use upcie_nvme::spec::{ALL_NAMESPACES, Command, LogPageId, OptionalCommands};
use upcie_tests::{Device, in_guest};

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
            let mut with_checksums = text.replacen("[global]\n", &more, 1);
            if in_guest() {
                // Its processor is emulated: checksums of 64 MiB take it half a minute.
                with_checksums = with_checksums.replace("size=64M", "size=8M");
            }
            assert_ne!(with_checksums, *text, "{name} has a [global] section");
            fio(device.address()).file(&with_checksums).run().passed(name);
        }
    });
}

/// On a starved machine two limits in real time decided whether it passed: that of a command, now [`fio::PATIENCE`], and
/// that of fio's end, which now leaves out the time in which fio waited for a processor ([`upcie_tests::stopwatch`]).
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
        ];
        // One fio does them one after the other: its start is most of the work of a short run in the guest.
        let mut run = fio(device.address());
        for (what, options) in jobs {
            run = run.named(what, &write).with(options.iter().copied()).with(["--stonewall"]);
        }
        let done = run.run().passed("all shapes");
        for (what, _) in jobs {
            assert!(done.iter().any(|job| job["jobname"] == *what), "{what}: not done");
        }
        for job in &done {
            assert!(total(job, "write") > 0 && total(job, "read") > 0, "{job}");
        }
        // Without huge pages there are no physical addresses.
        if !property(device, |controller| controller.heap().space().is_physical()) {
            let small = fio(device.address()).job(&write).with(["--upcie_hugepage=no"]).run();
            let small = small.passed("small pages");
            assert!(
                total(&small[0], "write") > 0 && total(&small[0], "read") > 0,
                "small pages: {}",
                small[0]
            );
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
