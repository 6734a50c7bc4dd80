//! The end of a job of fio's: at a request, a loss or an interrupt, with one line that names the cause.

mod fio;

use fio::{fio, property, total, with_fio};
use nix::sys::signal::Signal;
use upcie_core::pci::{Binder, Function};
use upcie_tests::deadline;

#[test]
fn an_interrupted_run_ends_with_statistics() {
    with_fio(|device| {
        let job = ["--rw=randread", "--iodepth=8", "--time_based", "--runtime=600"];
        // A job that is set up and never begins has the device open, too.
        let run = fio(device.address()).job(&job).named("late", &["--rw=read", "--startdelay=600"]);
        let outcome = run.run_and(|process| process.signal(Signal::SIGINT));
        // fio's own exit code.
        assert_eq!(outcome.code, Some(128), "{}", outcome.messages);
        let names: Vec<_> = outcome.jobs.iter().map(|job| job["jobname"].as_str()).collect();
        assert_eq!(names, [Some("job"), Some("late")], "{}", outcome.messages);
        assert!(outcome.jobs.iter().all(|job| job["error"] == 0), "{}", outcome.messages);
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
