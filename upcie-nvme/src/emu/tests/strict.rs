//! A strict controller: a host that forgets to set a register does not work by luck.

use super::host::Host;
use crate::spec::{Command, Status};
use upcie_core::pci::{ConfigSpace, cap, command, offset};

fn set_command(host: &Host, value: u16) {
    host.set_config_u16(offset::COMMAND, value).unwrap();
}

/// A PCI device is driven as PCI says: no DMA without bus master; commands wait.
#[test]
fn nothing_is_fetched_while_bus_master_is_off() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    let on = host.device.command().unwrap();
    assert_eq!(on & 0x406, command::MEMORY | command::BUS_MASTER | command::INTX_DISABLE, "after open");
    set_command(&host, on & !command::BUS_MASTER);
    queue.put(&Command::flush(1));
    queue.ring();
    queue.silent();
    assert_eq!(host.csts(), 1, "registers answer all the same");
    set_command(&host, on);
    assert_eq!(queue.wait().status(), Status::SUCCESS);
}

#[test]
fn nothing_is_fetched_in_a_low_power_state() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    let at = host.device.find_capability(cap::POWER_MANAGEMENT).unwrap().unwrap();
    host.set_config_u16(at + 4, 3).unwrap();
    queue.put(&Command::flush(1));
    queue.ring();
    queue.silent();
    host.set_config_u16(at + 4, 0).unwrap();
    assert_eq!(queue.wait().status(), Status::SUCCESS);
}

/// A device reset leaves configuration space as after power-on; the client sets it up again.
#[test]
fn after_a_reset_the_client_enables_the_function() {
    let mut host = Host::new("size=1M,vectors=4");
    let irqs = super::interrupts::Irqs::wire(&host, upcie_core::irq::IrqKind::Msix, 4);
    host.reset().unwrap();
    host.enable();
    host.alive();
    irqs.one(0);
    // Function level reset, by the client's back: nobody sets it up again.
    let at = host.device.find_capability(cap::PCIE).unwrap().unwrap();
    host.set_config_u16(at + 8, 0x8000).unwrap();
    assert_eq!(host.device.command().unwrap(), 0);
    assert_eq!((host.csts(), host.bar.read_u32(0x24).unwrap()), (0, 0));
}

#[test]
fn registers_fixed_while_enabled_keep_their_values() {
    let mut host = Host::new("size=1M");
    let cc = host.bar.read_u32(0x14).unwrap();
    let before = [0x24, 0x28, 0x2c, 0x30, 0x34].map(|at| host.bar.read_u32(at).unwrap());
    host.write_u32(0x24, 0x0fff_0fff).unwrap();
    host.write_u64(0x28, 0xdead_0000).unwrap();
    host.write_u64(0x30, 0xdead_0000).unwrap();
    host.write_u32(0x14, cc | 4 << 7 | 1 << 11 | 6 << 4).unwrap();
    assert_eq!([0x24, 0x28, 0x2c, 0x30, 0x34].map(|at| host.bar.read_u32(at).unwrap()), before);
    assert_eq!(host.bar.read_u32(0x14).unwrap(), cc);
    host.alive();
}

#[test]
fn admin_rings_have_to_be_aligned_to_memory_pages() {
    let host = Host::disabled("");
    host.configure(0);
    let asq = host.bar.read_u64(0x28).unwrap();
    host.write_u64(0x28, asq | 0x1000).unwrap();
    // CC.MPS: 64 KiB.
    host.write_u32(0x14, 1 | 4 << 7 | 6 << 16 | 4 << 20).unwrap();
    assert_eq!(host.csts(), 2, "fatal status");
}
