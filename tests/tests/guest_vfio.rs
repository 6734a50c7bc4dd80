//! Devices over the kernel's VFIO: opening, what they show, memory, interrupts, reset, closing, and each refusal.

use std::{
    env, fs,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};
use upcie_core::{
    Error, barrier,
    dma::Region,
    irq::{EventFd, IrqKind},
    memory::{Memory, PageSize},
    pci::{Bdf, ConfigSpace, Function, cap, command, ext_cap, functions, offset},
    transport::{Device, open},
    vfio::VfioDevice,
};

const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
/// Set in a test's own process when it runs itself again in another role.
const ROLE: &str = "UPCIE_TEST_ROLE";

/// The functions that the guest hands to these suites.
fn addresses() -> Vec<String> {
    assert_eq!(env::var("UPCIE_GUEST").as_deref(), Ok("1"), "guest_ suites run in the guest only");
    env::var("UPCIE_TEST_DEVICES").unwrap().split(',').map(str::to_owned).collect()
}

fn bdf(index: usize) -> Bdf {
    addresses()[index].parse().unwrap()
}

fn group_node(bdf: Bdf) -> PathBuf {
    let group = Function::at(bdf).unwrap().iommu_group.expect("a group");
    Path::new("/dev/vfio").join(group.number.to_string())
}

/// Why `index` does not open.
fn refusal(index: usize) -> String {
    VfioDevice::open(bdf(index)).expect_err("it opens").to_string()
}

