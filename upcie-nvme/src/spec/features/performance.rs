//! NVM, "Performance Characteristics". Command dword 11 names an attribute: the standard one, the list of the vendor's
//! identifiers, or one of the vendor's.

use super::super::fields::{Field, FieldPlace, Places, Structure, Value, show};
use super::super::macros::structure;
use super::id::FeatureId;
use super::value::data_features;

/// The first attribute of the vendor; the last is FFh.
const FIRST_OF_VENDOR: u8 = 0xc1;

/// Ranges of a latency; the upper end is not in the range.
const LATENCIES: &[(u64, &str)] = &[
    (0x00, "not reported"),
    (0x01, "100 s or more"),
    (0x02, "50 s to 100 s"),
    (0x03, "10 s to 50 s"),
    (0x04, "5 s to 10 s"),
    (0x05, "1 s to 5 s"),
    (0x06, "500 ms to 1 s"),
    (0x07, "100 ms to 500 ms"),
    (0x08, "50 ms to 100 ms"),
    (0x09, "10 ms to 50 ms"),
    (0x0a, "5 ms to 10 ms"),
    (0x0b, "1 ms to 5 ms"),
    (0x0c, "500 µs to 1 ms"),
    (0x0d, "100 µs to 500 µs"),
    (0x0e, "50 µs to 100 µs"),
    (0x0f, "10 µs to 50 µs"),
    (0x10, "5 µs to 10 µs"),
    (0x11, "1 µs to 5 µs"),
    (0x12, "500 ns to 1 µs"),
    (0x13, "100 ns to 500 ns"),
    (0x14, "50 ns to 100 ns"),
    (0x15, "10 ns to 50 ns"),
    (0x16, "5 ns to 10 ns"),
    (0x17, "1 ns to 5 ns"),
];

structure! {
    /// The standard attribute of feature 1Ch, Performance Characteristics.
    StandardPerformance[4096], "Standard Performance Attribute" {
        0 reserved0: [u8; 4];
        /// Range of the average latency of random 4 KiB reads (R4KARL).
        4 random_4k_read_latency: u8 => names(LATENCIES);
        5 reserved5: [u8; 4091];
    }
}

structure! {
    /// The identifiers of the vendor's attributes of feature 1Ch.
    PerformanceAttributeIds[4096], "Performance Attribute Identifier List" {
        /// The value that Get Features selected (ATTRTYP).
        0 attribute_type: u8 => names(&[(0, "current"), (1, "default"), (2, "saved")]);
        /// Attributes that can be saved (MSVSPA).
        1 saveable: u8 => number;
        /// Attributes that can still be saved (USVSPA).
        2 unused_saveable: u8 => number;
        3 reserved3: [u8; 13];
        /// The identifiers, from attribute C1h on; zeros for an attribute that is not used. See [`Self::used`].
        16 identifiers: [[u8; 16]; 63] = shown;
        1024 reserved1024: [u8; 3072];
    }
}

impl PerformanceAttributeIds {
    /// Returns each attribute that is used, for command dword 11, and its identifier.
    pub fn used(&self) -> impl Iterator<Item = (u8, &[u8; 16])> {
        (FIRST_OF_VENDOR..=u8::MAX).zip(&self.identifiers).filter(|(_, identifier)| **identifier != [0; 16])
    }

    fn shown(&self) -> Value {
        let shown = self.used().map(|(attribute, identifier)| {
            Value::Fields(vec![
                Field::new("attribute", show::hex(&attribute)),
                Field::new("identifier", show::bytes(identifier)),
            ])
        });
        Value::List(shown.collect())
    }
}

structure! {
    /// An attribute of the vendor of feature 1Ch.
    VendorPerformance[4096], "Vendor Specific Performance Attribute" {
        /// The identifier, which tells the form of the attribute; zeros if it is not used (PAID).
        0 identifier: [u8; 16] => bytes;
        16 reserved16: [u8; 14];
        /// Length of the attribute, at most 4064 (ATTRL).
        30 length: u16 => unit("bytes");
        /// The attribute; see [`Self::used`].
        32 vendor_specific: [u8; 4064] = shown;
    }
}

impl VendorPerformance {
    /// Returns the bytes of the attribute that are valid.
    #[must_use]
    pub fn used(&self) -> &[u8] {
        &self.vendor_specific[..self.vendor_specific.len().min(self.length.into())]
    }

    fn shown(&self) -> Value {
        show::bytes(self.used())
    }
}

data_features! {
    /// Feature 1Ch, Performance Characteristics: the standard attribute, which hosts can't set.
    PerformanceCharacteristics: PERFORMANCE_CHARACTERISTICS, "Performance Characteristics", StandardPerformance;
    /// Feature 1Ch, Performance Characteristics: the identifiers of the vendor's attributes, which hosts can't set.
    PerformanceAttributeList: PERFORMANCE_CHARACTERISTICS, "Performance Characteristics (identifiers)",
        PerformanceAttributeIds [DWORD11: u32 = 0xc0];
    /// Feature 1Ch, Performance Characteristics: an attribute of the vendor, C1h to FFh.
    PerformanceAttribute: PERFORMANCE_CHARACTERISTICS, "Performance Characteristics (vendor specific)",
        VendorPerformance [DWORD11: u32 = FIRST_OF_VENDOR as u32, SELECTS: u32 = 0x3f];
}

#[cfg(test)]
mod tests {
    use super::super::Feature;
    use super::*;

    #[test]
    fn attributes_have_a_range_an_identifier_or_bytes() {
        let mut data = [0; 4096];
        data[4] = 0x0e;
        let standard = PerformanceCharacteristics::from_answer(0, &data).unwrap();
        assert_eq!(standard.to_string(), "random 4k read latency: 50 µs to 100 µs (Eh)");

        data[..3].copy_from_slice(&[1, 9, 8]);
        data[1023] = 7;
        let list = PerformanceAttributeList::from_answer(0, &data).unwrap();
        assert_eq!(list.data.used().map(|one| one.0).collect::<Vec<_>>(), [0xff]);
        assert!(list.to_string().contains("attribute 0xff, identifier 0000"), "{list}");

        data[30..35].copy_from_slice(&[2, 0, 0xaa, 0xbb, 0xcc]);
        let vendor = PerformanceAttribute::from_answer(0, &data).unwrap();
        assert_eq!(vendor.data.used(), [0xaa, 0xbb]);
        data[31] = 0xff;
        let vendor = PerformanceAttribute::from_answer(0, &data).unwrap();
        assert_eq!(vendor.data.used().len(), 4064, "a length beyond the data");
        assert_eq!(vendor.to_command().0, 0xc1);
        let dwords = [PerformanceCharacteristics::DWORD11, PerformanceAttributeList::DWORD11];
        assert_eq!(dwords, [0, 0xc0]);
    }
}
