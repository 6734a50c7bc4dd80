//! The end of a job of fio's: at a timeout, a request, a loss or an interrupt, with one line that names the cause.

mod fio;

use fio::{fio, property, total, with_fio};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use upcie_core::pci::{Binder, Function};
use upcie_nvme::Address;
use upcie_tests::{deadline, left_out};

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
fn an_interrupted_run_ends_with_statistics() {
    with_fio(|device| {
        let job = ["--rw=randread", "--iodepth=8", "--time_based", "--runtime=600"];
        // A job that is set up and never begins has the device open, too.
        let run = fio(device.address()).job(&job).job(&["--name=late", "--rw=read", "--startdelay=600"]);
        let outcome = run.run_and(|process| process.signal(Signal::SIGINT));
        // fio's own exit code.
        assert_eq!(outcome.code, Some(128), "{}", outcome.messages);
        assert_eq!(outcome.jobs[0]["error"], 0, "{}", outcome.messages);
        assert!(total(&outcome.jobs[0], "read") > 0, "{}", outcome.messages);
        // The engine closed the device in order.
        fio(device.address()).job(&["--rw=read"]).run().passed("after the interrupt");
    });
}

/// The kernel waits with an unbinding until the engine closes the device; a server waits with its end for a
/// second.
#[test]
fn a_removal_request_ends_the_job_with_one_line() {
    with_fio(|device| {
        if property(device, |controller| controller.wanted_back_fd().is_none()) {
            return;
        }
        let job = ["--rw=randread", "--iodepth=8", "--time_based", "--runtime=600"];
        let address = device.address().clone();
        if let Some(server) = device.server() {
            let outcome = fio(&address).job(&job).run_and(|_| server.process().signal(Signal::SIGTERM));
            return outcome.refused("a stopped server", &[&address.to_string(), "its server wants"]);
        }
        let function = Function::at(address.bdf().expect("a PCI function")).expect("it is there");
        let before = function.binding().expect("its driver");
        let outcome = fio(device.address()).job(&job).run_and(|_| {
            let unbound = Binder::new().force(true).deadline(deadline()).unbind(&function);
            unbound.expect("the engine lets go of it");
        });
        let name = device.address().to_string();
        outcome.refused("a device that is wanted back", &[&name, "the kernel wants"]);
        Binder::new().restore(&function, &before).expect("its former driver takes it");
    });
}

#[test]
fn a_lost_device_ends_the_job_with_one_line() {
    with_fio(|device| {
        let address = device.address().clone();
        let Some(server) = device.server() else { return };
        let job = ["--rw=randread", "--iodepth=8", "--time_based", "--runtime=600"];
        let outcome = fio(&address).job(&job).run_and(|_| server.process().kill());
        let name = address.to_string();
        assert_eq!(outcome.jobs.len(), 1, "statistics come all the same: {}", outcome.messages);
        outcome.refused("a lost device", &[&name]);
    });
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
