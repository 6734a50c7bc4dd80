//! QEMU's monitor, which the guest reaches by its second serial port, and controllers that it plugs in and takes away.

use crate::deadline;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};
use upcie_core::{
    irq::wait_readable,
    pci::{Bdf, Binder, Function, functions},
};

const PORT: &str = "/dev/ttyS1";
/// The root port that is empty when the guest starts (`tools/xtask/src/lab/devices.rs`).
const SLOT: &str = "hot";

/// The monitor.
#[derive(Debug)]
pub struct Monitor(File);

impl Monitor {
    /// Opens the monitor.
    ///
    /// # Panics
    /// Panics outside of the guest, or if the monitor does not answer.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        assert!(crate::in_guest(), "guest_ suites run in the guest only");
        // Without an echo, which the monitor would take for commands.
        let raw = Command::new("stty").args(["-F", PORT, "raw", "-echo"]).status().expect("BusyBox");
        assert!(raw.success(), "stty: {raw}");
        let mut monitor =
            Self(OpenOptions::new().read(true).write(true).open(PORT).expect("a second serial port"));
        // Ends a line that the port's own echo may have begun.
        monitor.0.write_all(b"\n").unwrap();
        monitor.run("info name");
        monitor
    }

    /// Runs a command, and returns its output with the monitor's echo.
    ///
    /// # Panics
    /// Panics if the monitor reports an error, or does not answer.
    pub fn run(&mut self, command: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // The sum comes after the command's output, and is not in the echo.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) * 1000;
        self.0.write_all(format!("{command}\nprint /d {number}+7\n").as_bytes()).unwrap();
        let (mut text, sum) = (String::new(), (number + 7).to_string());
        while !text.contains(&sum) {
            let readable = wait_readable(self.0.as_fd(), deadline()).unwrap();
            assert!(readable, "QEMU's monitor does not answer {command:?}: {text:?}");
            let mut bytes = [0; 256];
            let count = self.0.read(&mut bytes).unwrap();
            text += &String::from_utf8_lossy(&bytes[..count]);
        }
        println!("monitor: {text:?}");
        assert!(!text.contains("Error") && !text.contains("rror:"), "{command:?}: {text}");
        text
    }
}

/// An NVMe controller that was plugged into the guest. Dropping this takes it away.
#[derive(Debug)]
pub struct Plugged {
    name: String,
    disk: String,
    bdf: Bdf,
}

impl Plugged {
    /// Plugs in a controller with a namespace of 64 MiB that reads as zeroes, and binds it to a driver, or to none.
    ///
    /// # Panics
    /// Panics if it does not appear.
    pub fn new(monitor: &mut Monitor, driver: Option<&str>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // QEMU keeps the disk of a controller that was taken away with commands in flight: each name is used once in a boot.
        let number = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let before: Vec<_> = functions().unwrap().into_iter().map(|function| function.bdf).collect();
        let (name, disk) = (format!("plugged{number}"), format!("disk{number}"));
        monitor.run(&format!("drive_add 0 if=none,id={disk},driver=null-co,size=64M,read-zeroes=on"));
        monitor.run(&format!("device_add nvme,id={name},bus={SLOT},serial=PLUGGED{number},drive={disk}"));
        let function = until("the controller that was plugged in", || {
            let all = functions().unwrap_or_default();
            all.into_iter().find(|function| function.is_nvme() && !before.contains(&function.bdf))
        });
        let bdf = function.bdf;
        // The kernel's own driver takes it first.
        match driver {
            Some(driver) => Binder::new().bind(&function, driver).unwrap(),
            None => Binder::new().unbind(&function).unwrap(),
        };
        Self { name, disk, bdf }
    }

    /// Returns its address with a scheme.
    pub fn address(&self, scheme: &str) -> String {
        format!("{scheme}:{}", self.bdf)
    }

    /// Lets it complete only so many commands in a second from now on: those beyond stay in flight.
    ///
    /// # Panics
    /// Panics if the monitor refuses.
    pub fn slow_down(&self, monitor: &mut Monitor, commands: u32) {
        monitor.run(&format!("block_set_io_throttle {} 0 0 0 {commands} 0 0", self.disk));
    }

    /// Takes it away as a person does who presses the button beside the slot: the guest's kernel stops its driver, then it is
    /// gone.
    ///
    /// # Panics
    /// Panics if the monitor refuses.
    pub fn pull(&self, monitor: &mut Monitor) {
        monitor.run(&format!("device_del {}", self.name));
    }

    /// Waits until it is gone.
    ///
    /// # Panics
    /// Panics if it stays for longer than the deadline.
    pub fn wait_until_gone(&self) {
        until("the end of the controller that was taken away", || {
            Function::at(self.bdf).is_err().then_some(())
        });
    }

    /// Injects an error of PCI Express into the port above it, by one of QEMU's names.
    ///
    /// # Panics
    /// Panics if the monitor refuses.
    pub fn inject(&self, monitor: &mut Monitor, error: &str) {
        monitor.run(&format!("pcie_aer_inject_error {SLOT} {error}"));
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        if Function::at(self.bdf).is_err() {
            return;
        }
        if thread::panicking() {
            // The next test needs the slot, but a second panic would end this process.
            let _ = std::panic::catch_unwind(|| self.pull(&mut Monitor::new()));
            return;
        }
        self.pull(&mut Monitor::new());
        self.wait_until_gone();
    }
}

/// Looks until there is a result: the kernel gives no event that a test could wait for.
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + deadline();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {:?}", deadline());
        thread::sleep(Duration::from_millis(10));
    }
}
