//! Memory of devices without an IOMMU: its pages, its sharing, and the time at which it is freed.

mod direct;
mod vfio_device;

use direct::{BDF, OTHER, bdf, bind, command_register, function, prepare};
use std::{env, fs, process::Command};
use upcie_core::{
    Failure,
    device::Address,
    hugetlb::leftovers,
    memory::{Memory, PageSize},
    open,
    pci::command,
};
use upcie_nvme::{Controller, QueuePair};
use upcie_tests::{
    pci::kernel_disk,
    process::{Process, again, role},
    says,
};
use vfio_device::identify;

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
