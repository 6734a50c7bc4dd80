//! Devices without an IOMMU, through sysfs and uio_pci_generic: what works, what is refused, and when memory
//! is freed.

mod vfio_device;

use std::{
    env, fs,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    time::Duration,
};
use upcie_core::{
    Error, Failure,
    device::{Address, Device},
    hugetlb::leftovers,
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    mmio::Caching,
    open,
    pci::{Bdf, Binder, ConfigSpace, Function, command, offset},
    uio::UioDevice,
};
use upcie_nvme::{Controller, QueuePair};
use upcie_tests::raw::{reset, set_config_u16};
use upcie_tests::{
    deadline,
    pci::kernel_disk,
    process::{Process, again, faults, role},
    says,
};
use vfio_device::identify;

const BDF: &str = "0000:01:00.0";
const OTHER: &str = "0000:02:00.0";
const UIO: &str = "uio_pci_generic";

fn bdf() -> Bdf {
    BDF.parse().unwrap()
}

fn function() -> Function {
    Function::at(bdf()).unwrap()
}

/// Binds the function to the driver of a scheme.
fn prepare(scheme: &str) -> Address {
    bind(BDF, if scheme == "uio" { Some(UIO) } else { None });
    format!("{scheme}:{BDF}").parse().unwrap()
}

fn bind(bdf: &str, driver: Option<&str>) {
    let function = Function::at(bdf.parse().unwrap()).unwrap();
    match driver {
        Some(driver) => Binder::new().bind(&function, driver).unwrap(),
        None => Binder::new().unbind(&function).unwrap(),
    }
}

fn command_register() -> u16 {
    function().config().unwrap().command().unwrap()
}

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

#[test]
fn memory_is_physical_and_huge_or_refused() {
    let device = open(&prepare("sysfs")).unwrap();
    let queues = device.dma().allocate(8192, None).unwrap();
    assert_eq!(queues.len(), 2 << 20);
    assert_eq!(queues.iova(0) % (2 << 20), 0);
    let named: Vec<_> = leftovers().unwrap().into_iter().filter(|file| file.bdf == bdf()).collect();
    assert_eq!(named.len(), 1, "a file that outlives this process: {named:?}");
    // A memory file of several pages.
    let memory = Memory::new(6 << 20, PageSize::Huge2M).unwrap();
    let data = device.dma().map(memory).unwrap();
    for page in 0..3 {
        assert_eq!(data.iova((page << 21) + 17) % (2 << 20), 17);
    }
    data.verify().unwrap();
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    let small = device.dma().map(Memory::new(4096, PageSize::Small).unwrap()).unwrap_err();
    says(&small, &["4 KiB", "hugepages setup"]);
    says(&device.dma().allocate(4096, Some(PageSize::Small)).unwrap_err(), &["4 KiB"]);
    let too_much = device.dma().allocate(1 << 40, None).unwrap_err();
    assert!(matches!(too_much.failure(), Failure::Memory { .. }), "{too_much}");
}

