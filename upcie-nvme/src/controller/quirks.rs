//! Controllers that are driven otherwise than their registers say, by their PCI ids.

use crate::spec::Capabilities;
use upcie_core::device::Device;

/// One kind of controller.
struct Quirk {
    vendor: u16,
    devices: &'static [u16],
    /// Decides by CAP; other controllers with these ids behave as they report.
    applies: fn(Capabilities) -> bool,
    /// Entries that an I/O queue can have.
    queue_entries: u32,
    why: &'static str,
}

const QUIRKS: [Quirk; 2] = [
    Quirk {
        vendor: 0x144d,
        devices: &[0xa821, 0xa822],
        applies: |cap| cap.mqes() == 0,
        queue_entries: 64,
        why: "Samsung PM1725 whose CAP.MQES is 0: queues of up to 64 entries work",
    },
    Quirk {
        vendor: 0x106b,
        devices: &[0x2001],
        applies: |_| true,
        queue_entries: 2,
        why: "Apple controller of MacBooks that resets itself with more than one command in flight",
    },
];

/// The most entries of an I/O queue: CAP.MQES + 1, or what is known to work.
pub(super) fn queue_entries(device: &dyn Device, cap: Capabilities) -> u32 {
    let mut ids = [0; 4];
    if let Err(error) = device.config_read(0, &mut ids) {
        tracing::warn!(device = device.name(), %error, "reading the PCI ids: no quirk is applied");
        return cap.max_queue_entries();
    }
    let (vendor, id) = (u16::from_le_bytes([ids[0], ids[1]]), u16::from_le_bytes([ids[2], ids[3]]));
    match quirk(vendor, id, cap) {
        None => cap.max_queue_entries(),
        Some(quirk) => {
            tracing::info!(device = device.name(), entries = quirk.queue_entries, quirk.why);
            quirk.queue_entries
        }
    }
}

fn quirk(vendor: u16, device: u16, cap: Capabilities) -> Option<&'static Quirk> {
    QUIRKS
        .iter()
        .find(|quirk| quirk.vendor == vendor && quirk.devices.contains(&device) && (quirk.applies)(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_needs_its_ids_and_its_fault() {
        let entries = |vendor, device, mqes| {
            quirk(vendor, device, Capabilities::new().with_mqes(mqes)).map(|quirk| quirk.queue_entries)
        };
        assert_eq!(entries(0x144d, 0xa821, 0), Some(64));
        assert_eq!(entries(0x144d, 0xa822, 0), Some(64));
        assert_eq!(entries(0x144d, 0xa822, 1023), None);
        assert_eq!(entries(0x106b, 0x2001, 127), Some(2));
        assert_eq!(entries(0x144d, 0xa808, 0), None);
        assert_eq!(entries(0x8086, 0xa821, 0), None);
    }
}
