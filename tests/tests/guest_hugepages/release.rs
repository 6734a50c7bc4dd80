//! Memory that a killed process has left behind is released only after its device is off the bus.

use super::{contains_all, controller, fails, free, leave_behind, map, mount, succeeds};
use std::{fs, os::fd::AsFd, path::Path, sync::Arc};
use upcie_core::{
    hugetlb::create_file,
    mmio::{Mapping, Register},
    pci::{ConfigSpace, Function, FunctionLock, command, offset},
};
use upcie_tests::{
    deadline,
    raw::{set_config_u16, write},
    says,
};

fn config() -> impl ConfigSpace {
    Function::at(controller()).expect("a function").config().expect("configuration space")
}

/// Sets bits of the command register. Dropping this clears them again.
struct CommandBits(u16);

impl CommandBits {
    fn on(bits: u16) -> Self {
        let config = config();
        let before = config.command().expect("a command register");
        set_config_u16(&config, offset::COMMAND, before | bits).expect("written");
        assert_eq!(config.command().expect("read") & bits, bits);
        Self(before)
    }
}

impl Drop for CommandBits {
    fn drop(&mut self) {
        set_config_u16(&config(), offset::COMMAND, self.0).expect("written");
    }
}

#[test]
fn memory_of_a_device_on_the_bus_is_not_released() {
    let bits = CommandBits::on(command::BUS_MASTER);
    let left = leave_behind(controller());
    let before = free();
    for arguments in ["release", "release --dry-run", "release 0000:02:00.0"] {
        contains_all(
            &fails(arguments),
            &["not released: 0000:02:00.0", "bus master", "vfio-pci", "devbind unbind"],
        );
        assert!(left.exists());
    }
    contains_all(&succeeds("release 0000:01:00.0"), &["nothing to release"]);
    drop(bits);
    contains_all(&succeeds("release --dry-run"), &["would remove", "off the bus"]);
    assert!(left.exists());
    contains_all(&succeeds("release"), &["removed /dev/hugepages/upcie-0000:02:00.0-", "off the bus"]);
    assert!(!left.exists());
    assert_eq!(free(), before + 1, "the page is back");
}

#[test]
fn force_releases_what_is_not_locked() {
    let _bits = CommandBits::on(command::BUS_MASTER);
    let left = leave_behind(controller());
    let lock = FunctionLock::take(controller()).unwrap();
    let me = std::process::id();
    contains_all(&fails("release --force"), &["in use", &format!("process {me}")]);
    assert!(left.exists());
    says(&FunctionLock::take(controller()).unwrap_err(), &["0000:02:00.0", "this process"]);
    drop(lock);
    contains_all(&succeeds("release --force"), &["forced, although", "bus master"]);
    assert!(!left.exists());
}

#[test]
fn memory_of_a_running_process_is_not_released() {
    let file = create_file(&mount(), controller(), 1).unwrap();
    let mapping = map(&file);
    contains_all(&fails("release"), &[&format!("process {} has", std::process::id()), "end it first"]);
    assert!(file.path().exists());
    drop(mapping);
    succeeds("release");
    assert!(!file.path().exists());
}

#[test]
fn memory_of_a_vanished_device_is_released() {
    let left = leave_behind("0000:7f:00.0".parse().unwrap());
    contains_all(&succeeds("release"), &["removed", "no such device any more"]);
    assert!(!left.exists());
}

#[test]
fn a_device_removed_in_software_is_found_again() {
    let path = Path::new("/sys/bus/pci/devices").join(controller().to_string());
    fs::write(path.join("driver/unbind"), controller().to_string()).unwrap();
    let before = config().command().unwrap();
    // Without a driver, a removal does not take the function off the bus; without memory decode, CC.EN can't
    // be read.
    let on_the_bus = (before | command::BUS_MASTER) & !command::MEMORY;
    set_config_u16(&config(), offset::COMMAND, on_the_bus).unwrap();
    let left = leave_behind(controller());
    fs::write(path.join("remove"), "1").unwrap();
    assert!(!path.exists());
    contains_all(&succeeds("release --dry-run"), &["would be looked for again"]);
    assert!(!path.exists(), "a dry run leaves it so");
    contains_all(&fails("release"), &["not released", "bus master"]);
    assert!(path.exists() && left.exists());
    // The override is gone with the device, so the kernel's driver binds the function, if it is loaded, and
    // takes it off the bus.
    fs::write(path.join("driver_override"), "vfio-pci").unwrap();
    if path.join("driver").exists() {
        fs::write(path.join("driver/unbind"), controller().to_string()).unwrap();
    }
    set_config_u16(&config(), offset::COMMAND, before & !command::BUS_MASTER).unwrap();
    succeeds("release");
    assert!(!left.exists());
    rebind();
}

/// Binds the controller to vfio-pci, which its override names.
fn rebind() {
    fs::write("/sys/bus/pci/drivers_probe", controller().to_string()).unwrap();
    assert_eq!(Function::at(controller()).unwrap().driver.as_deref(), Some("vfio-pci"));
}

#[test]
fn a_controller_without_a_driver_must_be_disabled() {
    let path = Path::new("/sys/bus/pci/devices").join(controller().to_string());
    fs::write(path.join("driver/unbind"), controller().to_string()).unwrap();
    let bits = CommandBits::on(command::BUS_MASTER | command::MEMORY);
    let left = leave_behind(controller());

    let file = fs::OpenOptions::new().read(true).write(true).open(path.join("resource0")).unwrap();
    let registers = Arc::new(Mapping::new(file.as_fd(), 0, 4096, "BAR 0").unwrap());
    let register = |offset| Register::<u32>::new(&registers, offset).expect("in the mapping");
    let (cc, csts) = (register(0x14), register(0x1c));
    let wait_for = |ready: u32| {
        let end = std::time::Instant::now() + deadline();
        while csts.read() & 1 != ready {
            assert!(std::time::Instant::now() < end, "CSTS is {:#x}", csts.read());
            std::thread::yield_now();
        }
    };
    // Configures queues that are never used: no doorbell is rung.
    for (offset, value) in [(0x24, 0x0001_0001), (0x28, 0x1000), (0x2c, 0), (0x30, 0x2000), (0x34, 0)] {
        write(&register(offset), value);
    }
    write(&cc, 0x0046_0001);
    wait_for(1);
    contains_all(&fails("release"), &["its controller is enabled", "/reset"]);
    assert!(left.exists());
    write(&cc, 0x0046_0000);
    wait_for(0);
    contains_all(&succeeds("release"), &["removed", "is disabled"]);
    assert!(!left.exists());

    let left = leave_behind(controller());
    let decode = CommandBits(config().command().unwrap());
    set_config_u16(&config(), offset::COMMAND, decode.0 & !command::MEMORY).unwrap();
    contains_all(&fails("release"), &["memory decode is off"]);
    drop((decode, bits));
    succeeds("release");
    assert!(!left.exists());
    drop(registers);
    rebind();
}
