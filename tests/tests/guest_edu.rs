//! QEMU's `edu` over the kernel's VFIO: a device that is not an NVMe controller, with a pin and MSI.

use std::{
    env, fs,
    os::fd::AsFd,
    sync::{Arc, Once},
    time::{Duration, Instant},
};
use upcie_core::{
    Failure,
    device::Device,
    dma::Heap,
    irq::{EventFd, IrqKind},
    memory::PageSize,
    mmio::Bar,
    open,
    pci::{Bdf, ConfigSpace, Function, cap, command, offset},
};
use upcie_nvme::Controller;
use upcie_tests::data::Bytes;
use upcie_tests::raw::{write_u32, write_u64};
use upcie_tests::says;

/// This register reads as the complement of the value written.
const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
/// Status: the device computes a factorial; it raises an interrupt at the end.
const COMPUTING: u32 = 1 << 0;
const RAISE_WHEN_DONE: u32 = 1 << 7;
/// Interrupt causes: pending ones, ones to raise, ones to acknowledge.
const CAUSES: u64 = 0x24;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
/// Interrupt causes of a factorial and of a transfer.
const FACTORIAL_DONE: u32 = 1 << 0;
const DMA_DONE: u32 = 1 << 8;
const DMA_SOURCE: u64 = 0x80;
const DMA_TARGET: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
/// DMA command bits: start, towards host memory, interrupt at the end.
const GO: u64 = 1 << 0;
const TO_HOST: u64 = 1 << 1;
const RAISE_AT_END: u64 = 1 << 2;
/// The address of the device's own memory.
const BUFFER: u64 = 0x40000;
/// The limit of the addresses that the device's DMA can reach.
const REACH: u64 = 1 << 28;

/// The deadline of an expected interrupt; everything is emulated.
const LONG: Duration = Duration::from_secs(30);
/// The time in which an unexpected interrupt would come.
const MOMENT: Duration = Duration::from_millis(100);

struct Edu {
    device: Arc<dyn Device>,
    bar: Bar,
}

impl Edu {
    fn open() -> Self {
        assert_eq!(env::var("UPCIE_GUEST").as_deref(), Ok("1"), "guest_ suites run in the guest only");
        let bdf: Bdf = env::var("UPCIE_TEST_EDU").expect("the guest's edu").parse().unwrap();
        static BIND: Once = Once::new();
        BIND.call_once(|| {
            let function = Function::at(bdf).unwrap();
            if function.driver.is_none() {
                fs::write(function.path.join("driver_override"), "vfio-pci").unwrap();
                fs::write("/sys/bus/pci/drivers_probe", bdf.to_string()).unwrap();
            }
            assert_eq!(Function::at(bdf).unwrap().driver.as_deref(), Some("vfio-pci"));
        });
        let device = open(&format!("vfio:{bdf}").parse().unwrap()).unwrap();
        let bar = device.bar(0).unwrap();
        let edu = Self { device, bar };
        // A test leaves the device without a reset: clear its state.
        edu.write(STATUS, 0);
        edu.write(ACKNOWLEDGE, !0);
        assert_eq!(edu.read(CAUSES), 0);
        edu
    }

    fn read(&self, at: u64) -> u32 {
        self.bar.read_u32(at).unwrap()
    }

    fn write(&self, at: u64, value: u32) {
        write_u32(&self.bar, at, value).unwrap();
    }

    /// Makes an eventfd and connects it to the only interrupt of a kind.
    fn wire(&self, kind: IrqKind) -> EventFd {
        let event = EventFd::new().unwrap();
        self.device.set_irqs(kind, &[event.as_fd()]).unwrap();
        event
    }

    fn unmask(&self) {
        self.device.mask_irq(IrqKind::Intx, 0, false).unwrap();
    }

