//! PCI configuration space: a type 0 header and its capabilities.

use super::{
    Options,
    msix::{MSIX_BAR, pba_offset},
    own_memory::CMB_BAR,
};
use upcie_core::{pci::command, vfio_user::server::Delivery};

/// Bytes of a PCI Express function's configuration space.
pub(super) const SIZE: usize = 4096;

/// Vendor and device id. The PCI-SIG has assigned them to nobody, so no driver has a quirk for them; drivers
/// bind by the class code.
pub(super) const VENDOR: u16 = 0x7570;
pub(super) const DEVICE: u16 = 0x0e00;

pub(super) const COMMAND: usize = 0x04;
/// Status register: the pin is driven, or would be if it were not disabled.
const INTERRUPT_STATUS: (usize, u8) = (0x06, 1 << 3);

const PM: usize = 0x40;
pub(super) const MSIX: usize = 0x50;
const PCIE: usize = 0x60;
pub(super) const MSI: usize = 0xa0;
/// PCI Express capability: Device Control.
const DEVICE_CONTROL: usize = PCIE + 8;
/// Power management capability: the low bits of its control register, 0 for D0.
const POWER_STATE: usize = PM + 4;

/// The actions that the client has allowed the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Read and write the client's memory: bus master is on, and the function in D0.
    pub dma: bool,
    /// Raise MSI-X vectors.
    pub msix: Delivery,
    /// Raise MSI messages, and their number.
    pub msi: (Delivery, u32),
    /// Drive the pin: no messages are enabled, and the pin is not disabled.
    pub pin: bool,
}

/// The bytes of configuration space, and the bits that a client may change.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    bytes: Box<[u8; 256]>,
    writable: Box<[u8; 256]>,
}