fn contains_all(text: &str, parts: &[&str]) {
    println!("{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// The role that this process was started in by [`again`].
fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs one of these tests in a process of its own, in a role; as a plain user if asked.
fn again(test: &str, role: &str, plain_user: bool) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    if plain_user {
        command.uid(1000).gid(1000);
    }
    command.output().unwrap()
}

fn expect_success(output: &Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn wait_ready(device: &dyn Device, ready: u32) {
    let bar = device.bar(0).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while bar.read_u32(CSTS).unwrap() & 1 != ready {
        assert!(Instant::now() < end, "CSTS.RDY does not become {ready}");
        sleep(Duration::from_millis(1));
    }
}

/// Has the controller write its identify data into `data` by DMA, and raise vector 0; its serial number.
fn identify(device: &dyn Device, queues: &Region, data: &Region) -> String {
    let bar = device.bar(0).unwrap();
    bar.write_u32(CC, 0).unwrap();
    wait_ready(device, 0);
    let status = queues.as_ptr().wrapping_add(4096 + 12).cast::<u32>();
    // SAFETY: within the region's second page, aligned. The queues start over: what is left there is stale.
    unsafe { status.write_volatile(0) };
    bar.write_u32(0x24, 15 << 16 | 15).unwrap();
    bar.write_u64(0x28, queues.iova(0)).unwrap();
    bar.write_u64(0x30, queues.iova(4096)).unwrap();
    bar.write_u32(CC, 0x0046_0001).unwrap();
    wait_ready(device, 1);
    let mut command = [0u32; 16];
    command[0] = 0x06 | 7 << 16;
    command[6] = data.iova(0) as u32;
    command[7] = (data.iova(0) >> 32) as u32;
    command[10] = 1;
    let queue = queues.as_ptr().cast::<[u32; 16]>();
    // SAFETY: the start of a region of at least two pages.
    unsafe { queue.write_volatile(command) };
    barrier::dma_wmb();
    bar.write_u32(0x1000, 1).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    // SAFETY: as above.
    while unsafe { status.read_volatile() } & 1 << 16 == 0 {
        assert!(Instant::now() < end, "no completion");
    }
    barrier::dma_rmb();
    let serial = data.as_ptr().wrapping_add(4).cast::<[u8; 20]>();
    // SAFETY: within the region; the command has completed.
    let serial = unsafe { serial.read_volatile() };
    bar.write_u32(CC, 0).unwrap();
    wait_ready(device, 0);
    String::from_utf8_lossy(&serial).trim().to_owned()
}

fn map(device: &dyn Device, len: usize, page: PageSize) -> Region {
    device.dma().map(Memory::new(len, page).unwrap()).unwrap()
}

fn bus_master(bdf: Bdf) -> bool {
    Function::at(bdf).unwrap().config().unwrap().command().unwrap() & command::BUS_MASTER != 0
}

#[test]
fn both_functions_open_by_either_address() {
    for address in addresses() {
        for text in [address.clone(), format!("vfio:{address}")] {
            let device = open(&text.parse().unwrap()).unwrap();
            assert_eq!(device.name(), text);
            let bar = device.bar(0).unwrap();
            assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400, "NVMe 1.4");
            let capabilities = bar.read_u64(0).unwrap();
            assert!(capabilities != 0 && capabilities != u64::MAX, "{capabilities:#x}");
            assert_eq!(bar.areas().len(), 1, "mapped as a whole: {bar:?}");
            assert_eq!(bar.areas()[0].mapping.len() as u64, bar.size());
            assert!(matches!(device.bar(1), Err(Error::NotFound { .. })), "the upper half of BAR 0");
            assert!(matches!(device.bar(6), Err(Error::NotFound { .. })));
        }
    }
}

#[test]
fn sysfs_shows_what_vfio_opens() {
    let found: Vec<_> = functions().unwrap().into_iter().filter(Function::is_nvme).collect();
    let names: Vec<_> = found.iter().map(|function| function.bdf.to_string()).collect();
    assert_eq!(names, addresses());
    for function in found {
        assert_eq!(function.driver.as_deref(), Some("vfio-pci"));
        let device = VfioDevice::open(function.bdf).unwrap();
        assert_eq!(function.iommu_group.as_ref().unwrap().number, device.group());
        for bar in function.bars().unwrap() {
            assert_eq!(device.bar(bar.index).unwrap().size(), bar.size, "{bar:?}");
        }
        assert_eq!(device.config_u16(offset::VENDOR).unwrap(), function.vendor);
        assert_eq!(device.config_u16(2).unwrap(), function.device);
    }
}

#[test]
fn sysfs_shows_every_functions_capabilities() {
    let mut extended = Vec::new();
    for function in functions().unwrap() {
        let config = function.config().unwrap();
        assert!(config.capabilities().all(|entry| entry.is_ok()), "{}", function.bdf);
        extended.extend(config.extended_capabilities().map(|entry| entry.unwrap().id));
    }
    assert!(extended.contains(&ext_cap::AER) && extended.contains(&ext_cap::ACS), "{extended:x?}");
}

#[test]
fn configuration_space_has_its_capabilities() {
    for index in 0..2 {
        let device = VfioDevice::open(bdf(index)).unwrap();
        let ids: Vec<_> = device.capabilities().map(|entry| entry.unwrap().id).collect();
        assert!(ids.contains(&cap::MSIX) && ids.contains(&cap::PCIE), "{ids:x?}");
        let extended: Vec<_> = device.extended_capabilities().map(Result::unwrap).collect();
        println!("{}: {ids:x?} {extended:x?}", device.name());
        let command = device.command().unwrap();
        assert_eq!(command & 6, command::MEMORY | command::BUS_MASTER);
        device.set_config_u16(offset::COMMAND, command | command::INTX_DISABLE).unwrap();
        assert_eq!(device.command().unwrap(), command | command::INTX_DISABLE);
        let error = device.config_u32(u16::MAX - 8).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    }
}

#[test]
fn the_iommus_ranges_leave_the_msi_window_out() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let iommu = device.iommu();
    assert!(iommu.ranges.iter().all(|range| !range.contains(&0xfee0_0000)), "{iommu:x?}");
    assert!(iommu.ranges.iter().any(|range| range.contains(&0xff00_0000)), "{iommu:x?}");
    assert_eq!(iommu.smallest_page(), 4096);
    assert_eq!(iommu.page_sizes & 1 << 21, 1 << 21);
    assert!(iommu.mappings_available.unwrap() > 1000);
}

