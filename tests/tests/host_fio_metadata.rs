//! fio's engine on blocks with metadata and protection information, with other commands than Read and Write, and what it
//! refuses of these.

mod fio;

use fio::{Outcome, fio, total};
use std::fs;
use upcie_nvme::{
    Address, Controller, Io,
    protection::{Checks, Protect, ProtectionType},
};
use upcie_tests::{left_out, process::Directory};

/// Runs a job of these options on an embedded controller.
fn run(emu: &str, options: &[&str]) -> Outcome {
    let emu: Address = emu.parse().expect("an address");
    fio(&emu).job(options).run()
}

/// A medium that outlives a run.
struct Disk {
    directory: Directory,
    options: &'static str,
}

impl Disk {
    /// Makes an empty medium of 4 MiB of data.
    fn new(options: &'static str) -> Self {
        Self { directory: Directory::new(), options }
    }

    fn address(&self) -> String {
        let path = self.directory.path().join("disk");
        format!("emu:size=4M,file={},{}", path.display(), self.options)
    }

    fn run(&self, options: &[&str]) -> Outcome {
        run(&self.address(), options)
    }

    /// Adds a fault plan.
    fn run_with_faults(&self, plan: &str, options: &[&str]) -> Outcome {
        let path = self.directory.path().join("plan.toml");
        fs::write(&path, plan).expect("a directory of our own");
        run(&format!("{},faults={}", self.address(), path.display()), options)
    }

    /// Returns the bytes of the medium.
    fn bytes(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("disk")).expect("the medium")
    }

    /// Checks all fields of the protection information of the first `count` blocks in software.
    fn check(&self, count: usize, tag: u16) {
        let controller = Controller::open(self.address().as_str()).expect("the controller");
        let namespace = controller.namespace(1).expect("namespace 1");
        let format = *namespace.format();
        let protection = format.protection().expect("protection information");
        let protect = match protection.kind() {
            // The reference tag is the application's.
            ProtectionType::Type3 => Checks::GUARD | Checks::APPLICATION_TAG,
            _ => Checks::GUARD | Checks::APPLICATION_TAG | Checks::REFERENCE_TAG,
        };
        let protect = Protect::new().check(protect).application_tag(tag);
        let mut data = controller.alloc(count * format.transfer_size()).expect("memory");
        // Nothing is checked by the controller.
        let raw = Io::read(&namespace, 0).protect(Protect::new());
        if format.is_extended() {
            namespace.run(raw, &mut data).expect("a read");
            return format.verify(0, &data.to_vec(), &protect).expect(self.options);
        }
        let mut metadata = controller.alloc(count * format.metadata_size()).expect("memory");
        namespace.run_with_metadata(raw, &mut data, &mut metadata).expect("a read");
        format.verify_separate(0, &data.to_vec(), &metadata.to_vec(), &protect).expect(self.options);
    }
}

/// Options of the medium, those of the jobs, and the data bytes of an I/O.
type Case = (&'static str, &'static [&'static str], usize);

#[test]
fn protection_is_made_and_checked() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let cases: &[Case] = &[
        // By the engine, in extended blocks.
        ("ms=8,pi=1,extended=true", &["--pi_act=0", "--bs=4160"], 4096),
        ("ms=8,pi=2,extended=true", &["--pi_act=0", "--bs=4160"], 4096),
        ("ms=8,pi=3,extended=true", &["--pi_act=0", "--bs=4160"], 4096),
        (
            "lba=4096,ms=64,pi=1,guard=64,sts=16,pi-first=true,extended=true",
            &["--pi_act=0", "--bs=8320"],
            8192,
        ),
        // By the engine, in a buffer of its own; the units are longer than a command.
        ("ms=8,pi=1,mdts=16K", &["--pi_act=0", "--md_per_io_size=1024", "--bs=64k"], 65536),
        ("ms=8,pi=3", &["--pi_act=0", "--md_per_io_size=64"], 4096),
        ("lba=4096,ms=64,pi=2,guard=32,sts=40", &["--pi_act=0", "--md_per_io_size=64"], 4096),
        // By the controller.
        ("ms=8,pi=1,extended=true", &["--pi_act=1"], 4096),
        ("ms=8,pi=2", &["--pi_act=1"], 4096),
        ("lba=4096,ms=64,pi=1", &["--pi_act=1", "--md_per_io_size=64"], 4096),
        ("lba=4096,ms=64,pi=2,extended=true", &["--bs=4160"], 4096),
    ];
    for (options, job, data) in cases {
        let disk = Disk::new(options);
        let checks = if options.contains("pi=3") { "GUARD,APPTAG" } else { "GUARD,REFTAG,APPTAG" };
        let checks = format!("--pi_chk={checks}");
        let run = |more: &[&str]| {
            let common = ["--iodepth=8", "--apptag=0x4321", &checks];
            disk.run(&[&common[..], job, more].concat())
        };
        let jobs = run(&["--rw=write", "--io_size=1M", "--size=1M"]).passed(options);
        let written = total(&jobs[0], "write") as usize * data;
        let block = if options.contains("lba=4096") { 4096 } else { 512 };
        disk.check(written / block, 0x4321);
        run(&["--rw=randread", "--size=1M"]).passed(options);
        // Blocks of another application are found, by the bits of the mask.
        run(&["--rw=read", "--size=1M", "--apptag=0x4322"])
            .refused(options, &["read of ", "at byte 0 failed", "Application Tag Check Error"]);
        run(&["--rw=read", "--size=1M", "--apptag=0x4322", "--apptag_mask=0xff00"]).passed(options);
    }
}

/// Bits that flip after the controller's checks are found by the engine's.
#[test]
fn the_engine_finds_what_flips_on_the_way_back() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let plan = "[[fault]]\nkind = \"corrupt\"\nopcode = \"read\"\nafter = 8\ncount = 1\n";
    for (options, job) in [
        ("ms=8,pi=1,extended=true", &["--bs=4160"][..]),
        ("lba=4096,ms=8,pi=2", &["--bs=4k", "--md_per_io_size=8"][..]),
    ] {
        let disk = Disk::new(options);
        let job = [&["--pi_act=0", "--pi_chk=GUARD,REFTAG,APPTAG", "--size=128k"][..], job].concat();
        disk.run(&[&job[..], &["--rw=write"]].concat()).passed(options);
        disk.run_with_faults(plan, &[&job[..], &["--rw=read"]].concat())
            .refused(options, &["read of ", "failed the engine's check: block ", "was expected"]);
        disk.run(&[&job[..], &["--rw=read"]].concat()).passed(options);
    }
}

