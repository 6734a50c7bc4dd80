//! The fields of a structure by name, for people and for programs: how structures are printed and serialized.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64, U128};

/// A structure of the specification that can list its fields.
pub trait Structure {
    /// The specification's name of the structure.
    const TITLE: &'static str;

    /// Returns the fields in their order, without reserved ones.
    fn fields(&self) -> Vec<Field>;
}

/// A field of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The specification's name, spelled out in lower case with underscores; the mnemonic for identify data.
    pub name: &'static str,
    /// The value.
    pub value: Value,
}

impl Field {
    pub(crate) const fn new(name: &'static str, value: Value) -> Self {
        Self { name, value }
    }
}

/// `name: value`, the name with spaces.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_fields(f, core::slice::from_ref(self), 0)
    }
}

/// The position of a field: how a program sets it by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldPlace {
    /// The name, as in [`Field::name`].
    pub name: &'static str,
    /// The first bit, counted from the structure's first one: bytes are little endian.
    pub bit: u32,
    /// Bits.
    pub width: u32,
    /// The number is stored less one: 0 stands for one.
    pub zeros_based: bool,
    /// The field is shown as bytes, not as a number.
    pub is_bytes: bool,
    /// The field is UTF-8 text, ended by a zero.
    pub is_text: bool,
}

impl FieldPlace {
    /// Makes the place of a field that is shown by the function `format` of [`show`].
    pub(crate) fn new(name: &'static str, format: &str, bit: u32, width: u32) -> Self {
        let is = |other: &str| format == other;
        Self { name, bit, width, zeros_based: is("zeros_based"), is_bytes: is("bytes"), is_text: is("utf8") }
    }

    /// Puts a number into the structure's bytes; returns `false` if it doesn't fit, or the bytes end before the field.
    #[must_use]
    pub fn put(&self, bytes: &mut [u8], number: u128) -> bool {
        let number = if self.zeros_based { number.checked_sub(1) } else { Some(number) };
        let fits = |number: &u128| self.width >= 128 || number >> self.width == 0;
        let (Some(number), Some(_)) = (number.filter(fits), bytes.get((self.end() - 1) as usize / 8)) else {
            return false;
        };
        for index in 0..self.width {
            let (byte, bit) = ((self.bit + index) as usize / 8, (self.bit + index) % 8);
            let set = index < 128 && number >> index & 1 == 1;
            bytes[byte] = bytes[byte] & !(1 << bit) | u8::from(set) << bit;
        }
        true
    }

    const fn end(&self) -> u32 {
        self.bit + self.width
    }
}

/// A structure that tells where its fields are.
pub(crate) trait Places {
    /// Returns the places of the fields that are shown.
    fn places() -> Vec<FieldPlace>;
}