#[test]
fn the_device_reaches_mapped_memory() {
    for (index, serial) in ["LABA", "LABB"].into_iter().enumerate() {
        let device = VfioDevice::open(bdf(index)).unwrap();
        let queues = map(&*device, 8192, PageSize::Small);
        for page in [PageSize::Small, PageSize::Huge2M] {
            let data = map(&*device, 4096, page);
            assert!(device.iommu().ranges.iter().any(|range| range.contains(&data.iova(0))));
            assert_eq!(identify(&*device, &queues, &data), serial, "by {page} pages");
        }
    }
}

#[test]
fn what_is_unmapped_can_be_mapped_again() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let first = map(&*device, 4096, PageSize::Small).iova(0);
    for _ in 0..1000 {
        assert_eq!(map(&*device, 4096, PageSize::Small).iova(0), first, "released and unmapped");
    }
    let huge = map(&*device, 4 << 20, PageSize::Huge2M);
    assert_eq!(huge.iova(0) % (2 << 20), 0);
}

#[test]
fn interrupts_come_as_eventfds() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    assert_eq!(device.irq_count(IrqKind::Msix).unwrap(), 9);
    assert_eq!(device.irq_count(IrqKind::Msi).unwrap(), 0);
    let events: Vec<_> = (0..10).map(|_| EventFd::new().unwrap()).collect();
    let fds: Vec<BorrowedFd<'_>> = events.iter().map(AsFd::as_fd).collect();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    for count in [1, 9, 4] {
        device.set_irqs(IrqKind::Msix, &fds[..count]).unwrap();
        identify(&*device, &queues, &data);
        assert!(events[0].wait(Duration::from_secs(30)).unwrap(), "with {count} set");
        assert_eq!(events[0].take().unwrap(), 1);
    }
    device.set_irqs(IrqKind::Msix, &[]).unwrap();
    device.set_irqs(IrqKind::Msix, &[]).unwrap();
    identify(&*device, &queues, &data);
    assert!(!events[0].wait(Duration::from_millis(100)).unwrap(), "it is off");
    let error = device.set_irqs(IrqKind::Msix, &fds).unwrap_err().to_string();
    contains_all(&error, &["10 MSI-X", "has 9"]);
    let error = device.set_irqs(IrqKind::Msi, &fds[..1]).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn error_and_request_events_can_be_had_beside_the_vectors() {
    let device = VfioDevice::open(bdf(1)).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    for kind in [IrqKind::Error, IrqKind::Request] {
        assert_eq!(device.irq_count(kind).unwrap(), 1, "{kind}");
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
        device.set_irqs(kind, &[]).unwrap();
        device.set_irqs(kind, &[event.as_fd()]).unwrap();
    }
}

#[test]
fn a_removal_is_announced_and_waits_for_the_close() {
    let bdf = bdf(1);
    let remove = Function::at(bdf).unwrap().path.join("remove");
    let device = VfioDevice::open(bdf).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Request, &[event.as_fd()]).unwrap();
    let removal = std::thread::spawn(move || fs::write(remove, "1"));
    assert!(event.wait(Duration::from_secs(30)).unwrap());
    assert_eq!(device.bar(0).unwrap().read_u32(8).unwrap(), 0x0001_0400, "it works until it is closed");
    drop(device);
    removal.join().unwrap().unwrap();
    assert!(matches!(VfioDevice::open(bdf), Err(Error::NotFound { .. })));
    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    bind(bdf, Some("vfio-pci"));
    VfioDevice::open(bdf).unwrap();
}