#[test]
fn metadata_without_protection_verifies() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let write = ["--rw=randwrite", "--verify=crc32c", "--iodepth=8", "--size=2M"];
    let cases: &[(&str, &[&str])] = &[
        ("emu:ms=8,extended=true", &["--bs=4160"]),
        ("emu:ms=8,extended=true", &["--bssplit=520/40:5200/60", "--iodepth_batch=4"]),
        ("emu:ms=8,extended=true,mdts=16K", &["--bs=41600", "--sync=dsync"]),
        ("emu:lba=4096,ms=64,extended=true", &["--bs=4160", "--fsync=8"]),
        ("emu:ms=8", &["--md_per_io_size=64"]),
        ("emu:ms=16,mdts=16K", &["--bs=128k", "--md_per_io_size=4096"]),
        ("emu:ms=8", &["--md_per_io_size=4096", "--bsrange=4k-64k", "--upcie_wait=irq"]),
        ("emu:ms=8,extended=true", &["--bs=4160", "--rw=randtrimwrite", "--verify=0"]),
        // Apart from the data and nothing but protection information: the driver leaves it to the controller.
        ("emu:ms=8,pi=1", &["--bs=4k"]),
        ("emu:ms=8,pi=1", &["--bs=4k", "--pi_chk=GUARD"]),
        ("emu:ms=8,pi=1,extended=true", &["--bs=4k"]),
        ("emu:lba=4096,ms=64,pi=1", &["--bs=4k", "--md_per_io_size=64"]),
        ("emu", &["--enable_sgl=1", "--bsrange=4k-256k"]),
        ("emu:mdts=16K", &["--enable_sgl=1", "--bs=256k", "--iomem_align=64"]),
    ];
    for (emu, options) in cases {
        let jobs = run(emu, &[&write[..], options].concat()).passed(emu);
        assert!(total(&jobs[0], "write") > 0, "{emu}: {}", jobs[0]);
    }
}

#[test]
fn a_write_can_be_another_command() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    for options in ["lba=512", "ms=8,extended=true", "ms=8,pi=1"] {
        let disk = Disk::new(options);
        let bs = if options.contains("extended") { "--bs=4160" } else { "--bs=4k" };
        let write = |mode: &str, more: &[&str]| {
            let mode = format!("--write_mode={mode}");
            disk.run(&[&["--rw=write", "--iodepth=4", "--size=260k", bs, mode.as_str()][..], more].concat())
        };
        let jobs = write("write", &[]).passed(options);
        let units = total(&jobs[0], "write") as usize;
        let before = disk.bytes();
        let part = units * 4096;
        assert!(before[..part].chunks(512).all(|block| block.iter().any(|&byte| byte != 0)), "{options}");
        // A Verify moves nothing.
        let longer = if bs == "--bs=4160" { "--bs=20800" } else { "--bs=20k" };
        assert!(total(&write("verify", &[longer]).passed(options)[0], "write") >= 12, "{options}");
        assert!(disk.bytes() == before, "{options}: Verify has changed the blocks");
        write("zeroes", &[]).passed(options);
        let after = disk.bytes();
        assert!(after[..part].iter().all(|&byte| byte == 0), "{options}: Write Zeroes has left data");
        disk.run(&["--rw=read", "--size=260k", bs]).passed(options);
        write("zeroes", &["--upcie_fua=1"]).passed(options);
        // The blocks are unreadable until they are written.
        for (name, mode) in [("uncor", "uncor"), ("uncorrectable", "uncorrectable")] {
            let text = format!(
                "[global]\nioengine=external:${{UPCIE_ENGINE}}\nfilename=${{UPCIE_FILENAME}}\nthread=1\nsize=260k\n{}\n\
                 upcie_timeout={}\n[{name}]\nrw=write\nwrite_mode={mode}\n[read]\nstonewall\nrw=read\n",
                &bs[2..],
                fio::PATIENCE
            );
            let address: Address = disk.address().parse().expect("an address");
            fio(&address).file(&text).run().refused(mode, &["read of ", "Unrecovered Read Error"]);
        }
    }
}