/// The value of a field.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// One bit.
    Flag(bool),
    /// A number without a unit.
    Number(u128),
    /// A number and its unit.
    Quantity(u128, &'static str),
    /// A number for which the specification may have a name.
    Named(u64, Option<&'static str>),
    /// Text, safe to print.
    Text(String),
    /// Bytes as the controller sent them: vendor-specific ones, identifiers, values that are not known here.
    Bytes(Vec<u8>),
    /// Fields within this one.
    Fields(Vec<Field>),
    /// Several values of a kind.
    List(Vec<Value>),
}

/// The most bytes of a field that are printed for people.
const SHOWN_BYTES: usize = 32;
/// The most fields of an entry of a list that are printed on one line.
const BRIEF: usize = 4;
const INDENT: &str = "  ";
/// The unit of data units.
pub(crate) const DATA_UNITS: &str = "× 512,000 bytes";

/// Returns a number of data units as bytes, in powers of 1000: `1.54 MB`.
fn decimal(units: u128) -> String {
    let (kilobytes, names) = (units.saturating_mul(512), ["kB", "MB", "GB", "TB", "PB", "EB"]);
    let scale = (kilobytes.max(1).ilog10() as usize / 3).min(names.len() - 1);
    format!("{:.2} {}", kilobytes as f64 / 1000_f64.powi(scale as i32), names[scale])
}

impl Value {
    /// Makes flags of a number's bits, from bit 0 on.
    pub(crate) fn flags(bits: u64, names: &[&'static str]) -> Self {
        let flag = |(bit, &name): (usize, &&'static str)| Field::new(name, Self::Flag(bits >> bit & 1 == 1));
        Self::Fields(names.iter().enumerate().map(flag).collect())
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Fields(fields) => fields.iter().all(|field| matches!(field.value, Self::Flag(_))),
            Self::List(values) => {
                values.iter().all(|value| !matches!(value, Self::Fields(_) | Self::List(_)))
            }
            _ => true,
        }
    }
}

/// One line for plain values, indented lines for structures within it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(on) => f.write_str(if *on { "yes" } else { "no" }),
            Self::Number(number) => number.fmt(f),
            Self::Quantity(kelvins, "K") => write!(f, "{kelvins} K ({} °C)", *kelvins as i128 - 273),
            Self::Quantity(number, unit @ DATA_UNITS) => write!(f, "{number} {unit} ({})", decimal(*number)),
            Self::Quantity(number, unit) => write!(f, "{number} {unit}"),
            Self::Named(number, Some(name)) => write!(f, "{name} ({number:X}h)"),
            Self::Named(number, None) => write!(f, "unknown ({number:X}h)"),
            Self::Text(text) => f.write_str(text),
            Self::Bytes(bytes) => {
                if !bytes.is_empty() && bytes.iter().all(|&byte| byte == 0) {
                    return write!(f, "zeros ({} bytes)", bytes.len());
                }
                for byte in bytes.iter().take(SHOWN_BYTES) {
                    write!(f, "{byte:02x}")?;
                }
                if bytes.len() > SHOWN_BYTES { write!(f, "… ({} bytes)", bytes.len()) } else { Ok(()) }
            }
            Self::Fields(fields) if self.is_plain() => {
                let set = fields.iter().filter(|field| field.value == Self::Flag(true));
                let set: Vec<_> = set.map(|field| field.name.replace('_', " ")).collect();
                f.write_str(if set.is_empty() { "none" } else { "" })?;
                f.write_str(&set.join(", "))
            }
            Self::List(values) if values.is_empty() => f.write_str("none"),
            Self::List(values) if self.is_plain() => {
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Fields(_) | Self::List(_) => write_value(f, self, 0),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields(fields) => debug(f, "", fields),
            Self::List(values) => f.debug_list().entries(values).finish(),
            plain => fmt::Display::fmt(plain, f),
        }
    }
}

/// Writes fields for people, one on a line.
pub(crate) fn display(f: &mut fmt::Formatter<'_>, fields: &[Field]) -> fmt::Result {
    write_fields(f, fields, 0)
}

/// Writes fields for developers: reserved ones and long arrays of bytes are left out.
pub(crate) fn debug(f: &mut fmt::Formatter<'_>, name: &str, fields: &[Field]) -> fmt::Result {
    let mut all = f.debug_struct(name);
    for field in fields {
        all.field(field.name, &field.value);
    }
    all.finish()
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[Field], depth: usize) -> fmt::Result {
    for (index, Field { name, value }) in fields.iter().enumerate() {
        if index > 0 {
            writeln!(f)?;
        }
        write!(f, "{}{}:", INDENT.repeat(depth), name.replace('_', " "))?;
        if value.is_plain() {
            write!(f, " {value}")?;
        } else {
            writeln!(f)?;
            write_value(f, value, depth + 1)?;
        }
    }
    Ok(())
}

/// Returns fields as one line; `None` if some need lines of their own, or all are flags.
fn brief(fields: &[Field]) -> Option<String> {
    let plain = fields.iter().all(|field| field.value.is_plain());
    let flags = fields.iter().all(|field| matches!(field.value, Value::Flag(_)));
    let all = fields.iter().map(|field| format!("{} {}", field.name.replace('_', " "), field.value));
    (plain && !flags).then(|| all.collect::<Vec<_>>().join(", "))
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &Value, depth: usize) -> fmt::Result {
    match value {
        Value::Fields(fields) => write_fields(f, fields, depth),
        Value::List(values) => {
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    writeln!(f)?;
                }
                let brief = match value {
                    Value::Fields(fields) if fields.len() <= BRIEF => brief(fields),
                    _ => None,
                };
                if let Some(brief) = brief {
                    write!(f, "{}{index}: {brief}", INDENT.repeat(depth))?;
                } else if value.is_plain() {
                    write!(f, "{}{index}: {value}", INDENT.repeat(depth))?;
                } else {
                    writeln!(f, "{}{index}:", INDENT.repeat(depth))?;
                    write_value(f, value, depth + 1)?;
                }
            }
            Ok(())
        }
        plain => write!(f, "{}{plain}", INDENT.repeat(depth)),
    }
}

