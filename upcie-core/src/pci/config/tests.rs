use super::*;
use std::{cell::RefCell, fs};

/// Configuration space in memory.
struct Fake(RefCell<Vec<u8>>);

impl Fake {
    fn new(len: usize) -> Self {
        let fake = Self(RefCell::new(vec![0; len]));
        fake.set_u16(offset::VENDOR, 0x1b36).unwrap();
        fake
    }

    /// Makes one with a standard list of the given ids and offsets.
    fn with_list(list: &[(u8, u8)]) -> Self {
        let fake = Self::new(4096);
        fake.set_u16(offset::STATUS, STATUS_CAPABILITIES).unwrap();
        let mut link = 0x34;
        for &(id, at) in list {
            fake.0.borrow_mut()[link] = at;
            fake.0.borrow_mut()[usize::from(at)] = id;
            link = usize::from(at) + 1;
        }
        fake
    }
}

impl Fake {
    fn set_u16(&self, offset: u16, value: u16) -> Result<()> {
        // SAFETY: no device is behind this memory.
        unsafe { self.set_config_u16(offset, value) }
    }

    fn set_u32(&self, offset: u16, value: u32) -> Result<()> {
        // SAFETY: no device is behind this memory.
        unsafe { self.set_config_u32(offset, value) }
    }
}

impl ConfigSpace for Fake {
    fn device_name(&self) -> &str {
        "fake"
    }

    fn read_bytes(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        let bytes = self.0.borrow();
        let from = usize::from(offset);
        let source = bytes.get(from..from + data.len()).ok_or_else(|| {
            Error::out_of_range("fake", "reading", offset.into(), data.len() as u64, bytes.len() as u64)
        })?;
        data.copy_from_slice(source);
        Ok(())
    }

    unsafe fn write_bytes(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.0.borrow_mut()[usize::from(offset)..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[test]
fn capabilities_are_found_in_list_order() {
    let fake = Fake::with_list(&[(0x11, 0x80), (0x01, 0x40), (0x10, 0xfc)]);
    let all: Vec<_> = fake.capabilities().map(|c| c.map(|c| (c.id, c.offset)).unwrap()).collect();
    assert_eq!(all, [(cap::MSIX, 0x80), (cap::POWER_MANAGEMENT, 0x40), (cap::PCIE, 0xfc)]);
    assert_eq!(fake.find_capability(cap::PCIE).unwrap(), Some(0xfc));
    assert_eq!(fake.find_capability(cap::MSI).unwrap(), None);
}

#[test]
fn reserved_low_bits_of_a_link_are_ignored() {
    let fake = Fake::with_list(&[(0x05, 0x40)]);
    fake.0.borrow_mut()[0x34] = 0x43;
    assert_eq!(fake.find_capability(cap::MSI).unwrap(), Some(0x40));
}

#[test]
fn without_the_status_bit_the_list_is_empty() {
    let fake = Fake::with_list(&[(0x11, 0x80)]);
    fake.set_u16(offset::STATUS, 0).unwrap();
    assert!(fake.capabilities().next().is_none());
}

#[test]
fn a_loop_and_a_link_into_the_header_are_errors() {
    for list in [&[(0x11, 0x80), (0x01, 0x40), (0x10, 0x80)][..], &[(0x01, 0x40), (0x10, 0x40)], &[(1, 0x3c)]]
    {
        let fake = Fake::with_list(list);
        let mut walk = fake.capabilities();
        let error = walk.find_map(Result::err).expect("an error");
        assert!(matches!(error.failure(), Failure::Protocol { .. }), "{error}");
        assert!(walk.next().is_none(), "it ends after the error");
    }
}

#[test]
fn all_ones_means_the_device_is_gone() {
    let fake = Fake::new(4096);
    fake.0.borrow_mut().fill(0xff);
    assert!(
        matches!(fake.capabilities().next(), Some(Err(error)) if matches!(error.failure(), Failure::Gone { .. }))
    );
    assert!(matches!(fake.command(), Err(error) if matches!(error.failure(), Failure::Gone { .. })));
    assert!(fake.extended_capabilities().next().is_none());
    // Gone during the walk.
    let fake = Fake::with_list(&[(0x11, 0x80)]);
    fake.set_u16(0x80, u16::MAX).unwrap();
    assert!(
        matches!(fake.capabilities().next(), Some(Err(error)) if matches!(error.failure(), Failure::Gone { .. }))
    );
}

#[test]
fn the_extended_list_is_walked() {
    let fake = Fake::new(4096);
    fake.set_u32(0x100, 0x1482_0001).unwrap();
    fake.set_u32(0x148, 0x0001_0010).unwrap();
    let all: Vec<_> =
        fake.extended_capabilities().map(|c| c.map(|c| (c.id, c.offset, c.version)).unwrap()).collect();
    assert_eq!(all, [(ext_cap::AER, 0x100, 2), (ext_cap::SRIOV, 0x148, 1)]);
    assert_eq!(fake.find_extended_capability(ext_cap::SRIOV).unwrap(), Some(0x148));
    assert!(Fake::new(4096).extended_capabilities().next().is_none(), "an empty header ends it");
    assert!(Fake::new(256).extended_capabilities().next().is_none(), "so does the end of the space");
}

#[test]
fn a_broken_extended_list_ends_with_an_error() {
    // A link to itself, a cycle of two, and a link below 100h.
    for (first, second) in [(0x1001_0001, 0), (0x1481_0001, 0x1001_0003), (0x0401_0001, 0)] {
        let fake = Fake::new(4096);
        fake.set_u32(0x100, first).unwrap();
        fake.set_u32(0x148, second).unwrap();
        let error = fake.extended_capabilities().take(5000).find_map(Result::err).expect("an error");
        assert!(matches!(error.failure(), Failure::Protocol { .. }), "{error}");
    }
}

#[test]
fn a_sysfs_config_file_is_configuration_space() {
    let path = std::env::temp_dir().join(format!("upcie-config-{}", std::process::id()));
    let fake = Fake::with_list(&[(0x11, 0x80)]);
    fs::write(&path, &fake.0.borrow()[..256]).unwrap();
    let file = ConfigFile::open("0000:01:00.0".into(), &path).unwrap();
    assert_eq!(file.config_u16(offset::VENDOR).unwrap(), 0x1b36);
    assert_eq!(file.find_capability(cap::MSIX).unwrap(), Some(0x80));
    assert!(file.extended_capabilities().next().is_none());
    // SAFETY: no device is behind the file.
    unsafe { file.set_config_u16(offset::COMMAND, command::MEMORY) }.unwrap();
    assert_eq!(file.command().unwrap(), command::MEMORY);
    assert!(
        matches!(file.config_u32(254), Err(error) if matches!(error.failure(), Failure::OutOfRange { size: 256, .. }))
    );
    fs::remove_file(&path).unwrap();
}