    /// Moves `count` bytes and waits for the interrupt at the end.
    fn transfer(&self, from: u64, to: u64, count: u64, direction: u64, done: &EventFd) {
        write_u64(&self.bar, DMA_SOURCE, from).unwrap();
        write_u64(&self.bar, DMA_TARGET, to).unwrap();
        write_u64(&self.bar, DMA_COUNT, count).unwrap();
        write_u64(&self.bar, DMA_COMMAND, GO | direction | RAISE_AT_END).unwrap();
        once(done);
        assert_eq!(self.read(CAUSES), DMA_DONE);
        self.write(ACKNOWLEDGE, DMA_DONE);
    }
}

#[track_caller]
fn once(event: &EventFd) {
    assert!(event.wait(LONG).unwrap(), "no interrupt");
    assert_eq!(event.take().unwrap(), 1);
}

#[track_caller]
fn never(event: &EventFd) {
    assert!(!event.wait(MOMENT).unwrap(), "an interrupt that must not come");
}

/// An address of an NVMe controller names it by mistake: advice to bind it would be wrong.
#[test]
fn it_is_no_nvme_controller_by_any_transport() {
    let edu = env::var("UPCIE_TEST_EDU").expect("the guest's edu");
    let function = Function::at(edu.parse().unwrap()).unwrap();
    let class = fs::read_to_string(function.path.join("class")).unwrap();
    let class = format!("its class is {}", class.trim().trim_start_matches("0x"));
    for scheme in ["", "vfio:", "iommufd:", "noiommu:", "uio:", "sysfs:"] {
        let error = Controller::open(format!("{scheme}{edu}")).expect_err("it opens");
        says(&error, &[&edu, &class, "an NVMe controller's 0108xx"]);
        assert!(!error.to_string().contains("devbind"), "{error}");
    }
    assert_eq!(Function::at(function.bdf).unwrap().driver, function.driver, "it is as it was");
}

#[test]
fn edu_has_a_pin_and_a_message() {
    let edu = Edu::open();
    assert_eq!(edu.device.config_u32(offset::VENDOR).unwrap(), 0x11e8_1234);
    assert!(edu.device.find_capability(cap::MSI).unwrap().is_some());
    for (kind, count) in [(IrqKind::Intx, 1), (IrqKind::Msi, 1), (IrqKind::Msix, 0)] {
        assert_eq!(edu.device.irq_count(kind).unwrap(), count, "{kind}");
    }
    assert_eq!(edu.device.command().unwrap() & 6, command::MEMORY | command::BUS_MASTER);
}

#[test]
fn registers_are_read_and_written() {
    let edu = Edu::open();
    assert_eq!((edu.bar.size(), edu.bar.areas().len()), (1 << 20, 1), "mapped as a whole");
    assert_eq!(edu.read(0) & 0xffff, 0x00ed, "its identification");
    for value in [0, !0, 0x1234_5678] {
        edu.write(LIVENESS, value);
        assert_eq!(edu.read(LIVENESS), !value);
    }
    edu.write(FACTORIAL, 10);
    let end = Instant::now() + LONG;
    while edu.read(STATUS) & COMPUTING != 0 {
        assert!(Instant::now() < end, "it computes for ever");
    }
    assert_eq!(edu.read(FACTORIAL), 3_628_800);
}

