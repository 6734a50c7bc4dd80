//! Log pages of flexible data placement.

use super::table::{Number, add, json, number};
use serde_json::{Map, Value as Json, json};

/// Bytes of a configuration before its reclaim unit handles, and of a handle.
const CONFIGURATION: usize = 64;
const HANDLE: usize = 4;
const CONFIGURATION_NUMBERS: &[Number] = &[
    ("fdpa", 2, 1),
    ("vss", 3, 1),
    ("nrg", 4, 4),
    ("nruh", 8, 2),
    ("nnss", 12, 4),
    ("runs", 16, 8),
    ("erutl", 24, 4),
];

pub fn configurations(bytes: &[u8]) -> Option<Json> {
    let last = number(bytes, 0, 2)?;
    let (mut rest, mut list) = (bytes.get(16..)?, Vec::new());
    for _ in 0..=last {
        let (len, handles) = (number(rest, 0, 2)? as usize, number(rest, 8, 2)? as usize);
        let (one, after) = rest.split_at_checked(len)?;
        let mut configuration = Map::new();
        add(&mut configuration, one, CONFIGURATION_NUMBERS)?;
        let types = one.get(CONFIGURATION..)?.chunks_exact(HANDLE).take(handles);
        let types: Vec<Json> = types.map(|handle| json!({ "ruht": handle[0] })).collect();
        configuration.insert("ruhs".into(), types.into());
        list.push(Json::from(configuration));
        rest = after;
    }
    Some(json!({ "n": json(last), "configs": list }))
}

pub fn usage(bytes: &[u8]) -> Option<Json> {
    let count = number(bytes, 0, 2)?;
    let handles = bytes.get(8..)?.chunks_exact(8).take(count as usize);
    let list: Vec<Json> = handles.map(|handle| json!({ "ruha": handle[0] })).collect();
    Some(json!({ "nruh": json(count), "ruhus": list }))
}

const STATISTICS: &[Number] = &[("hbmw", 0, 16), ("mbmw", 16, 16), ("mbe", 32, 16)];

pub fn statistics(bytes: &[u8]) -> Option<Json> {
    let mut object = Map::new();
    add(&mut object, bytes, STATISTICS)?;
    Some(object.into())
}

/// Bytes of an event, and before the events.
const EVENT: usize = 64;
const EVENT_NUMBERS: &[Number] =
    &[("type", 0, 1), ("fdpef", 1, 1), ("pid", 2, 2), ("timestamp", 4, 8), ("nsid", 12, 4)];
/// The type of the event that media was moved, and the fields of such an event.
const MOVED: u8 = 0x80;
const MOVED_BLOCKS: &[Number] = &[("nlbam", 18, 2)];
const MOVED_FROM: &[Number] = &[("lba", 20, 8)];

pub fn events(bytes: &[u8]) -> Option<Json> {
    let count = number(bytes, 0, 4)?;
    let mut list = Vec::new();
    for event in bytes.get(EVENT..)?.chunks_exact(EVENT).take(count as usize) {
        let mut object = Map::new();
        add(&mut object, event, EVENT_NUMBERS)?;
        if event[0] == MOVED {
            add(&mut object, event, MOVED_BLOCKS)?;
            // Bit 0 of the flags: the block is valid.
            if event[16] & 1 == 1 {
                add(&mut object, event, MOVED_FROM)?;
            }
        }
        list.push(Json::from(object));
    }
    Some(json!({ "n": json(count), "events": list }))
}