impl ConfigSpace {
    /// Makes the state after power-on. BAR sizes are powers of two, 0 for none.
    pub fn new(bars: &[u64; 6], options: &Options) -> Self {
        let mut space = Self { bytes: Box::new([0; 256]), writable: Box::new([0; 256]) };
        space.put(0x00, &VENDOR.to_le_bytes());
        space.put(0x02, &DEVICE.to_le_bytes());
        // Memory space, bus master, parity and SERR reporting, INTx disable.
        space.allow(0x04, &0x0546_u16.to_le_bytes());
        // Status: there is a capability list.
        space.put(0x06, &[0x10, 0]);
        // Revision; class 01 08 02: mass storage, non-volatile memory, NVMe.
        space.put(0x08, &[1, 0x02, 0x08, 0x01]);
        space.allow(0x0c, &[0xff]);
        for (index, &size) in bars.iter().enumerate().filter(|(_, size)| **size != 0) {
            // 64-bit memory, prefetchable if it has no registers; of 32 bits, and so not prefetchable, where the next
            // BAR is another one. The bits below the size stay 0: that is how a BAR is sized.
            let is_wide = index % 2 == 0 && bars[index + 1] == 0;
            let kind = match is_wide {
                true if index == usize::from(CMB_BAR) => 0xc,
                true => 4,
                false => 0,
            };
            space.put(0x10 + index * 4, &[kind]);
            let mask = (!(size - 1) & !0xf).to_le_bytes();
            let bytes = if is_wide { 8 } else { 4 };
            space.allow(0x10 + index * 4, &mask[..bytes]);
        }
        space.put(0x2c, &VENDOR.to_le_bytes());
        space.put(0x2e, &DEVICE.to_le_bytes());
        space.put(0x34, &[PM as u8]);
        // Interrupt line is a scratch byte; the pin is 1 for INTA, 0 for none.
        space.allow(0x3c, &[0xff]);
        space.put(0x3d, &[options.intx.into()]);

        // Power management 1.2; D0 after power-on, state kept over D3hot.
        space.put(PM, &[0x01, PCIE as u8, 0x03, 0x00, 0x08, 0x00]);
        space.allow(POWER_STATE, &[0x03]);

        // PCI Express 2, endpoint; role-based error reporting, function level reset; a link of 4 lanes at 8 GT/s.
        space.put(PCIE, &[0x10, 0x00, 0x02, 0x00]);
        space.put(PCIE + 4, &0x1000_8000_u32.to_le_bytes());
        space.allow(DEVICE_CONTROL, &0x7fff_u16.to_le_bytes());
        space.put(PCIE + 12, &0x0000_0043_u32.to_le_bytes());
        space.allow(PCIE + 16, &[0xc3]);
        space.put(PCIE + 18, &0x0043_u16.to_le_bytes());

        let mut last = PCIE;
        if options.vectors > 0 {
            space.link(&mut last, MSIX, 0x11);
            space.put(MSIX + 2, &(options.vectors - 1).to_le_bytes());
            space.allow(MSIX + 3, &[0xc0]);
            space.put(MSIX + 4, &u32::from(MSIX_BAR).to_le_bytes());
            space.put(MSIX + 8, &(pba_offset(options.vectors) as u32 | u32::from(MSIX_BAR)).to_le_bytes());
        }
        if options.msi > 0 {
            // Message control: the number as a power of two, how many of them are in use, 64-bit addresses.
            space.link(&mut last, MSI, 0x05);
            space.put(MSI + 2, &[(options.msi.ilog2() as u8) << 1 | 0x80]);
            space.allow(MSI + 2, &[0x71]);
            space.allow(MSI + 4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }
        space
    }

    /// Appends the capability `id` at `at` to the list, whose end is at `last`.
    fn link(&mut self, last: &mut usize, at: usize, id: u8) {
        self.put(*last + 1, &[at as u8]);
        self.put(at, &[id]);
        *last = at;
    }

    /// Shows whether the pin is wanted, even while it is disabled.
    pub fn set_interrupt_status(&mut self, wanted: bool) {
        let (status, bit) = INTERRUPT_STATUS;
        self.bytes[status] = self.bytes[status] & !bit | if wanted { bit } else { 0 };
    }

    /// Returns the actions that the registers allow now.
    pub fn allowed(&self) -> Allowed {
        let command = u16::from_le_bytes([self.bytes[COMMAND], self.bytes[COMMAND + 1]]);
        let dma = command & command::BUS_MASTER != 0 && self.bytes[POWER_STATE] & 3 == 0;
        // A message is a write to memory. The registers of an absent capability read 0.
        let message = |enabled: bool, masked: bool| match (enabled, masked || !dma) {
            (false, _) => Delivery::Off,
            (true, true) => Delivery::Held,
            (true, false) => Delivery::On,
        };
        let (msix, msi) = (self.bytes[MSIX + 3], self.bytes[MSI + 2]);
        let (by_msix, by_msi) = (msix & 0x80 != 0, msi & 1 != 0);
        // At most the supported number, whatever the client writes.
        let messages = (msi >> 4 & 7).min(msi >> 1 & 7);
        Allowed {
            dma,
            msix: message(by_msix, msix & 0x40 != 0),
            msi: (message(by_msi && !by_msix, false), 1 << messages),
            pin: !by_msix && !by_msi && command & command::INTX_DISABLE == 0,
        }
    }

    /// Returns `true` if interrupts come by messages, so that the pin is not used.
    pub fn uses_messages(&self) -> bool {
        self.bytes[MSIX + 3] & 0x80 != 0 || self.bytes[MSI + 2] & 1 != 0
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Reads bytes; those beyond the capabilities are zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        copy_at(&*self.bytes, offset, data);
    }

    /// Writes the bits that may be written; returns `true` if a function level reset is requested.
    #[must_use]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let mut reset = false;
        for (at, byte) in (usize::try_from(offset).unwrap_or(SIZE)..self.bytes.len()).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
            reset |= at == DEVICE_CONTROL + 1 && byte & 0x80 != 0;
        }
        reset
    }
}

