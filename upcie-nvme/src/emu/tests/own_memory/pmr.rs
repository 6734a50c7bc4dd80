//! The persistent memory region: its registers, what may be in it, and what it outlasts.

use super::{
    super::{
        data::{pattern, transfer},
        host::{Host, PAGE, exact},
        stepped::Stepped,
    },
    Buffer, COVERED, INVALID, SIZE, block, with_clients, with_list,
};
use crate::{
    emu::{FaultPlan, Lockstep, Region},
    spec::{
        AdminCommand, Capabilities, Command, IntoBytes, NSSR_SIGNATURE, PmrCapabilities, PmrStatus, Sanitize,
        SanitizeAction, Status, offset,
    },
};
use upcie_core::{
    device::Device,
    pci::{ConfigSpace, cap},
};

const OPTIONS: &str = "size=1M,pmr=64K";
const BAR: u8 = 5;
/// The offset of lists in the host's data.
const LISTS: usize = 7 << 20;
/// CMSE of PMRMSCL.
const CMSE: u32 = 2;
/// CRE and CMSE of CMBMSC.
const CMB_ON: u64 = 3;
const READY: PmrStatus = PmrStatus::new();

fn read(host: &Host, at: usize) -> u32 {
    host.bar.read_u32(at as u64).unwrap()
}

fn write(host: &Host, at: usize, value: u32) {
    host.write_u32(at as u64, value).unwrap();
}

fn status(host: &Host) -> PmrStatus {
    PmrStatus::from_bits(read(host, offset::PMRSTS))
}

fn set_address(host: &Host, address: u64) {
    write(host, offset::PMRMSCU, (address >> 32) as u32);
    write(host, offset::PMRMSCL, address as u32 | CMSE);
}

/// Enables the region and gives it an address, as a host does.
fn place(host: &Host, address: u64) {
    write(host, offset::PMRCTL, 1);
    set_address(host, address);
    assert_eq!(status(host), READY);
}

fn control(host: &Host) -> [u32; 3] {
    [offset::PMRCTL, offset::PMRMSCL, offset::PMRMSCU].map(|at| read(host, at))
}

#[test]
fn registers_tell_of_the_region() {
    let host = Host::disabled(OPTIONS);
    let capabilities = |host: &Host| Capabilities::from_bits(host.bar.read_u64(offset::CAP as u64).unwrap());
    assert!(capabilities(&host).pmrs() && !capabilities(&host).cmbs());
    let told = PmrCapabilities::from_bits(read(&host, offset::PMRCAP));
    assert!(told.rds() && told.wds() && told.cmss() && told.pmrwbm() != 0);
    assert_eq!((told.bir(), told.timeout().map(|time| time.as_millis())), (BAR, Some(500)));
    assert_eq!([offset::PMREBS, offset::PMRSWTP].map(|at| read(&host, at)), [0, 0]);
    assert_eq!((status(&host), control(&host)), (READY.with_nrdy(true), [0; 3]));
    // Registers that can't be written, and reserved bits.
    for at in (offset::PMRCAP..offset::PMRMSCU + 4).step_by(4) {
        write(&host, at, !0);
    }
    assert_eq!(control(&host), [1, 0xffff_f002, !0]);
    assert_eq!(read(&host, offset::PMRCAP), told.into_bits());
    // The last byte has an address that has another one after it.
    let end = 0_u64.wrapping_sub(SIZE as u64);
    for (address, is_invalid) in
        [(!0xfff, true), (0, false), (end - PAGE as u64, false), (end, true), (1 << 32, false)]
    {
        set_address(&host, address);
        assert_eq!(status(&host), READY.with_cbai(is_invalid), "{address:#x}");
    }
    set_address(&host, end);
    write(&host, offset::PMRCTL, 0);
    assert_eq!(status(&host), READY.with_nrdy(true), "it has no address before it is enabled");

    let without = Host::disabled("size=1M,cmb=64K");
    assert!(!capabilities(&without).pmrs() && without.device.bar(BAR).is_err());
    write(&without, offset::PMRCTL, 1);
    assert_eq!((control(&without), status(&without), read(&without, offset::PMRCAP)), ([0; 3], READY, 0));
}

