//! Devices without an IOMMU, through sysfs and uio_pci_generic: opening, refusals, interrupts, registers, loss.

mod direct;
mod vfio_device;

use direct::{BDF, UIO, bind, command_register, function, prepare};
use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};
use upcie_core::{
    Error, Failure,
    device::{Address, Device},
    hugetlb::leftovers,
    irq::{EventFd, IrqKind},
    mmio::Caching,
    open,
    pci::{Binder, command, offset},
    uio::UioDevice,
};
use upcie_tests::raw::{reset, set_config_u16};
use upcie_tests::{
    deadline,
    process::{Process, again, faults, role},
    says,
};
use vfio_device::{identify, identify_until};

fn refused(address: &Address) -> Error {
    open(address).expect_err("it opens")
}

#[test]
fn an_open_function_is_on_the_bus_and_a_closed_one_is_not() {
    for scheme in ["uio", "sysfs"] {
        let address = prepare(scheme);
        let device = open(&address).unwrap();
        assert_eq!(device.name(), address.to_string());
        assert_eq!(command_register() & 6, command::MEMORY | command::BUS_MASTER);
        assert!(device.dma().is_physical());
        let bar = device.bar(0).unwrap();
        assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400, "NVMe 1.4");
        assert_eq!(bar.bus_address(), Some(function().bars().unwrap()[0].base));
        assert!(
            matches!(device.bar(1), Err(error) if matches!(error.failure(), Failure::NotFound { .. })),
            "the upper half of BAR 0"
        );
        assert!(matches!(device.bar(6), Err(error) if matches!(error.failure(), Failure::NotFound { .. })));
        drop((device, bar));
        assert_eq!(command_register() & command::BUS_MASTER, 0);
        assert_eq!(command_register() & command::INTX_DISABLE, command::INTX_DISABLE);
        open(&address).expect("again");
    }
}

#[test]
fn the_bound_driver_chooses_the_transport() {
    bind(BDF, Some(UIO));
    let device = open(&BDF.parse().unwrap()).unwrap();
    assert_eq!(device.name(), format!("uio:{BDF}"));
    drop(device);
    bind(BDF, None);
    says(&refused(&BDF.parse().unwrap()), &["no IOMMU translates"]);
}

#[test]
fn the_wrong_driver_is_refused_with_advice() {
    prepare("sysfs");
    let address: Address = format!("uio:{BDF}").parse().unwrap();
    says(&refused(&address), &[BDF, "no driver is bound", "devbind bind uio_pci_generic"]);
    bind(BDF, Some("nvme"));
    says(&refused(&address), &["nvme", "unmount"]);
    let address: Address = format!("sysfs:{BDF}").parse().unwrap();
    says(&refused(&address), &["nvme", "devbind unbind"]);
    bind(BDF, None);
}

/// Tries to open the device in a child without a capability; returns the error.
fn without(capability: u32, address: &Address) -> String {
    let mut child = again("without_a_capability_the_error_names_it", &format!("{capability} {address}"));
    child.stdin(std::process::Stdio::null());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.split_once("refused: ").map(|(_, rest)| rest.to_owned()));
    line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Drops a capability of this thread, as capset(2) describes.
fn drop_capability(capability: u32) {
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: the third version's header and sets, with room for both words of each.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) }, 0);
    for set in &mut sets[..2] {
        *set &= !(1 << capability);
    }
    // SAFETY: the third version's header and sets; the kernel only reads them.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }, 0);
}

#[test]
fn without_a_capability_the_error_names_it() {
    const SYS_ADMIN: u32 = 21;
    if let Some(role) = role() {
        let (capability, address) = role.split_once(' ').unwrap();
        drop_capability(capability.parse().unwrap());
        let device = open(&address.parse().unwrap());
        let error = device.and_then(|device| device.dma().allocate(1 << 21, None)).expect_err("it works");
        println!("refused: {error:?}");
        return;
    }
    // Physical addresses need CAP_SYS_ADMIN, and so does `enable`.
    let text = without(SYS_ADMIN, &prepare("uio"));
    assert!(text.contains("CAP_SYS_ADMIN") && text.contains(BDF), "{text}");
    let text = without(SYS_ADMIN, &prepare("sysfs"));
    assert!(text.contains("CAP_SYS_ADMIN") && text.contains("enable"), "{text}");
}

