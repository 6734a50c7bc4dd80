//! Features in which hosts note something for people and for management agents: Base 2.1, "Namespace Admin Label",
//! "Embedded Management Controller Address", "Host Management Agent Address" and "Host Metadata".

use super::super::fields::{Field, FieldPlace, Places, Structure, Value, show, utf8};
use super::super::macros::{bits, named_values, structure};
use super::id::FeatureId;
use super::value::data_features;

structure! {
    /// The data of feature 1Fh, Namespace Admin Label, 256 bytes.
    AdminLabel[256], "Namespace Admin Label" {
        /// The label, UTF-8 ended by a zero (NSAL).
        0 label: [u8; 256] => utf8;
    }
}

impl AdminLabel {
    /// Makes a label of text; `None` if it has more than 255 bytes.
    #[must_use]
    pub fn of(label: &str) -> Option<Self> {
        Some(Self { label: padded(label)? })
    }
}

structure! {
    /// The data of features 78h and 79h, 512 bytes.
    ManagementAgentAddress[512], "Management Agent Address" {
        0 reserved0: [u8; 4];
        /// The address, a URI, with zeros after it (EMCA, HMAA).
        4 address: [u8; 508] => utf8;
    }
}

impl ManagementAgentAddress {
    /// Makes an address of a URI; `None` if it has more than 507 bytes.
    #[must_use]
    pub fn of(uri: &str) -> Option<Self> {
        Some(Self { reserved0: [0; 4], address: padded(uri)? })
    }
}

/// Returns text with zeros after it; `None` if there is no room for one.
fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    bytes[..N - 1].get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(bytes)
}

named_values! {
    /// The type of an element of a controller's metadata (ET); 18h to 1Fh are the vendor's.
    ControllerMetadataType(u8) {
        OS_CONTROLLER_NAME = 0x01, "operating system controller name";
        OS_DRIVER_NAME = 0x02, "operating system driver name";
        OS_DRIVER_VERSION = 0x03, "operating system driver version";
        PRE_BOOT_CONTROLLER_NAME = 0x04, "pre-boot controller name";
        PRE_BOOT_DRIVER_NAME = 0x05, "pre-boot driver name";
        PRE_BOOT_DRIVER_VERSION = 0x06, "pre-boot driver version";
        PROCESSOR_MODEL = 0x07, "system processor model";
        CHIPSET_DRIVER_NAME = 0x08, "chipset driver name";
        CHIPSET_DRIVER_VERSION = 0x09, "chipset driver version";
        OS_NAME_AND_BUILD = 0x0a, "operating system name and build";
        PRODUCT_NAME = 0x0b, "system product name";
        FIRMWARE_VERSION = 0x0c, "firmware version of the host";
        OS_DRIVER_FILENAME = 0x0d, "operating system driver filename";
        DISPLAY_DRIVER_NAME = 0x0e, "display driver name";
        DISPLAY_DRIVER_VERSION = 0x0f, "display driver version";
        FAILURE_RECORD = 0x10, "host-determined failure record";
    }
}

named_values! {
    /// The type of an element of a namespace's metadata (ET); 18h to 1Fh are the vendor's.
    NamespaceMetadataType(u8) {
        OS_NAMESPACE_NAME = 0x01, "operating system namespace name";
        PRE_BOOT_NAMESPACE_NAME = 0x02, "pre-boot namespace name";
        OS_NAMESPACE_NAME_QUALIFIER_1 = 0x03, "operating system namespace name qualifier 1";
        OS_NAMESPACE_NAME_QUALIFIER_2 = 0x04, "operating system namespace name qualifier 2";
    }
}

/// An element of host metadata, with a type `K`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataElement<'a, K> {
    /// The type, 5 bits.
    pub kind: K,
    /// Revision of the value, 4 bits: 0 (ER).
    pub revision: u8,
    /// The value, UTF-8; empty to delete the element.
    pub value: &'a [u8],
}

/// Bytes for elements in the data of host metadata.
const ROOM: usize = 4094;

/// Walks elements: a type, a revision, a length of 16 bits, and the value.
fn elements(count: u8, mut rest: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    (0..count).map_while(move |_| {
        let (&[kind, revision, low, high], after) = rest.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(u16::from_le_bytes([low, high]).into())?;
        rest = after;
        Some((kind & 0x1f, revision & 0xf, value))
    })
}

/// Writes elements one behind the other; `None` if there is not the room for them.
fn written<'a>(elements: impl Iterator<Item = (u8, u8, &'a [u8])>) -> Option<(u8, [u8; ROOM])> {
    let (mut count, mut bytes, mut at) = (0_u8, [0; ROOM], 0);
    for (kind, revision, value) in elements {
        let [low, high] = u16::try_from(value.len()).ok()?.to_le_bytes();
        for part in [&[kind & 0x1f, revision & 0xf, low, high][..], value] {
            bytes.get_mut(at..at + part.len())?.copy_from_slice(part);
            at += part.len();
        }
        count = count.checked_add(1)?;
    }
    Some((count, bytes))
}