#[test]
fn data_may_be_in_the_region() {
    for mut host in [Host::new(OPTIONS), Host::with_faults(OPTIONS, &FaultPlan::new(1))] {
        let mut queue = host.queue(1, [8, 8], None);
        let (region, address) = (Buffer::of(&*host.device, BAR), host.iova(COVERED));
        place(&host, address);
        host.set(COVERED, &[0xee; SIZE]);
        let data = pattern(3 * PAGE, 5);
        region.set(PAGE, &data);
        let pages = [address + 2 * PAGE as u64, address + 3 * PAGE as u64];
        host.set(LISTS, pages.as_bytes());
        let pointer = (address + PAGE as u64, host.iova(LISTS));
        assert_eq!(transfer(&mut queue, Command::write(1, 0, 24), pointer), Status::SUCCESS);
        region.set(PAGE, &[0; 3 * PAGE]);
        assert_eq!(transfer(&mut queue, Command::read(1, 0, 24), pointer), Status::SUCCESS);
        assert!(region.bytes(PAGE, 3 * PAGE) == data);
        let by_list = with_list(Command::read(1, 0, 24), block(address + 8 * PAGE as u64, 3 * PAGE));
        assert_eq!(queue.status(by_list), Status::SUCCESS);
        assert!(region.bytes(8 * PAGE, 3 * PAGE) == data);
        assert!(host.bytes(COVERED, SIZE) == [0xee; SIZE], "the host's memory is covered");
        // While the region is disabled the address is the host's.
        write(&host, offset::PMRCTL, 0);
        assert_eq!(transfer(&mut queue, Command::read(1, 0, 1), (address, 0)), Status::SUCCESS);
        assert!(host.bytes(COVERED, 512) == data[..512]);
        write(&host, offset::PMRCTL, 1);
        assert_eq!(transfer(&mut queue, Command::read(1, 1, 1), (address, 0)), Status::SUCCESS);
        assert!(region.bytes(0, 512) == data[512..1024]);
    }
}

#[test]
fn data_is_in_one_of_three_memories() {
    let mut host = Host::new("size=1M,cmb=64K,pmr=64K");
    let mut queue = host.queue(1, [8, 8], None);
    let cmb = host.iova(COVERED);
    host.write_u64(offset::CMBMSC as u64, cmb | CMB_ON).unwrap();
    // A region that would overlap the buffer is not there.
    write(&host, offset::PMRCTL, 1);
    for (distance, is_invalid) in [(0, true), (SIZE - PAGE, true), (SIZE, false)] {
        set_address(&host, cmb + distance as u64);
        assert_eq!(status(&host), READY.with_cbai(is_invalid), "{distance:#x} bytes behind the buffer");
    }
    let pmr = cmb + SIZE as u64;
    let pages = [host.iova(0), cmb, pmr];
    for (first, second) in [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1), (0, 0), (1, 1), (2, 2)] {
        for command in [Command::write(1, 0, 16), Command::read(1, 0, 16)] {
            let status = transfer(&mut queue, command, (pages[first], pages[second]));
            let wanted = if first == second { (Status::SUCCESS, false) } else { INVALID };
            assert_eq!(exact(status), wanted, "{first}, {second}");
        }
    }
    // Adjacent bytes, across the border of the two.
    let border = block(pmr - 512, 1024);
    assert_eq!(exact(queue.status(with_list(Command::read(1, 0, 2), border))), INVALID);
    // A region in the place of the buffer is there once the buffer is not.
    set_address(&host, cmb);
    assert!(status(&host).cbai());
    host.write_u64(offset::CMBMSC as u64, 0).unwrap();
    assert_eq!(status(&host), READY);
    let (region, data) = (Buffer::of(&*host.device, BAR), pattern(512, 3));
    region.set(0, &data);
    assert_eq!(transfer(&mut queue, Command::write(1, 7, 1), (cmb, 0)), Status::SUCCESS);
    assert_eq!(transfer(&mut queue, Command::read(1, 7, 1), (host.iova(0), 0)), Status::SUCCESS);
    assert!(host.bytes(0, 512) == data);
}

