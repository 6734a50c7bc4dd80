//! The fields of structures for programs: the cargo feature `serde`.

use super::fields::{Field, Value};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Numbers above 64 bits are text, bytes hexadecimal text, and a number with a name an object of both.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag(on) => serializer.serialize_bool(*on),
            Self::Number(number) | Self::Quantity(number, _) => match u64::try_from(*number) {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.collect_str(number),
            },
            Self::Named(number, name) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("value", number)?;
                map.serialize_entry("name", name)?;
                map.end()
            }
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.serialize_str(&hex)
            }
            Self::Fields(fields) => serialize_fields(fields, serializer),
            Self::List(values) => serializer.collect_seq(values),
        }
    }
}

/// Writes fields as a map.
pub(crate) fn serialize_fields<S: Serializer>(fields: &[Field], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(fields.len()))?;
    for field in fields {
        map.serialize_entry(field.name, &field.value)?;
    }
    map.end()
}
