//! A device that the kernel wants to remove: its user is notified and closes it, and until then lists show
//! its state.

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};
use upcie_core::{
    device::Address,
    open,
    pci::{Bdf, Binder, Binding, Function},
    vfio::VfioDevice,
};
use upcie_nvme::Controller;
use upcie_tests::{
    deadline,
    process::{Process, programs, running_perf},
};

/// Controller B.
const BDF: &str = "0000:02:00.0";

fn bdf() -> Bdf {
    BDF.parse().unwrap()
}

fn function() -> Function {
    Function::at(bdf()).unwrap()
}

/// Returns the function to the kernel's list and to vfio-pci when a test ends.
struct Guard;

impl Guard {
    fn new() -> Self {
        assert!(upcie_tests::in_guest(), "guest_ suites run in the guest only");
        assert_eq!(function().driver.as_deref(), Some("vfio-pci"));
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = fs::write("/sys/bus/pci/rescan", "1");
        let to = Binding { driver: Some("vfio-pci".into()), driver_override: Some("vfio-pci".into()) };
        if let Err(error) = Function::at(bdf()).and_then(|it| Binder::new().force(true).restore(&it, &to)) {
            eprintln!("{BDF} can't be put back: {error}");
        }
        let _ = fs::remove_dir_all("/run/upcie/devbind");
    }
}

fn run(program: &str, words: &[&str]) -> Output {
    let output = Command::new(programs().join(program)).args(words).output().unwrap();
    println!("{program} {words:?}: {output:?}");
    output
}

#[track_caller]
fn has(text: &[u8], parts: &[&str]) {
    let text = String::from_utf8_lossy(text);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Checks the tool's message and exit code after the tool has closed the device.
#[track_caller]
fn let_go(perf: Process, address: &str) {
    let (status, errors) = perf.finish();
    has(errors.as_bytes(), &[&format!("the kernel wants {address} back")]);
    assert_eq!(status.code(), Some(1), "{errors}");
}

#[test]
fn an_unbinding_ends_perf_and_succeeds() {
    for address in [format!("vfio:{BDF}"), format!("iommufd:{BDF}")] {
        let _guard = Guard::new();
        let perf = running_perf(&address);
        let unbound = run("devbind", &["unbind", BDF, "--force"]);
        assert!(unbound.status.success());
        assert_eq!(function().driver, None);
        let_go(perf, &address);
    }
}

#[test]
fn a_removal_ends_perf_and_succeeds() {
    let _guard = Guard::new();
    let perf = running_perf(BDF);
    fs::write(function().path.join("remove"), "1").unwrap();
    assert!(Function::at(bdf()).is_err(), "it is gone");
    let_go(perf, BDF);
}

#[test]
fn a_removal_makes_a_descriptor_readable() {
    let _guard = Guard::new();
    let controller = Controller::open(BDF).unwrap();
    assert!(!controller.is_wanted_back());
    let error = Binder::new().force(true).unbind(&function()).unwrap_err().to_string();
    has(error.as_bytes(), &[BDF, "this process has it open"]);
    let unbinding = std::thread::spawn(|| run("devbind", &["unbind", BDF, "--force"]));
    let fd = controller.wanted_back_fd().expect("VFIO has it");
    assert!(upcie_core::irq::wait_readable(fd, deadline()).unwrap());
    assert!(controller.is_wanted_back());
    assert_eq!(controller.namespace_ids().unwrap(), [1, 2], "it works until it is closed");
    drop(controller);
    assert!(unbinding.join().unwrap().status.success());
}

/// The holder here ignores the request, so the kernel waits.
#[test]
fn a_function_between_drivers_is_shown_with_its_holder() {
    for address in [Address::Vfio(bdf()), Address::Iommufd(bdf())] {
        let _guard = Guard::new();
        let device = VfioDevice::open(&address).unwrap();
        let unbinding = run("devbind", &["unbind", BDF, "--force", "--timeout", "1"]);
        assert_eq!(unbinding.status.code(), Some(1));
        assert_eq!(function().driver, None, "sysfs shows it as free");
        let me = format!("process {}", std::process::id());
        has(&run("devbind", &["list"]).stdout, &["(being unbound)", &me]);
        has(&run("upcie", &["list"]).stdout, &["being unbound", &me]);
        for words in [&["unbind", BDF][..], &["bind", "nvme", BDF], &["unbind", BDF, "--force"]] {
            let refused = run("devbind", words);
            assert_eq!(refused.status.code(), Some(1), "{words:?}");
            has(&refused.stderr, &[BDF, "being unbound", &me, "end that"]);
        }
        for address in [Address::Pci(bdf()), Address::Sysfs(bdf())] {
            let error = open(&address).expect_err("it is another's").to_string();
            has(error.as_bytes(), &["being unbound", &me]);
        }
        drop(device);
        // The kernel continues by itself.
        let end = std::time::Instant::now() + deadline();
        while function().is_being_unbound() {
            assert!(std::time::Instant::now() < end, "the kernel does not let go of it");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