#[test]
fn contents_outlast_resets() {
    let mut host = Host::new(OPTIONS);
    let (region, address) = (Buffer::of(&*host.device, BAR), host.iova(COVERED));
    region.set(0, &[7; PAGE]);
    place(&host, address);
    let placed = control(&host);
    host.write_u32(offset::CC as u64, 0).unwrap();
    assert_eq!(control(&host), placed, "a controller reset");
    let at = host.device.find_capability(cap::PCIE).unwrap().unwrap();
    host.set_config_u16(at + 8, 0x8000).unwrap();
    assert_eq!(control(&host), placed, "a function level reset");
    host.write_u32(offset::NSSR as u64, NSSR_SIGNATURE).unwrap();
    assert_eq!(
        (control(&host), status(&host)),
        ([0; 3], READY.with_nrdy(true)),
        "a reset of the NVM subsystem"
    );
    place(&host, address);
    host.reset().unwrap();
    assert_eq!((control(&host), status(&host)), ([0; 3], READY.with_nrdy(true)), "a reset of the device");
    assert!(region.bytes(0, PAGE) == [7; PAGE]);
    // The address leads to the host's memory.
    host.enable();
    let mut queue = host.queue(1, [4, 4], None);
    assert_eq!(transfer(&mut queue, Command::read(1, 0, 1), (address, 0)), Status::SUCCESS);
    assert!(region.bytes(0, PAGE) == [7; PAGE]);
}

#[test]
fn contents_outlast_a_loss_of_power() {
    let device = Lockstep::new(&OPTIONS.parse().unwrap()).unwrap();
    let (region, bar) = (Buffer::of(&*device, BAR), device.bar(0).unwrap());
    region.set(0, &[7; PAGE]);
    // SAFETY: the region is ready without decoding an address.
    unsafe { bar.write_u32(offset::PMRCTL as u64, 1) }.unwrap();
    device.lose_power(&mut || 0);
    assert_eq!(bar.read_u32(offset::PMRCTL as u64).unwrap(), 0);
    assert!(region.bytes(0, PAGE) == [7; PAGE]);
}

/// A client that is gone keeps its mapping, and must neither read nor change what the next one writes.
#[test]
fn contents_outlast_clients_in_memory_of_each() {
    with_clients(OPTIONS, |connect| {
        let mut kept = Vec::new();
        for client in 1..4_u8 {
            let host = connect();
            let region = Buffer::of(&*host.device, BAR);
            assert_eq!((control(&host), region.bytes(5 * PAGE, 8)), ([0; 3], vec![client - 1; 8]));
            kept.iter().for_each(|former: &Buffer| former.set(5 * PAGE, &[0xee; 8]));
            region.set(5 * PAGE, &[client; 8]);
            place(&host, host.iova(COVERED));
            kept.push(region);
        }
        let bytes: Vec<_> = kept.iter().map(|region| region.bytes(5 * PAGE, 1)[0]).collect();
        assert_eq!(bytes, [0xee, 0xee, 3]);
    });
}

#[test]
fn a_sanitize_needs_a_disabled_region_and_erases_it() {
    let mut host = Host::new(OPTIONS);
    let region = Buffer::of(&*host.device, BAR);
    region.set(0, &[7; PAGE]);
    place(&host, host.iova(COVERED));
    let erase = Sanitize::new(SanitizeAction::BLOCK_ERASE).command();
    assert_eq!(exact(host.admin.status(erase)), (Status::SANITIZE_PROHIBITED_PMR, true));
    assert!(region.bytes(0, PAGE) == [7; PAGE]);
    write(&host, offset::PMRCTL, 0);
    assert_eq!(host.admin.status(erase), Status::SUCCESS);
    assert!(region.bytes(0, PAGE) == [0; PAGE]);
}

#[test]
fn hosts_without_a_mapping_use_messages() {
    let mut stepped = Stepped::new(OPTIONS);
    let (machine, memory) = (&mut stepped.machine, &mut stepped.memory);
    machine.write(memory, Region::PersistentMemory, 5, &[1, 2, 3]);
    let mut bytes = [9; 5];
    machine.read(memory, Region::PersistentMemory, 4, &mut bytes);
    assert_eq!(bytes, [0, 1, 2, 3, 0]);
    // This host can't have the region among its memory.
    machine.write(memory, Region::Registers, offset::PMRCTL as u64, &[1, 0, 0, 0]);
    machine.write(memory, Region::Registers, offset::PMRMSCL as u64, &CMSE.to_le_bytes());
    let mut status = [0; 4];
    machine.read(memory, Region::Registers, offset::PMRSTS as u64, &mut status);
    assert_eq!(PmrStatus::from_bits(u32::from_le_bytes(status)), READY.with_cbai(true));
}