/// The commands of a verification are Compare: data that was damaged on its way to the controller differs.
#[test]
fn a_verification_can_compare() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let plan = "[[fault]]\nkind = \"corrupt\"\nopcode = \"write\"\nafter = 3\ncount = 1\n";
    for (options, bs) in
        [("lba=512", "--bs=4k"), ("mdts=8K", "--bs=32k"), ("ms=8,extended=true", "--bs=4160")]
    {
        let disk = Disk::new(options);
        for pattern in ["--verify_pattern=0xdeadbeef%o", "--verify_pattern=0x5a"] {
            let verify = ["--rw=randwrite", "--verify=pattern", pattern, "--verify_mode=compare"];
            let job = [&verify[..], &["--iodepth=4", "--size=512k", bs]].concat();
            let jobs = disk.run(&job).passed(options);
            assert!(total(&jobs[0], "read") > 0, "{options}: {}", jobs[0]);
            disk.run_with_faults(plan, &job).refused(options, &["compare of ", "Compare Failure"]);
        }
    }
}

#[test]
fn the_examples_run() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    for (emu, text) in [
        ("emu:size=64M,ms=8,pi=1,extended=true", include_str!("../../fio-plugin/examples/protection.fio")),
        ("emu:size=64M", include_str!("../../fio-plugin/examples/commands.fio")),
    ] {
        let address: Address = emu.parse().expect("an address");
        fio(&address).file(text).run().passed(emu);
    }
}

#[test]
fn options_that_the_namespace_can_not_have_are_refused() {
    if fio::engine().is_none() {
        return left_out("fio's engine");
    }
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("emu", &["--pi_act=0"], &["namespace 1: pi_act=0", "blocks of 512 bytes", "--protection"]),
        ("emu", &["--pi_chk=GUARD"], &["pi_chk= is for protection information", "leave it out"]),
        ("emu:ms=8,extended=true", &["--apptag=1", "--bs=520"], &["apptag= is for protection information"]),
        ("emu", &["--apptag_mask=1"], &["apptag_mask= is for protection information"]),
        ("emu", &["--apptag=70000"], &["apptag=0x11170", "16 bits"]),
        ("emu", &["--pi_chk=guard"], &["\"guard\" is no check", "GUARD, REFTAG and APPTAG"]),
        (
            "emu:ms=8,pi=3,extended=true",
            &["--pi_chk=REFTAG"],
            &["pi_chk=REFTAG", "type 3", "leave REFTAG out"],
        ),
        ("emu", &["--md_per_io_size=64"], &["md_per_io_size=64", "blocks of 512 bytes do not have"]),
        ("emu:ms=8,extended=true", &["--md_per_io_size=64", "--bs=520"], &["bs counts the metadata"]),
        ("emu:ms=8", &[], &["md_per_io_size=0 is less than the 64 bytes", "set it to 64"]),
        ("emu:ms=8", &["--md_per_io_size=64", "--bs=8k"], &["md_per_io_size=64 is less than the 128"]),
        ("emu:ms=8,pi=1", &["--pi_act=0"], &["md_per_io_size=0 is less than the 64 bytes", "or pi_act=1"]),
        (
            "emu:ms=8,extended=true",
            &[],
            &["bs (reads) of 4096 bytes", "blocks of 520 bytes (512 of data and 8 of metadata)"],
        ),
        ("emu:sgl=false", &["--enable_sgl=1"], &["enable_sgl=1", "SGLS", "leave it out"]),
        (
            "emu:ms=8,pi=1,extended=true",
            &["--rw=write", "--pi_act=0", "--bs=520", "--verify=crc32c"],
            &["verify= covers the bytes where protection information is put", "pi_chk="],
        ),
        ("emu", &["--rw=write", "--write_mode=zeroes", "--verify=crc32c"], &["write_mode=zeroes", "verify="]),
        (
            "emu",
            &["--rw=write", "--verify_mode=compare", "--verify=crc32c"],
            &["verify_mode=compare knows only patterns", "verify_pattern="],
        ),
        (
            "emu:ms=8,pi=1",
            &["--rw=write", "--verify_mode=compare", "--verify=pattern", "--verify_pattern=1"],
            &["verify_mode=compare is for blocks without", "use verify_mode=read"],
        ),
    ];
    for (emu, options, parts) in cases {
        let common = ["--rw=read", "--io_size=64k"];
        let what = format!("{emu} {options:?}");
        let parts = [&[&emu[..]][..], parts].concat();
        let is_of_a_device = !parts.iter().any(|part| part.contains("16 bits") || part.contains("no check"));
        run(emu, &[&common[..], options].concat())
            .refused(&what, if is_of_a_device { &parts } else { &parts[1..] });
    }
}
