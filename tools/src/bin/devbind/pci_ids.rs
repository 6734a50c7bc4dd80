//! Names from the list of PCI ids, which most distributions have (package pci.ids or hwdata).

use std::fs;

const PATHS: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// Text of the list; empty if the machine has none.
#[derive(Debug, Default)]
pub struct PciIds(String);

impl PciIds {
    /// Reads the list of this machine.
    pub fn load() -> Self {
        // The list may hold bytes that are not UTF-8.
        let text = PATHS.iter().find_map(|path| fs::read(path).ok());
        Self(text.map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Returns `vendor device`, or only the vendor if the device is not listed.
    pub fn name(&self, vendor: u16, device: u16) -> Option<String> {
        let vendor = format!("{vendor:04x}  ");
        let mut lines = self.0.lines().skip_while(|line| !line.starts_with(&vendor));
        let vendor = lines.next()?.get(6..)?.trim();
        let device = format!("\t{device:04x}  ");
        let device = lines
            .take_while(|line| line.starts_with('\t') || line.starts_with('#'))
            .find_map(|line| line.strip_prefix(&device));
        Some(device.map_or_else(|| vendor.to_owned(), |device| format!("{vendor} {}", device.trim())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_belong_to_their_vendor() {
        let ids = PciIds(
            "# a comment\n1af4  First Vendor\n\t1000  Net\n\t\t1af4 0001  Net by somebody\n\
             1b36  Second Vendor\n\t0001  Bridge\n\t0010  NVMe thing\n\nC 00  Unclassified\n\t00  Old\n"
                .into(),
        );
        assert_eq!(ids.name(0x1b36, 0x10).as_deref(), Some("Second Vendor NVMe thing"));
        assert_eq!(ids.name(0x1af4, 0x10).as_deref(), Some("First Vendor"), "not the next vendor's");
        assert_eq!(ids.name(0x1af4, 0x1af4).as_deref(), Some("First Vendor"), "a subsystem is no device");
        assert_eq!(ids.name(0x8086, 0x10), None);
        assert_eq!(PciIds::default().name(0x1b36, 0x10), None);
    }
}
