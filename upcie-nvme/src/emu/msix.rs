//! The MSI-X table and its pending bits (PCI Express Base, "MSI-X Table Structure").
//!
//! Over vfio-user an interrupt is an eventfd, so the addresses and data of the entries are only stored for
//! reading back. The mask bits are those of the vectors. An entry is masked until an eventfd is wired to its
//! vector, as the kernel's VFIO sets entries up when it is given eventfds, and whenever the client has set
//! the bit. An interrupt that is raised meanwhile is pending, and delivered when the mask is cleared.

use super::Interrupts;
use upcie_core::irq::IrqKind;

/// The BAR with the table and the pending bits.
pub(super) const MSIX_BAR: u8 = 4;

/// Returns the offset of the pending bits in the BAR: a multiple of 8 behind the table of 16 bytes a vector.
pub(super) const fn pba_offset(vectors: u16) -> u64 {
    vectors as u64 * 16
}

/// Bytes of an entry: address, data, vector control.
const ENTRY: usize = 16;
/// Vector control in an entry; bit 0 is the mask.
const CONTROL: usize = 12;

/// Addresses and data of the entries.
#[derive(Debug)]
pub(super) struct MsixTable {
    bytes: Vec<u8>,
}

impl MsixTable {
    /// Makes the state after a reset.
    pub fn new(vectors: u16) -> Self {
        Self { bytes: vec![0; usize::from(vectors) * ENTRY] }
    }

    /// Reads bytes of the MSI-X BAR; those behind the table and the pending bits are 0.
    pub fn read(&self, host: &impl Interrupts, offset: u64, data: &mut [u8]) {
        let pending = pba_offset((self.bytes.len() / ENTRY) as u16);
        for (at, byte) in (offset..).zip(data) {
            *byte = match self.bytes.get(at as usize) {
                Some(_) if at as usize % ENTRY == CONTROL => {
                    host.is_masked(IrqKind::Msix, at as u32 / ENTRY as u32).into()
                }
                Some(&byte) => byte,
                None => {
                    let first = (at - pending) as u32 * 8;
                    (0..8).fold(0, |bits, bit| {
                        bits | u8::from(host.is_pending(IrqKind::Msix, first + bit)) << bit
                    })
                }
            };
        }
    }

    /// Writes bytes of the BAR. Pending bits, and the reserved ones of vector control, can't be written.
    pub fn write(&mut self, host: &mut impl Interrupts, offset: u64, data: &[u8]) {
        for (at, &value) in (offset as usize..).zip(data) {
            match (self.bytes.get_mut(at), at % ENTRY) {
                (Some(_), CONTROL) => {
                    host.set_masked(IrqKind::Msix, (at / ENTRY) as u32, value & 1 != 0);
                }
                (Some(byte), ..CONTROL) => *byte = value,
                _ => {}
            }
        }
    }
}
