//! Controllers that are driven otherwise than their registers say, by their PCI ids: as data, each with its public source.

use crate::spec::Capabilities;
use std::time::Duration;
use upcie_core::device::Device;

/// The deviation of one kind of controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deviation {
    /// The most entries that an I/O queue can have.
    QueueEntries(u32),
    /// The time after CC.EN is cleared in which CSTS must not be read.
    ReadyDelay(Duration),
    /// The most PRPs of a command; longer data needs an SGL.
    Prps(u16),
}

/// One kind of controller.
struct Quirk {
    vendor: u16,
    devices: &'static [u16],
    /// Decides by CAP; other controllers with these ids behave as they report.
    applies: fn(Capabilities) -> bool,
    deviation: Deviation,
    /// The device and its fault.
    why: &'static str,
    /// The place where the fault is published.
    source: &'static str,
}

const ALWAYS: fn(Capabilities) -> bool = |_| true;
const READY_DELAY: Deviation = Deviation::ReadyDelay(Duration::from_millis(2300));
const QUEUE_DEPTH_SOURCE: &str = "Linux, drivers/nvme/host/pci.c, nvme_pci_enable()";
const READY_DELAY_SOURCE: &str =
    "Linux, drivers/nvme/host/pci.c, nvme_id_table (NVME_QUIRK_DELAY_BEFORE_CHK_RDY)";

const QUIRKS: [Quirk; 7] = [
    Quirk {
        vendor: 0x144d,
        devices: &[0xa821, 0xa822],
        applies: |cap| cap.mqes() == 0,
        deviation: Deviation::QueueEntries(64),
        why: "Samsung PM1725 whose CAP.MQES is 0: queues of up to 64 entries work",
        source: QUEUE_DEPTH_SOURCE,
    },
    Quirk {
        vendor: 0x106b,
        devices: &[0x2001],
        applies: ALWAYS,
        deviation: Deviation::QueueEntries(2),
        why: "Apple controller of MacBooks that resets itself with more than one command in flight",
        source: QUEUE_DEPTH_SOURCE,
    },
    Quirk {
        vendor: 0x144d,
        devices: &[0xa821, 0xa822],
        applies: ALWAYS,
        deviation: READY_DELAY,
        why: "Samsung PM1725 and PM1725a: CSTS must not be read soon after CC.EN is cleared",
        source: READY_DELAY_SOURCE,
    },
    Quirk {
        vendor: 0x1c58,
        devices: &[0x0003, 0x0023],
        applies: ALWAYS,
        deviation: READY_DELAY,
        why: "HGST adapter and WDC SN200: CSTS must not be read soon after CC.EN is cleared",
        source: READY_DELAY_SOURCE,
    },
    Quirk {
        vendor: 0x1c5f,
        devices: &[0x0540],
        applies: ALWAYS,
        deviation: READY_DELAY,
        why: "Memblaze PBlaze4: CSTS must not be read soon after CC.EN is cleared",
        source: READY_DELAY_SOURCE,
    },
    Quirk {
        vendor: 0x1bb1,
        devices: &[0x0100],
        applies: ALWAYS,
        deviation: READY_DELAY,
        why: "Seagate Nytro: CSTS must not be read soon after CC.EN is cleared",
        source: READY_DELAY_SOURCE,
    },
    Quirk {
        vendor: 0x4e58,
        devices: &[0x0001],
        applies: ALWAYS,
        deviation: Deviation::Prps(33),
        why: "SPDK's vfio-user target takes 33 PRPs, whatever its MDTS is",
        source: "SPDK, lib/nvmf/vfio_user.c (ids), include/spdk/nvmf_transport.h (NVMF_REQ_MAX_BUFFERS)",
    },
];

/// The deviations of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// The most entries of an I/O queue that are known to work, if CAP.MQES is wrong.
    queue_entries: Option<u32>,
    /// The time to wait after CC.EN is cleared, before CSTS is read.
    pub(super) ready_delay: Duration,
    /// The most PRPs that a command may have, if they are fewer than those of the longest transfer.
    pub(super) most_prps: Option<u16>,
}