#[test]
fn the_pin_fires_until_it_is_acknowledged() {
    let edu = Edu::open();
    let event = edu.wire(IrqKind::Intx);
    never(&event);
    for _ in 0..3 {
        edu.write(RAISE, 1);
        once(&event);
        edu.write(RAISE, 2);
        never(&event);
        edu.unmask();
        once(&event);
        edu.write(ACKNOWLEDGE, 1);
        edu.unmask();
        once(&event);
        edu.write(ACKNOWLEDGE, 2);
        edu.unmask();
        never(&event);
    }
    // A cause that is raised while the pin is masked fires on unmasking, unless it has been acknowledged by
    // then.
    edu.device.mask_irq(IrqKind::Intx, 0, true).unwrap();
    edu.write(RAISE, 4);
    never(&event);
    edu.unmask();
    once(&event);
    edu.write(ACKNOWLEDGE, 4);
    edu.unmask();
    edu.device.mask_irq(IrqKind::Intx, 0, true).unwrap();
    edu.write(RAISE, 8);
    edu.write(ACKNOWLEDGE, 8);
    edu.unmask();
    never(&event);
    // The pin is driven before it is connected. Only the interrupt controller decides whether that alone
    // fires (QEMU's does not): unmasking checks the pin.
    edu.device.set_irqs(IrqKind::Intx, &[]).unwrap();
    edu.write(RAISE, 1);
    never(&event);
    let event = edu.wire(IrqKind::Intx);
    edu.device.mask_irq(IrqKind::Intx, 0, true).unwrap();
    event.take().unwrap();
    edu.unmask();
    once(&event);
    edu.write(ACKNOWLEDGE, 1);
}

#[test]
fn a_message_is_sent_for_each_cause() {
    let edu = Edu::open();
    let event = edu.wire(IrqKind::Msi);
    for cause in 0..4 {
        edu.write(RAISE, 1 << cause);
        once(&event);
    }
    edu.write(ACKNOWLEDGE, 15);
    never(&event);
    let two = [event.as_fd(), event.as_fd()];
    let error = edu.device.set_irqs(IrqKind::Msi, &two).unwrap_err();
    says(&error, &[edu.device.name(), "2 MSI", "has 1"]);
    let error = edu.device.mask_irq(IrqKind::Msi, 0, true).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
    edu.write(STATUS, RAISE_WHEN_DONE);
    edu.write(FACTORIAL, 5);
    once(&event);
    assert_eq!((edu.read(CAUSES), edu.read(FACTORIAL)), (FACTORIAL_DONE, 120));
    edu.write(ACKNOWLEDGE, FACTORIAL_DONE);
}

#[test]
fn interrupt_kinds_are_used_one_at_a_time() {
    let edu = Edu::open();
    for _ in 0..3 {
        let pin = edu.wire(IrqKind::Intx);
        let message = EventFd::new().unwrap();
        let error = edu.device.set_irqs(IrqKind::Msi, &[message.as_fd()]).unwrap_err();
        says(&error, &["only one of INTx, MSI and MSI-X"]);
        edu.write(RAISE, 1);
        once(&pin);
        edu.write(ACKNOWLEDGE, 1);
        edu.device.set_irqs(IrqKind::Intx, &[]).unwrap();
        edu.device.set_irqs(IrqKind::Msi, &[message.as_fd()]).unwrap();
        edu.write(RAISE, 1);
        once(&message);
        never(&pin);
        edu.write(ACKNOWLEDGE, 1);
        edu.device.set_irqs(IrqKind::Msi, &[]).unwrap();
        never(&message);
    }
}

#[test]
fn memory_goes_to_the_device_and_back() {
    const LEN: usize = 2048;
    let edu = Edu::open();
    let heap = Heap::new(edu.device.dma(), Some(PageSize::Small), None);
    let (mut there, back) = (heap.alloc(LEN).unwrap(), heap.alloc(LEN).unwrap());
    for buffer in [&there, &back] {
        let end = buffer.iova(0) + LEN as u64;
        assert!(end <= REACH, "low addresses are given first: {end:#x}");
    }
    there.bytes_mut().iter_mut().zip(0_u32..).for_each(|(byte, at)| *byte = (at * 7 + at / 256) as u8);
    let event = edu.wire(IrqKind::Msi);
    edu.transfer(there.iova(0), BUFFER, LEN as u64, 0, &event);
    edu.transfer(BUFFER, back.iova(0), LEN as u64, TO_HOST, &event);
    assert_eq!(there.to_vec(), back.to_vec());
    assert!(back.to_vec().iter().any(|&byte| byte != 0));
}
