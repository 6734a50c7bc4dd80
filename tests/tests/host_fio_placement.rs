//! fio's data placement with the engine: each write goes to the reclaim unit that fio has chosen for it. fio has it from 3.34 on,
//! so an older one tests nothing here.

mod fio;

use fio::{fio, total, version};
use upcie_nvme::{Address, Controller};
use upcie_tests::{left_out, process::Server};

/// Returns `true` if there are an engine and a fio of this version at least.
fn has(wanted: (u32, u32), what: &str) -> bool {
    if fio::engine().is_none() {
        left_out("fio's engine");
        return false;
    }
    let found = version();
    if found < wanted {
        println!("fio {}.{} has no {what}", found.0, found.1);
    }
    found >= wanted
}

#[test]
fn writes_fill_the_units_that_fio_chooses() {
    if !has((3, 34), "data placement") {
        return;
    }
    let server = Server::start("size=4M,fdp=true,fdp-handles=4,fdp-unit=1M");
    let address: Address = server.address().to_string().parse().expect("an address");
    let write = ["--rw=write", "--bs=4k", "--io_size=64k", "--iodepth=4", "--fdp=1", "--fdp_pli=1,2"];
    let jobs = fio(&address).job(&write).run().passed("round robin over two handles");
    assert_eq!(total(&jobs[0], "write"), 16);
    // Long units, zeroed, with reads in between; and a job without placement.
    let zeroes = ["--rw=rw", "--bs=64k", "--io_size=256k", "--write_mode=zeroes", "--fdp=1", "--fdp_pli=3"];
    let jobs = fio(&address).job(&zeroes).run().passed("Write Zeroes with one handle");
    let zeroed = total(&jobs[0], "write") * 128;
    fio(&address).job(&["--rw=write", "--io_size=16k"]).run().passed("without placement");
    let controller = Controller::open(address.to_string()).expect("the controller");
    let placement = controller.namespace(1).expect("namespace 1").placement().expect("its placement");
    let handles = placement.handles().expect("their status");
    let left: Vec<u64> = handles.iter().map(|handle| handle.available_media_writes).collect();
    assert_eq!(left, [2048 - 32, 2048 - 64, 2048 - 64, 2048 - zeroed]);
}

#[test]
fn placement_that_a_namespace_lacks_is_refused() {
    if !has((3, 34), "data placement") {
        return;
    }
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("emu", &[], &["namespace 1 has no flexible data placement", "CTRATT"]),
        ("emu:fdp=true", &["--write_mode=uncor"], &["write_mode=uncorrectable has no placement", "leave"]),
        ("emu:fdp=true", &["--write_mode=verify"], &["write_mode=verify has no placement"]),
    ];
    for (emu, options, parts) in cases {
        let address: Address = emu.parse().expect("an address");
        let job = [&["--rw=write", "--fdp=1"][..], options].concat();
        fio(&address).job(&job).run().refused(&format!("{emu} {options:?}"), parts);
    }
}

/// The embedded controller has no streams: the engine asks for them, and says what came back.
#[test]
fn streams_are_turned_on_or_refused() {
    if !has((3, 38), "streams") {
        return;
    }
    for emu in ["emu", "emu:fdp=true"] {
        let address: Address = emu.parse().expect("an address");
        let job = ["--rw=write", "--dataplacement=streams", "--plids=1"];
        fio(&address).job(&job).run().refused(emu, &["Directive"]);
    }
}
