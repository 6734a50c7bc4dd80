//! The capability lists of configuration space, against any content.

use upcie_core::{
    Error, Result,
    pci::{ConfigSpace, cap, ext_cap},
};

/// Configuration space of any size.
struct Space<'d>(&'d [u8]);

impl ConfigSpace for Space<'_> {
    fn device_name(&self) -> &str {
        "fuzz"
    }

    fn read_bytes(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        let (start, len) = (usize::from(offset), data.len());
        let Some(bytes) = self.0.get(start..start + len) else {
            return Err(Error::out_of_range(
                "fuzz",
                "reading",
                offset.into(),
                len as u64,
                self.0.len() as u64,
            ));
        };
        data.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn write_bytes(&self, _: u16, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

pub fn target(data: &[u8]) {
    let data = &data[..data.len().min(4096)];
    let space = Space(data);
    let mut last = false;
    let entries: Vec<_> = space
        .capabilities()
        .inspect(|entry| assert!(!std::mem::replace(&mut last, entry.is_err())))
        .collect();
    assert!(entries.len() <= 49, "{} entries in 192 bytes", entries.len());
    for entry in entries.iter().flatten() {
        assert!(
            (0x40..0x100).contains(&entry.offset) && entry.offset.is_multiple_of(4) && entry.version == 0
        );
    }
    let mut last = false;
    let extended: Vec<_> = space
        .extended_capabilities()
        .inspect(|entry| assert!(!std::mem::replace(&mut last, entry.is_err())))
        .collect();
    assert!(extended.len() <= 961, "{} entries in 3840 bytes", extended.len());
    for entry in extended.iter().flatten() {
        assert!((0x100..0x1000).contains(&entry.offset) && entry.offset.is_multiple_of(4));
    }
    for id in [cap::MSIX, cap::PCIE, cap::POWER_MANAGEMENT] {
        let first = entries.iter().flatten().find(|entry| entry.id == id).map(|entry| entry.offset);
        if let Ok(found) = space.find_capability(id) {
            assert_eq!(found, first);
        }
    }
    for id in [ext_cap::AER, ext_cap::SRIOV] {
        let first = extended.iter().flatten().find(|entry| entry.id == id).map(|entry| entry.offset);
        if let Ok(found) = space.find_extended_capability(id) {
            assert_eq!(found, first);
        }
    }
    let _ = space.command();
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut space = vec![0; 4096];
    space[..2].copy_from_slice(&[0x36, 0x1b]);
    space[6] = 1 << 4;
    space[0x34] = 0x40;
    for (at, id, next) in [(0x40, cap::POWER_MANAGEMENT, 0x50), (0x50, cap::MSIX, 0x60), (0x60, cap::PCIE, 0)]
    {
        space[at] = id as u8;
        space[at + 1] = next;
    }
    for (at, id, next) in
        [(0x100, ext_cap::AER, 0x148), (0x148, ext_cap::ACS, 0x160), (0x160, ext_cap::SRIOV, 0)]
    {
        let header = u32::from(id) | 1 << 16 | next << 20;
        space[at..at + 4].copy_from_slice(&header.to_le_bytes());
    }
    vec![space[..256].to_vec(), space, vec![0xff; 256]]
}