/// The two forms of host metadata, which differ in the types of their elements.
macro_rules! host_metadata {
    ($($(#[$meta:meta])* $type:ident: $kind:ident, $title:literal;)*) => {
        $(
            structure! {
                $(#[$meta])*
                $type[4096], $title {
                    /// Elements (NMED).
                    0 count: u8 => number;
                    1 reserved1: u8;
                    /// The elements; see [`Self::elements`].
                    2 descriptors: [u8; ROOM] = shown;
                }
            }

            impl $type {
                /// Makes the data of elements; `None` if there is not the room for them.
                #[must_use]
                pub fn of(elements: &[MetadataElement<'_, $kind>]) -> Option<Self> {
                    let all = elements.iter().map(|element| (element.kind.0, element.revision, element.value));
                    let (count, descriptors) = written(all)?;
                    Some(Self { count, reserved1: 0, descriptors })
                }

                /// Returns the elements, as far as the data has them.
                pub fn elements(&self) -> impl Iterator<Item = MetadataElement<'_, $kind>> {
                    let all = elements(self.count, &self.descriptors);
                    all.map(|(kind, revision, value)| MetadataElement { kind: $kind(kind), revision, value })
                }

                fn shown(&self) -> Value {
                    let shown = self.elements().map(|element| {
                        Value::Fields(vec![
                            Field::new("element_type", show::named(&element.kind)),
                            Field::new("revision", show::number(&element.revision)),
                            Field::new("value", Value::Text(utf8(element.value))),
                        ])
                    });
                    Value::List(shown.collect())
                }
            }
        )*
    };
}

host_metadata! {
    /// The data of features 7Dh and 7Eh: metadata of a controller.
    ControllerMetadataElements: ControllerMetadataType, "Controller Metadata";
    /// The data of feature 7Fh: metadata of a namespace.
    NamespaceMetadataElements: NamespaceMetadataType, "Namespace Metadata";
}

bits! {
    /// Command dword 11 of Set Features for host metadata; Get Features returns 0.
    MetadataAction(u32), "Host Metadata" {
        __: u16[13];
        /// The change to each element (EA): feature 7Dh takes 1 and 2, the others 0 and 1.
        element_action: u8[2] => names(&[(0, "add or replace"), (1, "delete"), (2, "add another")]);
        __: u32[17];
    }
}

data_features! {
    /// Feature 1Fh, Namespace Admin Label, of a namespace. It is set only with
    /// [`FeatureUpdate::save`](crate::FeatureUpdate).
    NamespaceAdminLabel: NAMESPACE_ADMIN_LABEL, "Namespace Admin Label", AdminLabel [OF_NAMESPACE: bool = true];
    /// Feature 78h, Embedded Management Controller Address: a management agent of the system.
    EmbeddedManagementAddress: EMBEDDED_MANAGEMENT_ADDRESS, "Embedded Management Controller Address",
        ManagementAgentAddress;
    /// Feature 79h, Host Management Agent Address: a management agent of the host's software.
    HostManagementAddress: HOST_MANAGEMENT_ADDRESS, "Host Management Agent Address", ManagementAgentAddress;
    /// Feature 7Dh, Enhanced Controller Metadata: a type may have several elements.
    EnhancedControllerMetadata: ENHANCED_CONTROLLER_METADATA, "Enhanced Controller Metadata",
        ControllerMetadataElements, dword = MetadataAction;
    /// Feature 7Eh, Controller Metadata: a type has one element.
    ControllerMetadata: CONTROLLER_METADATA, "Controller Metadata", ControllerMetadataElements, dword = MetadataAction;
    /// Feature 7Fh, Namespace Metadata, of a namespace: a type has one element.
    NamespaceMetadata: NAMESPACE_METADATA, "Namespace Metadata", NamespaceMetadataElements, dword = MetadataAction
        [OF_NAMESPACE: bool = true];
}

#[cfg(test)]
mod tests {
    use super::super::Feature;
    use super::*;

    #[test]
    fn texts_have_a_zero_after_them() {
        let label = AdminLabel::of("Q4 2018 – finance").unwrap();
        assert_eq!(label.to_string(), "label: Q4 2018 – finance");
        let long = "x".repeat(256);
        assert!(AdminLabel::of(&long).is_none() && AdminLabel::of(&long[1..]).is_some());
        let address = ManagementAgentAddress::of(&long).unwrap();
        assert_eq!((address.address[255], address.address[256]), (b'x', 0));
        assert!(ManagementAgentAddress::of(&"x".repeat(508)).is_none());
        let feature = NamespaceAdminLabel { data: label };
        assert_eq!(NamespaceAdminLabel::from_answer(0, &feature.to_command().1), Some(feature));
    }

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let elements = [
            MetadataElement { kind: ControllerMetadataType::OS_DRIVER_NAME, revision: 0, value: b"upcie" },
            MetadataElement { kind: ControllerMetadataType(0x18), revision: 3, value: &[] },
        ];
        let data = ControllerMetadataElements::of(&elements).unwrap();
        assert_eq!(data.count, 2);
        assert_eq!(data.descriptors[..13], *b"\x02\0\x05\0upcie\x18\x03\0\0");
        assert!(data.elements().eq(elements));
        let dword = MetadataAction::new().with_element_action(2);
        let feature = EnhancedControllerMetadata { dword, data };
        assert_eq!(feature.to_command().0, 0x4000);
        let text = feature.to_string();
        for part in ["element action: add another (2h)", "operating system driver name (2h)", "value upcie"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn metadata_ends_with_its_bytes() {
        let value = vec![b'x'; ROOM - 4];
        let one =
            |value| MetadataElement { kind: NamespaceMetadataType::OS_NAMESPACE_NAME, revision: 0, value };
        let mut data = NamespaceMetadataElements::of(&[one(&value)]).unwrap();
        assert!(NamespaceMetadataElements::of(&[one(&value), one(&[])]).is_none());
        // Elements that are not there, and one whose length is beyond the end.
        data.count = 255;
        assert_eq!(data.elements().count(), 1);
        data.descriptors[2..4].fill(0xff);
        assert_eq!(data.elements().count(), 0);
    }
}