#[test]
fn a_second_user_is_told_the_holder() {
    const NAME: &str = "a_second_user_is_told_the_holder";
    if let Some(address) = role() {
        let _device = open(&address.parse().unwrap()).unwrap();
        println!("holding");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    for scheme in ["uio", "sysfs"] {
        let address = prepare(scheme);
        let mut holder = Process::start(again(NAME, &address.to_string()));
        holder.wait_for("holding").unwrap();
        says(&refused(&address), &["in use", &format!("process {}", holder.id())]);
        holder.kill();
        open(&address).expect("free again");
    }
    let address = prepare("sysfs");
    let _device = open(&address).unwrap();
    says(&refused(&address), &["this process"]);
}

#[test]
fn the_pin_is_counted_masked_and_armed_again() {
    let device = open(&prepare("uio")).unwrap();
    assert_eq!(device.irq_count(IrqKind::Intx).unwrap(), 1);
    let event = EventFd::new().unwrap();
    let queues = device.dma().allocate(8192, None).unwrap();
    let data = device.dma().allocate(4096, None).unwrap();
    identify(&*device, &queues, &data);
    // QEMU's controller drives the pin on after its reset, so an event may come at once: it is the first one.
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    for _ in 0..3 {
        identify_until(&*device, &queues, &data, || assert!(event.wait(deadline()).unwrap()));
        assert_eq!(event.take().unwrap(), 1, "once: it is masked");
        assert_ne!(command_register() & command::INTX_DISABLE, 0);
        device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    }
    device.set_irqs(IrqKind::Intx, &[]).unwrap();
    // The last unmasking may have found the pin still driven.
    event.take().unwrap();
    identify(&*device, &queues, &data);
    assert!(!event.wait(Duration::from_millis(100)).unwrap(), "it is off");
    for kind in [IrqKind::Msi, IrqKind::Msix, IrqKind::Error] {
        assert_eq!(device.irq_count(kind).unwrap(), 0, "{kind}");
        let error = device.set_irqs(kind, &[event.as_fd()]).unwrap_err();
        assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
    }
    let error = device.mask_irq(IrqKind::Intx, 1, true).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
}

#[test]
fn a_function_without_a_driver_has_no_interrupts() {
    let device = open(&prepare("sysfs")).unwrap();
    assert_eq!(device.irq_count(IrqKind::Intx).unwrap(), 0);
    let event = EventFd::new().unwrap();
    says(&device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap_err(), &["without a driver", "uio:"]);
}

#[test]
fn registers_are_mapped_with_one_caching_at_a_time() {
    let device = open(&prepare("sysfs")).unwrap();
    assert_eq!(device.cachings(0).unwrap(), [Caching::Uncached], "not prefetchable");
    says(
        &device.bar_as(0, Caching::WriteCombining).unwrap_err(),
        &["BAR 0", "write-combining", "prefetchable"],
    );
    assert_eq!(device.cachings(2).unwrap(), [Caching::Uncached, Caching::WriteCombining]);
    let combined = device.bar_as(2, Caching::WriteCombining).unwrap();
    assert_eq!(combined.caching(), Caching::WriteCombining);
    says(&device.bar_as(2, Caching::Uncached).unwrap_err(), &["mapped write-combining already"]);
    drop(combined);
    assert_eq!(device.bar_as(2, Caching::Uncached).unwrap().caching(), Caching::Uncached);
}

#[test]
fn no_access_faults_after_the_open() {
    let device = open(&prepare("sysfs")).unwrap();
    let bars = [device.bar(0).unwrap(), device.bar_as(2, Caching::WriteCombining).unwrap()];
    let data = device.dma().allocate(8 << 20, None).unwrap();
    let registers: Vec<_> = bars
        .iter()
        .flat_map(|bar| (0..bar.size()).step_by(4096).map(|page| bar.register::<u32>(page).unwrap()))
        .collect();
    faults();
    let before = faults();
    for register in &registers {
        register.read();
    }
    for page in (0..data.len()).step_by(4096) {
        // SAFETY: the byte is in the region.
        unsafe { data.as_ptr().wrapping_add(page).read_volatile() };
    }
    assert_eq!(faults() - before, 0);
}

#[test]
fn an_unbound_driver_is_an_error() {
    let address = prepare("uio");
    let device = open(&address).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    let register = device.bar(0).unwrap().register::<u32>(8).unwrap();
    Binder::new().force(true).unbind(&function()).unwrap();
    // The mapping still reads the device's memory, without a fault.
    register.read();
    for error in [
        device.bar(2).unwrap_err(),
        reset(&*device).unwrap_err(),
        set_config_u16(&*device, offset::COMMAND, 0).unwrap_err(),
        device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap_err(),
    ] {
        says(&error, &["its driver was uio_pci_generic", "none now"]);
    }
    drop((device, register));
    open(&prepare("uio")).unwrap();
}

#[test]
fn a_device_that_vanishes_is_an_error() {
    let address = prepare("sysfs");
    let device = open(&address).unwrap();
    fs::write(function().path.join("remove"), "1").unwrap();
    for error in [device.bar(2).unwrap_err(), reset(&*device).unwrap_err()] {
        assert!(matches!(error.failure(), Failure::NotFound { .. } | Failure::Gone { .. }), "{error}");
    }
    assert!(set_config_u16(&*device, offset::COMMAND, 0).is_err());
    assert!(matches!(refused(&address).failure(), Failure::NotFound { .. }));
    drop(device);
    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    open(&prepare("sysfs")).unwrap();
}

#[test]
fn a_forked_child_leaves_the_device_alone() {
    let device = UioDevice::open(prepare("uio").bdf().unwrap()).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    let queues = device.dma().allocate(8192, None).unwrap();
    let data = device.dma().allocate(4096, None).unwrap();
    // SAFETY: the child only drops its handles and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((device, queues, data));
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(leftovers().unwrap().len(), 2, "its files are still there");
    assert_ne!(command_register() & command::BUS_MASTER, 0);
    says(&refused(&format!("uio:{BDF}").parse().unwrap()), &["in use"]);
    let serial = identify_until(&device, &queues, &data, || {
        assert!(event.wait(deadline()).unwrap(), "interrupts are still on");
    });
    assert_eq!(serial, "LABA");
}

#[test]
fn nothing_is_left_open() {
    let address = prepare("uio");
    let count = || fs::read_dir("/proc/self/fd").unwrap().count();
    drop(open(&address).unwrap());
    let before = count();
    for _ in 0..10 {
        let device = open(&address).unwrap();
        let event = EventFd::new().unwrap();
        device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
        let _region = device.dma().allocate(4096, None).unwrap();
        for fd in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let number: i32 = fd.file_name().to_string_lossy().parse().unwrap();
            // SAFETY: a query of flags; the directory's own descriptor may be closed by now, which is an
            // error only.
            let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
            assert!(
                number < 3 || flags == -1 || flags & libc::FD_CLOEXEC != 0,
                "{:?}",
                fs::read_link(fd.path())
            );
        }
        assert!(event.as_fd().as_raw_fd() >= 0);
    }
    assert_eq!(count(), before);
}