#[test]
fn memory_freed_early_is_reused_and_freed_at_the_close() {
    let free = || PageSize::Huge2M.available().unwrap().0;
    let before = free();
    let device = open(&prepare("sysfs")).unwrap();
    let first = device.dma().allocate(2 << 20, None).unwrap();
    let address = first.iova(0);
    // SAFETY: the bytes are the region's, and no device knows them.
    unsafe { first.as_ptr().write_bytes(7, 2 << 20) };
    drop(first);
    assert_eq!(free(), before - 1, "the device may still write to it");
    for _ in 0..1000 {
        let region = device.dma().allocate(2 << 20, None).unwrap();
        assert_eq!(region.iova(0), address);
        // SAFETY: the byte is the region's, and no device knows it.
        assert_eq!(unsafe { region.as_ptr().wrapping_add(4096).read() }, 0, "zeroed");
    }
    drop(device);
    assert_eq!(free(), before);
    assert!(leftovers().unwrap().is_empty());
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
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    event.take().unwrap();
    for _ in 0..3 {
        identify(&*device, &queues, &data);
        assert!(event.wait(deadline()).unwrap());
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
fn two_devices_share_one_space() {
    bind(OTHER, None);
    let device = open(&prepare("sysfs")).unwrap();
    let other = device.open_beside(&format!("sysfs:{OTHER}").parse().unwrap()).unwrap();
    assert_eq!(device.dma().id(), other.dma().id());
    let queues = device.dma().allocate(8192, None).unwrap();
    let data = device.dma().allocate(4096, None).unwrap();
    assert_eq!(identify(&*device, &queues, &data), "LABA");
    assert_eq!(identify(&*other, &queues, &data), "LABB");
    // Both devices may write to all of it, so it has a file for each.
    let names = || leftovers().unwrap().iter().map(|file| file.bdf.to_string()).collect::<Vec<_>>();
    assert_eq!(names(), [BDF, BDF, OTHER, OTHER]);
    drop(other);
    assert_eq!(names(), [BDF, BDF]);
    let other =
        device.open_beside(&format!("sysfs:{OTHER}").parse().unwrap()).expect("closed, so not in use");
    assert_eq!(names(), [BDF, BDF, OTHER, OTHER], "what was there before has its name, too");
    assert_eq!(identify(&*other, &queues, &data), "LABB");
    drop(device);
    assert_eq!(names(), [OTHER, OTHER]);
    drop(open(&prepare("sysfs")).expect("closed, so not in use"));
    assert_eq!(identify(&*other, &queues, &data), "LABB", "its own bus master bit is still on");
    drop(other);
    drop((queues, data));
    assert!(leftovers().unwrap().is_empty());
    let vfio: Address = format!("vfio:{OTHER}").parse().unwrap();
    let device = open(&prepare("sysfs")).unwrap();
    assert!(
        matches!(device.open_beside(&vfio), Err(error) if matches!(error.failure(), Failure::Unsupported { .. }))
    );
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
    assert_eq!(identify(&device, &queues, &data), "LABA");
    assert!(event.wait(deadline()).unwrap(), "interrupts are still on");
}

/// Keeps a queue busy until killed.
fn load(address: &Address) -> ! {
    let controller = Controller::open(address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue: QueuePair<u64> = controller.queue_pair().depth(64).create().unwrap();
    for round in 0_u64.. {
        let mut turn = queue.turn().unwrap();
        for done in turn.by_ref() {
            done.into_parts().1.unwrap();
        }
        while turn.room() > 0 {
            let buffer = controller.alloc(16384).unwrap();
            turn.read(&namespace, round % 1024, buffer, round).unwrap();
        }
        if round == 1000 {
            println!("under load");
        }
    }
    unreachable!()
}

#[test]
fn memory_of_a_killed_process_is_freed_off_the_bus() {
    const NAME: &str = "memory_of_a_killed_process_is_freed_off_the_bus";
    if let Some(address) = role() {
        load(&address.parse().unwrap());
    }
    let free = || PageSize::Huge2M.available().unwrap().0;
    let before = free();
    let address = prepare("sysfs");
    let mut child = Process::start(again(NAME, &address.to_string()));
    child.wait_for("under load").unwrap();
    child.kill();
    // The device is not stopped: memory that it may write to stays unused.
    assert_ne!(command_register() & command::BUS_MASTER, 0);
    let left = leftovers().unwrap();
    assert!(
        !left.is_empty() && left.iter().all(|file| file.bdf == bdf() && file.pid == child.id()),
        "{left:?}"
    );
    let kept: u64 = left.iter().map(|file| file.bytes >> 21).sum();
    assert_eq!(free(), before - kept);
    // Fill all other memory with bytes that only this process writes.
    let rest = Memory::new((free() as usize) << 21, PageSize::Huge2M).unwrap();
    // SAFETY: the bytes are the mapping's, and nobody else uses them.
    unsafe { rest.as_ptr().write_bytes(0xa5, rest.len()) };
    // The kernel's driver takes the device over, with any DMA that it still does, and uses it.
    bind(BDF, Some("nvme"));
    let disk = kernel_disk(bdf(), 1);
    let disk = disk.display();
    let output =
        Command::new("dd").args([&format!("if={disk}"), "of=/dev/null", "bs=1M", "count=16"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the slice is the mapping, and nothing in this process writes to it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(rest.as_ptr(), rest.len()) };
    assert!(bytes.iter().all(|&byte| byte == 0xa5), "the device wrote into somebody else's memory");
    drop(rest);
    // The kernel's driver uses the bus now: the memory is released after it has left.
    let release = |says: &str, code: i32| {
        let tool = std::path::Path::new(&env::var_os("UPCIE_BIN").unwrap()).join("hugepages");
        let output = Command::new(tool).arg("release").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(says), "{text}");
    };
    release("bus", 1);
    assert_eq!(leftovers().unwrap().len(), left.len());
    bind(BDF, None);
    // The kernel counts the users that enabled a function. The killed process was one, so the function is
    // still on the bus.
    release("/reset", 1);
    fs::write(function().path.join("reset"), "1").unwrap();
    release(BDF, 0);
    assert!(leftovers().unwrap().is_empty());
    assert_eq!(free(), before);
    // The same again, and now the next open frees the memory.
    let mut child = Process::start(again(NAME, &address.to_string()));
    child.wait_for("under load").unwrap();
    child.kill();
    assert!(!leftovers().unwrap().is_empty());
    let controller = Controller::open(&address).unwrap();
    assert!(leftovers().unwrap().iter().all(|file| file.pid == std::process::id()));
    drop(controller);
    assert_eq!(free(), before);
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
