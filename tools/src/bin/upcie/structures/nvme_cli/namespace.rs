//! Identify Namespace.

use super::{
    super::output::hex,
    table::{Number, add, number},
};
use serde_json::{Map, Value as Json, json};

const FIRST: &[Number] = &[
    ("nsze", 0, 8),
    ("ncap", 8, 8),
    ("nuse", 16, 8),
    ("nsfeat", 24, 1),
    ("nlbaf", 25, 1),
    ("flbas", 26, 1),
    ("mc", 27, 1),
    ("dpc", 28, 1),
    ("dps", 29, 1),
    ("nmic", 30, 1),
    ("rescap", 31, 1),
    ("fpi", 32, 1),
    ("dlfeat", 33, 1),
    ("nawun", 34, 2),
    ("nawupf", 36, 2),
    ("nacwu", 38, 2),
    ("nabsn", 40, 2),
    ("nabo", 42, 2),
    ("nabspf", 44, 2),
    ("noiob", 46, 2),
    ("nvmcap", 48, 16),
];

/// Shown if a bit of NSFEAT says that the namespace states them.
const PREFERRED: &[Number] = &[("npwg", 64, 2), ("npwa", 66, 2)];
const DEALLOCATION: &[Number] = &[("npdg", 68, 2)];
const ALIGNMENT: &[Number] = &[("npda", 70, 2), ("nows", 72, 2)];

const LAST: &[Number] = &[
    ("mssrl", 74, 2),
    ("mcl", 76, 4),
    ("msrc", 80, 1),
    ("kpios", 81, 1),
    ("nulbaf", 82, 1),
    ("kpiodaag", 84, 4),
    ("anagrpid", 92, 4),
    ("nsattr", 99, 1),
    ("nvmsetid", 100, 2),
    ("endgid", 102, 2),
];

/// NSFEAT: OPTPERF, and its second bit of NVM command set 1.1.
const OPTPERF: u8 = 0x30;
const OPTPERF_FIRST: u8 = 0x10;

pub fn json(bytes: &[u8]) -> Option<Json> {
    let mut object = Map::new();
    add(&mut object, bytes, FIRST)?;
    let features = *bytes.get(24)?;
    if features & OPTPERF != 0 {
        add(&mut object, bytes, PREFERRED)?;
        if features & OPTPERF_FIRST != 0 {
            add(&mut object, bytes, DEALLOCATION)?;
        }
        add(&mut object, bytes, ALIGNMENT)?;
    }
    add(&mut object, bytes, LAST)?;
    object.insert("nguid".into(), hex(bytes.get(104..120)?).into());
    object.insert("eui64".into(), hex(bytes.get(120..128)?).into());
    let formats = bytes.get(128..384)?.chunks(4).take(usize::from(bytes[25]) + 1);
    let formats = formats.map(|format| {
        Some(json!({ "ms": number(format, 0, 2)? as u16, "ds": format[2], "rp": format[3] & 3 }))
    });
    object.insert("lbafs".into(), formats.collect::<Option<Vec<_>>>()?.into());
    object.insert("vs".into(), printable(bytes.get(384..)?).into());
    Some(object.into())
}

/// Returns the vendor's bytes before the first 0 as lines of 16 characters.
fn printable(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let shown = |&byte: &u8| if byte.is_ascii_graphic() { char::from(byte) } else { '.' };
    bytes[..end].chunks(16).map(|line| line.iter().map(shown).collect()).collect()
}
