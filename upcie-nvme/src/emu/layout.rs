//! The function's BARs.
//!
//! BAR 0: registers by message in the first 4 KiB, doorbells mapped behind them. BAR 2: the controller memory buffer, mapped.
//! BAR 4: the MSI-X table and its pending bits, by message. BAR 5: the persistent memory region, mapped.

use super::{
    Error, Options, config,
    msix::{MSIX_BAR, pba_offset},
    own_memory::OwnMemory,
};
use std::sync::Arc;
use upcie_core::{
    irq::IrqKind,
    memory::{Memory, PageSize},
    vfio_user::server::{CONFIG_REGION, Layout, Mappable, RegionLayout},
};

/// CAP.DSTRD: doorbells are 32 bytes apart, so that a queue pair has one cache line for its two doorbells and
/// shares it with no other pair.
pub(super) const DSTRD: u8 = 3;
/// The BAR with the registers.
pub(super) const REGISTER_BAR: u32 = 0;
/// The offset of the doorbells in that BAR.
pub(super) const DOORBELLS: u64 = 0x1000;

/// Returns the number of I/O queues of each kind, of so many, that hosts get: with doorbell buffers no more than have their
/// doorbells in the least memory page, beside those of the admin queue.
pub(super) fn fitting_queues(options: &Options, queues: u16) -> u16 {
    let fit = options.mpsmin / (2 * (4_u32 << DSTRD)) - 1;
    if options.dbbuf { queues.min(u16::try_from(fit).unwrap_or(u16::MAX)) } else { queues }
}

/// Returns the offset behind the last doorbell in BAR 0, and the size of the BAR in bytes.
fn extent(options: &Options) -> (u64, u64) {
    let end = DOORBELLS + (u64::from(options.most_queues()) + 1) * 2 * (4 << DSTRD);
    (end, end.max(2 * PageSize::Small.bytes() as u64).next_power_of_two())
}

/// Makes memory for the doorbells, which has each at its offset in BAR 0. It is shared with a host, which writes to it at any
/// time, also after its session: each host gets other memory.
pub(super) fn doorbells(options: &Options) -> Result<Arc<Memory>, Error> {
    let (_, size) = extent(options);
    Ok(Arc::new(Memory::new(size as usize, PageSize::Small)?.shared()))
}

/// Makes the regions and interrupts that the options ask for, with `memory` for the doorbells.
pub(super) fn layout(options: &Options, memory: &Arc<Memory>, own: &OwnMemory) -> Layout {
    let page = PageSize::Small.bytes() as u64;
    let (end, size) = extent(options);
    // The first page may be larger than 4 KiB: the doorbells in it, of the first queues, are then written by
    // message.
    let first = DOORBELLS.next_multiple_of(page);
    let area = (first, end.next_multiple_of(page).saturating_sub(first).max(page));
    let mut layout = Layout::default();
    layout.regions[REGISTER_BAR as usize] =
        RegionLayout { size, mappable: Some(Mappable { memory: memory.clone(), areas: vec![area] }) };
    for (bar, memory) in own.bars() {
        let size = memory.len() as u64;
        layout.regions[usize::from(bar)] = RegionLayout {
            size,
            mappable: Some(Mappable { memory: memory.clone(), areas: vec![(0, size)] }),
        };
    }
    let vectors = options.most_vectors();
    if vectors > 0 {
        let table = pba_offset(vectors) + u64::from(vectors).div_ceil(64) * 8;
        layout.regions[usize::from(MSIX_BAR)] =
            RegionLayout { size: table.next_power_of_two().max(4096), mappable: None };
    }
    layout.regions[CONFIG_REGION as usize] = RegionLayout { size: config::SIZE as u64, mappable: None };
    layout.irqs[IrqKind::Intx as usize] = options.intx.into();
    layout.irqs[IrqKind::Msi as usize] = options.msi.into();
    layout.irqs[IrqKind::Msix as usize] = options.vectors.into();
    layout.irqs[IrqKind::Request as usize] = 1;
    layout
}