#[test]
fn the_pin_can_be_masked_and_excludes_the_vectors() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let event = EventFd::new().unwrap();
    assert_eq!(device.irq_count(IrqKind::Intx).unwrap(), 1);
    device.set_irqs(IrqKind::Intx, &[event.as_fd()]).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    device.mask_irq(IrqKind::Intx, 0, true).unwrap();
    device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    for _ in 0..2 {
        identify(&*device, &queues, &data);
        assert!(event.wait(Duration::from_secs(30)).unwrap());
        assert_eq!(event.take().unwrap(), 1, "once: the kernel masks it");
        device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    }
    assert!(matches!(device.mask_irq(IrqKind::Intx, 1, true), Err(Error::Unsupported { .. })));
    assert!(matches!(device.mask_irq(IrqKind::Msix, 0, true), Err(Error::Unsupported { .. })));
    let error = device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap_err().to_string();
    contains_all(&error, &["only one of INTx, MSI and MSI-X"]);
    device.set_irqs(IrqKind::Intx, &[]).unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
}

#[test]
fn reset_stops_the_controller_and_keeps_it_usable() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let bar = device.bar(0).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    bar.write_u32(0x24, 15 << 16 | 15).unwrap();
    bar.write_u64(0x28, queues.iova(0)).unwrap();
    bar.write_u64(0x30, queues.iova(4096)).unwrap();
    bar.write_u32(CC, 0x0046_0001).unwrap();
    wait_ready(&*device, 1);
    device.reset().unwrap();
    assert_eq!((bar.read_u32(CC).unwrap(), bar.read_u32(CSTS).unwrap()), (0, 0));
    assert_eq!(device.command().unwrap() & 6, command::MEMORY | command::BUS_MASTER);
    assert_eq!(identify(&*device, &queues, &data), "LABA");
}

/// Page faults of this process so far that needed no disk.
fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: room for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid value, and the call filled it in.
    unsafe { usage.assume_init() }.ru_minflt
}

#[test]
fn mapped_registers_are_present_before_their_first_use() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let bar = device.bar(0).unwrap();
    for round in ["mapped", "reset"] {
        let registers: Vec<_> =
            (0..bar.size()).step_by(4096).map(|page| bar.register::<u32>(page).unwrap()).collect();
        faults();
        let before = faults();
        for register in &registers {
            register.read();
        }
        assert_eq!(faults() - before, 0, "after it was {round}");
        device.reset().unwrap();
    }
}

#[test]
fn closing_sets_the_bus_master_bit_back() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    assert!(bus_master(bdf(0)));
    // It holds the device's file, so that the kernel has no reason to clean up by itself.
    let bar = device.bar(0).unwrap();
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    drop(device);
    assert!(!bus_master(bdf(0)));
    assert_eq!(bar.read_u32(8).unwrap(), 0x0001_0400, "a BAR outlives the device");
    drop(bar);
    VfioDevice::open(bdf(0)).unwrap();
}

#[test]
fn memory_outlives_the_device() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let region = map(&*device, 4096, PageSize::Small);
    drop(device);
    contains_all(&refusal(0), &["in use by this process"]);
    drop(region);
    VfioDevice::open(bdf(0)).unwrap();
}

#[test]
fn a_forked_child_leaves_the_device_alone() {
    let device = VfioDevice::open(bdf(0)).unwrap();
    let queues = map(&*device, 8192, PageSize::Small);
    let data = map(&*device, 4096, PageSize::Small);
    let event = EventFd::new().unwrap();
    device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
    let weak = Arc::downgrade(&device);
    // SAFETY: the child only drops its handles and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((device, queues, data));
        let code = i32::from(weak.upgrade().is_some());
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child dropped its last handle");
    assert!(bus_master(bdf(0)));
    assert_eq!(identify(&*device, &queues, &data), "LABA", "memory is still mapped");
    assert!(event.wait(Duration::from_secs(30)).unwrap(), "interrupts are still on");
}