/// Copies the bytes at `offset` of `image`; those beyond its end are 0.
pub(super) fn copy_at(image: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| image.get(offset..)).unwrap_or(&[]);
    let (there, beyond) = data.split_at_mut(rest.len().min(data.len()));
    there.copy_from_slice(&rest[..there.len()]);
    beyond.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        with("")
    }

    fn with(options: &str) -> ConfigSpace {
        ConfigSpace::new(&[0x4000, 0, 0, 0, 0x1000, 0], &options.parse().unwrap())
    }

    fn u32_at(space: &ConfigSpace, at: u64) -> u32 {
        let mut data = [0; 4];
        space.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_bar_tells_its_size() {
        let mut space = space();
        for at in (0x10..0x28).step_by(4) {
            assert!(!space.write(at, &[0xff; 4]));
        }
        let bars: Vec<u32> = (0x10..0x28).step_by(4).map(|at| u32_at(&space, at)).collect();
        assert_eq!(bars, [0xffff_c004, !0, 0, 0, 0xffff_f004, !0]);
        let mut space = ConfigSpace::new(&[0x4000, 0, 1 << 20, 0, 0x1000, 0], &"cmb=1M".parse().unwrap());
        for at in [0x18, 0x1c] {
            assert!(!space.write(at, &[0xff; 4]));
        }
        assert_eq!([0x18, 0x1c].map(|at| u32_at(&space, at)), [0xfff0_000c, !0], "prefetchable");
        let bars = [0x4000, 0, 1 << 20, 0, 0x1000, 4 << 20];
        let mut space = ConfigSpace::new(&bars, &"cmb=1M,pmr=4M".parse().unwrap());
        for at in (0x10..0x2c).step_by(4) {
            assert!(!space.write(at, &[0xff; 4]));
        }
        let bars: Vec<u32> = (0x10..0x2c).step_by(4).map(|at| u32_at(&space, at)).collect();
        assert_eq!(bars, [0xffff_c004, !0, 0xfff0_000c, !0, 0xffff_f000, 0xffc0_0000, 0], "two of 32 bits");
    }

    #[test]
    fn capabilities_form_a_list() {
        for (options, expected) in [
            ("", &[0x01, 0x10, 0x11][..]),
            ("msi=4", &[0x01, 0x10, 0x11, 0x05]),
            ("msi=32,vectors=0", &[0x01, 0x10, 0x05]),
            ("vectors=0,intx=true", &[0x01, 0x10]),
        ] {
            let space = with(options);
            let (mut at, mut ids) = (u32_at(&space, 0x34) & 0xff, vec![]);
            while at != 0 {
                let header = u32_at(&space, at.into());
                ids.push(header & 0xff);
                at = header >> 8 & 0xff;
            }
            assert_eq!(ids, expected, "{options}");
            assert_eq!(u32_at(&space, 0x3c) >> 8, u32::from(options.contains("intx")), "{options}: the pin");
        }
        let space = with("msi=8");
        assert_eq!(u32_at(&space, MSI as u64) >> 16, 0x86, "8 messages, 64-bit addresses");
        assert_eq!(u32_at(&space, MSIX as u64) >> 16 & 0x7ff, 64);
        assert_eq!(u32_at(&space, 8) >> 8, 0x01_0802);
    }

    #[test]
    fn the_pin_can_be_disabled_and_reports_its_state() {
        let mut space = with("intx=true");
        for (disable, driven) in [(0, true), (4, false)] {
            assert!(!space.write(5, &[disable]));
            assert_eq!(space.allowed().pin, driven);
            space.set_interrupt_status(true);
            assert_eq!(u32_at(&space, 4) >> 16, 0x18, "status says it all the same");
            space.set_interrupt_status(false);
            assert_eq!(u32_at(&space, 4) >> 16, 0x10);
        }
    }

    #[test]
    fn registers_allow_dma_and_one_kind_of_interrupts() {
        let mut space = with("intx=true,msi=8");
        let mut after = |at: usize, byte: u8| {
            assert!(!space.write(at as u64, &[byte]));
            space.allowed()
        };
        let (off, held, on) = (Delivery::Off, Delivery::Held, Delivery::On);
        let state = |dma, msix, msi, pin| Allowed { dma, msix, msi, pin };
        assert_eq!(after(0x3c, 0), state(false, off, (off, 1), true), "after power-on");
        assert_eq!(after(4, 4), state(true, off, (off, 1), true), "bus master");
        assert_eq!(after(MSI + 2, 0x21), state(true, off, (on, 4), false));
        assert_eq!(after(MSI + 2, 0x71), state(true, off, (on, 8), false), "no more than it has");
        assert_eq!(after(MSIX + 3, 0x80), state(true, on, (off, 8), false), "MSI-X goes first");
        assert_eq!(after(MSIX + 3, 0xc0), state(true, held, (off, 8), false), "function mask");
        assert_eq!(after(4, 0), state(false, held, (off, 8), false));
        assert_eq!(after(MSIX + 3, 0x80), state(false, held, (off, 8), false), "a message is a write");
        assert_eq!(after(MSIX + 3, 0), state(false, off, (held, 8), false));
        assert_eq!(after(4, 4), state(true, off, (on, 8), false));
        assert_eq!(after(POWER_STATE, 3), state(false, off, (held, 8), false), "D3hot");
        assert_eq!(after(POWER_STATE, 0), state(true, off, (on, 8), false));
        assert_eq!(after(MSI + 2, 0), state(true, off, (off, 1), true));
    }

    #[test]
    fn read_only_bits_stay_and_odd_accesses_are_harmless() {
        let mut space = space();
        assert!(!space.write(0, &[0xff; 4]));
        assert_eq!(u32_at(&space, 0) as u16, VENDOR);
        assert!(!space.write(3, &[0xff; 3]));
        assert_eq!(u32_at(&space, 4), 0x0010_0546);
        assert!(space.write(DEVICE_CONTROL as u64, &[0, 0x80]), "function level reset");
        assert_eq!(u32_at(&space, DEVICE_CONTROL as u64), 0);
        assert!(!space.write(u64::MAX - 1, &[0xff]));
        let mut data = [1; 16];
        space.read(4090, &mut data);
        assert_eq!(data, [0; 16]);
    }
}