impl Quirks {
    /// Looks the device up by the PCI ids in its configuration space.
    pub(super) fn of(device: &dyn Device, cap: Capabilities) -> Self {
        let mut ids = [0; 4];
        if let Err(error) = device.config_read(0, &mut ids) {
            tracing::warn!(device = device.name(), %error, "reading the PCI ids: no quirk is applied");
            return Self::NONE;
        }
        let (vendor, id) = (u16::from_le_bytes([ids[0], ids[1]]), u16::from_le_bytes([ids[2], ids[3]]));
        for quirk in matching(vendor, id, cap) {
            tracing::info!(device = device.name(), deviation = ?quirk.deviation, quirk.source, quirk.why);
        }
        Self::by_ids(vendor, id, cap)
    }

    const NONE: Self = Self { queue_entries: None, ready_delay: Duration::ZERO, most_prps: None };

    /// Returns the most entries of an I/O queue while CAP is `cap`.
    pub(super) fn most_entries(self, cap: Capabilities) -> u32 {
        self.queue_entries.unwrap_or(cap.max_queue_entries())
    }

    fn by_ids(vendor: u16, device: u16, cap: Capabilities) -> Self {
        let mut quirks = Self::NONE;
        for quirk in matching(vendor, device, cap) {
            match quirk.deviation {
                Deviation::QueueEntries(entries) => quirks.queue_entries = Some(entries),
                Deviation::ReadyDelay(delay) => quirks.ready_delay = delay,
                Deviation::Prps(most) => quirks.most_prps = Some(most),
            }
        }
        quirks
    }
}

fn matching(vendor: u16, device: u16, cap: Capabilities) -> impl Iterator<Item = &'static Quirk> {
    QUIRKS.iter().filter(move |quirk| {
        quirk.vendor == vendor && quirk.devices.contains(&device) && (quirk.applies)(cap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_needs_its_ids_and_its_fault() {
        let entries = |vendor, device, mqes| {
            let cap = Capabilities::new().with_mqes(mqes);
            Quirks::by_ids(vendor, device, cap).most_entries(cap)
        };
        assert_eq!(entries(0x144d, 0xa821, 0), 64);
        assert_eq!(entries(0x144d, 0xa822, 0), 64);
        assert_eq!(entries(0x144d, 0xa822, 1023), 1024);
        assert_eq!(entries(0x106b, 0x2001, 127), 2);
        assert_eq!(entries(0x144d, 0xa808, 0), 1);
        assert_eq!(entries(0x8086, 0xa821, 0), 1);
    }

    #[test]
    fn a_ready_delay_belongs_to_its_devices_alone() {
        let delay = |vendor, device| Quirks::by_ids(vendor, device, Capabilities::new()).ready_delay;
        for (vendor, device) in
            [(0x1c58, 3), (0x1c58, 0x23), (0x1c5f, 0x540), (0x1bb1, 0x100), (0x144d, 0xa821)]
        {
            assert_eq!(delay(vendor, device), Duration::from_millis(2300), "{vendor:04x}:{device:04x}");
        }
        assert_eq!(delay(0x1b36, 0x10), Duration::ZERO);
    }

    #[test]
    fn a_limit_of_prps_belongs_to_its_target_alone() {
        let most = |vendor, device| Quirks::by_ids(vendor, device, Capabilities::new()).most_prps;
        assert_eq!((most(0x4e58, 1), most(0x4e58, 2), most(0x1b36, 0x10)), (Some(33), None, None));
    }

    #[test]
    fn each_quirk_names_its_fault_and_its_source() {
        for quirk in QUIRKS {
            assert!(!quirk.why.is_empty() && quirk.source.contains(','), "{}", quirk.why);
        }
    }
}
