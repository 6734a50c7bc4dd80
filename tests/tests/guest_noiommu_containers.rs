//! Containers on a machine without an IOMMU: a function has one user, whatever its containers see of each
//! other.

use nix::mount::{MsFlags, mount};
use std::{io, process::Command, time::Duration};
use upcie_core::{
    open,
    pci::{Binder, Function},
};
use upcie_tests::process::{Process, again, role};

const NAME: &str = "two_containers_can_not_drive_one_function";
const BDF: &str = "0000:01:00.0";
const NONE: Option<&str> = None;

/// Makes a command of this executable as the first process of a container with its own mount, pid and network
/// namespaces.
fn container(address: &str) -> Process {
    use std::os::unix::process::CommandExt;
    let mut command: Command = again(NAME, address);
    // SAFETY: the closure makes system calls only, which are async-signal-safe.
    unsafe { command.pre_exec(enter_container) };
    Process::start(command)
}

/// Returns in a child that is the first process of its pid namespace. Parent and child end together.
fn enter_container() -> io::Result<()> {
    // SAFETY: the call takes flags, and this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: parent and child go on with system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        child => {
            // Above all the pipe whose end tells the test's process that the child runs.
            // SAFETY: this process uses none of the descriptors from here on.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            let mut status = 0;
            // SAFETY: the call waits for the child, and has room for its status.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            // SAFETY: the process ends at once, without running its parent's exit handlers.
            unsafe { libc::_exit(i32::from(status != 0)) }
        }
    }
}

/// Opens the device with the container's own /proc and /sys, prints the result, and holds the device.
fn hold(address: &str) {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE).unwrap();
    assert_eq!(std::process::id(), 1, "the first process of its namespace");
    match open(&address.parse().unwrap()) {
        Ok(_device) => {
            println!("it has {address}");
            std::thread::sleep(Duration::from_secs(600));
        }
        Err(error) => println!("it was refused {address}: {error:?}"),
    }
}

/// Soundness R2: the lock was a file in sysfs, and each network namespace has a sysfs of its own.
#[test]
fn two_containers_can_not_drive_one_function() {
    if let Some(address) = role() {
        return hold(&address);
    }
    for (scheme, driver) in [("sysfs", NONE), ("uio", Some("uio_pci_generic"))] {
        let function = Function::at(BDF.parse().unwrap()).unwrap();
        match driver {
            Some(driver) => Binder::new().bind(&function, driver).unwrap(),
            None => Binder::new().unbind(&function).unwrap(),
        }
        let address = format!("{scheme}:{BDF}");
        let mut first = container(&address);
        let answer = first.wait_for(&address).unwrap();
        assert!(answer.contains("it has"), "{answer}");
        let mut second = container(&address);
        let here = format!("{:?}", open(&address.parse().unwrap()).expect_err("a container has it"));
        for answer in [second.wait_for(&address).unwrap(), here] {
            for words in [BDF, "in use", "another container"] {
                assert!(answer.contains(words), "{words}: {answer}");
            }
        }
        assert!(second.finish().0.success());
        // The lock ends with its holder, however the holder ends.
        first.kill();
        let mut third = container(&address);
        let answer = third.wait_for(&address).unwrap();
        assert!(answer.contains("it has"), "{answer}");
        third.kill();
    }
    Binder::new().unbind(&Function::at(BDF.parse().unwrap()).unwrap()).unwrap();
}