/// Returns an ASCII field as text, safe to print: padding removed, anything but printable ASCII replaced by
/// U+FFFD.
pub(super) fn ascii(field: &[u8]) -> String {
    let printable = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => char::REPLACEMENT_CHARACTER,
    };
    let end = field.iter().rposition(|&byte| byte != b' ' && byte != 0).map_or(0, |last| last + 1);
    let start = field[..end].iter().position(|&byte| byte != b' ').unwrap_or(end);
    field[start..end].iter().map(printable).collect()
}

/// Returns a UTF-8 field that a zero ends as text, safe to print.
pub(super) fn utf8(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let name = String::from_utf8_lossy(&field[..end]);
    name.trim().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// An integer of any width, little endian if it is made of bytes.
pub(crate) trait Integer: Copy {
    fn wide(self) -> u128;
}

macro_rules! integers {
    ($($type:ty),*; $($little:ty),*) => {
        $( impl Integer for $type { fn wide(self) -> u128 { self.into() } } )*
        $( impl Integer for $little { fn wide(self) -> u128 { self.get().into() } } )*
    };
}
integers!(u8, u16, u32, u64, u128; U16, U32, U64, U128);

impl<const N: usize> Integer for [u8; N] {
    fn wide(self) -> u128 {
        self.iter().take(16).rev().fold(0, |all, &byte| all << 8 | u128::from(byte))
    }
}

/// A number whose values have names.
pub(crate) trait Code: Copy {
    fn code(self) -> (u64, Option<&'static str>);
}

/// Makers of values, by the names that the tables of structures use.
pub(crate) mod show {
    use super::{Code, Integer, Structure, Value, ascii};

    pub(crate) fn flag(on: &bool) -> Value {
        Value::Flag(*on)
    }

    pub(crate) fn number(number: &impl Integer) -> Value {
        Value::Number(number.wide())
    }

    pub(crate) fn zeros_based(number: &impl Integer) -> Value {
        Value::Number(number.wide() + 1)
    }

    pub(crate) fn unit(number: &impl Integer, unit: &'static str) -> Value {
        Value::Quantity(number.wide(), unit)
    }

    pub(crate) fn hex(number: &impl Integer) -> Value {
        Value::Text(format!("{:#x}", number.wide()))
    }

    pub(crate) fn named(value: &impl Code) -> Value {
        let (number, name) = value.code();
        Value::Named(number, name)
    }

    pub(crate) fn names(number: &impl Integer, names: &[(u64, &'static str)]) -> Value {
        let number = number.wide() as u64;
        Value::Named(number, names.iter().find(|name| name.0 == number).map(|name| name.1))
    }

    pub(crate) fn text(field: &[u8]) -> Value {
        Value::Text(ascii(field))
    }

    pub(crate) fn utf8(field: &[u8]) -> Value {
        Value::Text(super::utf8(field))
    }

    pub(crate) fn bytes(field: &[u8]) -> Value {
        Value::Bytes(field.to_vec())
    }

    pub(crate) fn fields(value: &impl Structure) -> Value {
        Value::Fields(value.fields())
    }

    pub(crate) fn each<T: Structure>(values: &[T]) -> Value {
        Value::List(values.iter().map(fields).collect())
    }

    pub(crate) fn numbers<T: Integer>(values: &[T]) -> Value {
        Value::List(values.iter().map(number).collect())
    }

    /// Shows the nonzero numbers.
    pub(crate) fn nonzero<T: Integer>(values: &[T], unit: &'static str) -> Value {
        let used = values.iter().filter(|value| value.wide() != 0);
        Value::List(used.map(|value| self::unit(value, unit)).collect())
    }
}