#[test]
fn every_descriptor_is_closed_on_exec() {
    const CLOEXEC: u32 = 0o2000000;
    let device = VfioDevice::open(bdf(0)).unwrap();
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if !target.contains("vfio") {
            continue;
        }
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = u32::from_str_radix(flags, 8).unwrap();
        assert_eq!(flags & CLOEXEC, CLOEXEC, "{target}");
        seen.push(target);
    }
    assert!(seen.len() >= 3, "container, group and device: {seen:?}");
    drop(device);
}

#[test]
fn a_device_in_use_says_by_whom() {
    const NAME: &str = "a_device_in_use_says_by_whom";
    if let Some(holder) = role() {
        contains_all(&refusal(0), &["in use by process", &holder]);
        return;
    }
    let device = VfioDevice::open(bdf(0)).unwrap();
    contains_all(&refusal(0), &["in use by this process"]);
    expect_success(&again(NAME, &std::process::id().to_string(), false));
    drop(device);
    VfioDevice::open(bdf(0)).unwrap();
}

#[test]
fn an_unknown_function_is_not_found() {
    for text in ["0000:3f:00.0", "vfio:0000:3f:00.0"] {
        let error = open(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

/// Binds a function to a driver, or to none.
fn bind(bdf: Bdf, driver: Option<&str>) {
    let path = Function::at(bdf).unwrap().path;
    if path.join("driver").exists() {
        fs::write(path.join("driver/unbind"), bdf.to_string()).unwrap();
    }
    if let Some(driver) = driver {
        fs::write(path.join("driver_override"), driver).unwrap();
        fs::write("/sys/bus/pci/drivers_probe", bdf.to_string()).unwrap();
        assert_eq!(Function::at(bdf).unwrap().driver.as_deref(), Some(driver));
    }
}

#[test]
fn another_driver_or_none_says_how_to_bind_the_right_one() {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            bind(bdf(1), Some("vfio-pci"));
        }
    }
    let _restore = Restore;
    bind(bdf(1), None);
    contains_all(&refusal(1), &["no driver is bound", "driver_override", "drivers_probe"]);
    bind(bdf(1), Some("nvme"));
    for address in [addresses()[1].clone(), format!("vfio:{}", addresses()[1])] {
        let error = open(&address.parse().unwrap()).unwrap_err().to_string();
        contains_all(&error, &["bound to the kernel's own driver, nvme", "driver/unbind", "unmount"]);
    }
}

#[test]
fn a_plain_user_needs_the_node_and_a_limit_on_locked_memory() {
    const NAME: &str = "a_plain_user_needs_the_node_and_a_limit_on_locked_memory";
    match role().as_deref() {
        Some("stranger") => {
            let error = refusal(0);
            return contains_all(&error, &["no permission", "belongs to root:root", "chown user", "udev"]);
        }
        Some("owner") => {
            let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
            // SAFETY: reads the limits given.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }, 0);
            let device = VfioDevice::open(bdf(0)).unwrap();
            let queues = map(&*device, 8192, PageSize::Small);
            let data = map(&*device, 4096, PageSize::Small);
            assert_eq!(identify(&*device, &queues, &data), "LABA");
            let event = EventFd::new().unwrap();
            device.set_irqs(IrqKind::Msix, &[event.as_fd()]).unwrap();
            let error = device.dma().map(Memory::new(2 << 20, PageSize::Small).unwrap()).unwrap_err();
            let error = error.to_string();
            contains_all(&error, &["RLIMIT_MEMLOCK", "1048576", "12288 are locked", "2097152", "ulimit -l"]);
            map(&*device, 512 << 10, PageSize::Small);
            return;
        }
        _ => {}
    }
    let node = group_node(bdf(0));
    std::os::unix::fs::chown(&node, Some(0), Some(0)).unwrap();
    expect_success(&again(NAME, "stranger", true));
    std::os::unix::fs::chown(&node, Some(1000), Some(1000)).unwrap();
    expect_success(&again(NAME, "owner", true));
    std::os::unix::fs::chown(&node, Some(0), Some(0)).unwrap();
}
