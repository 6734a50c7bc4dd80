//! Base 2.1, "Supported Controller State Formats": the forms in which Migration Send and Migration Receive move the state
//! of a controller.

use super::super::fields::{Field, Value, show};
use super::super::macros::structure;
use super::Cns;
use super::data::identify_data;

structure! {
    /// Supported Controller State Formats (CNS 20h).
    ControllerStateFormats[4096], "Supported Controller State Formats" {
        /// Versions of the NVMe Controller State (NV).
        0 version_count: u8 => number;
        /// Formats of the vendor's state (NUUID).
        1 uuid_count: u8 => number;
        /// The versions, and after them the UUIDs; see [`Self::versions`] and [`Self::uuids`].
        2 formats: [u8; 4094] = shown;
    }
}

impl ControllerStateFormats {
    /// Returns the versions of the NVMe Controller State. Commands name them by index, the first as 1.
    pub fn versions(&self) -> impl Iterator<Item = u16> + '_ {
        let versions = self.formats[..self.versions_len()].chunks_exact(2);
        versions.map(|version| u16::from_le_bytes([version[0], version[1]]))
    }

    /// Returns the UUIDs of the formats of the vendor's state, big endian. Commands name them by index, the first as 1.
    pub fn uuids(&self) -> impl Iterator<Item = &[u8; 16]> {
        let uuids = self.formats[self.versions_len()..].chunks_exact(16);
        uuids.take(self.uuid_count.into()).filter_map(|uuid| uuid.first_chunk::<16>())
    }

    /// Returns the bytes of the versions.
    const fn versions_len(&self) -> usize {
        self.version_count as usize * 2
    }

    fn shown(&self) -> Value {
        let versions: Vec<u16> = self.versions().collect();
        let uuids = self.uuids().map(|uuid| show::bytes(uuid));
        Value::Fields(vec![
            Field::new("versions", show::numbers(&versions)),
            Field::new("uuids", Value::List(uuids.collect())),
        ])
    }
}

identify_data! {
    ControllerStateFormats: STATE_FORMATS;
}

#[cfg(test)]
mod tests {
    use super::super::IdentifyData;
    use super::*;

    #[test]
    fn uuids_come_after_the_versions() {
        let mut page = [0; 4096];
        page[..6].copy_from_slice(&[2, 1, 0, 0, 1, 2]);
        page[6..22].fill(0xab);
        let formats = <ControllerStateFormats as IdentifyData>::from_page(&page);
        assert_eq!(formats.versions().collect::<Vec<_>>(), [0, 0x201]);
        assert_eq!(formats.uuids().collect::<Vec<_>>(), [&[0xab_u8; 16]]);
        // More than the page can hold: (4096 - 2 - 510) / 16 UUIDs.
        page[..2].fill(0xff);
        let formats = <ControllerStateFormats as IdentifyData>::from_page(&page);
        assert_eq!((formats.versions().count(), formats.uuids().count()), (255, 224));
    }
}
