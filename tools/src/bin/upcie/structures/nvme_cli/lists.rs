//! Lists: namespaces, their identifiers, controllers; and the log pages and features that are supported.

use super::{
    super::output::hex,
    controller::uuid,
    table::{json, number},
};
use serde_json::{Value as Json, json};
use upcie_nvme::spec::{NamespaceDescriptors, NamespaceIdType};

/// Bytes of a list that Identify returns.
const LIST: usize = 4096;
/// Bytes before the identifier in a descriptor.
const HEADER: usize = 4;
/// Bit 0 of an entry: what it is about is supported.
const SUPPORTED: u128 = 1;

pub fn namespaces(bytes: &[u8]) -> Option<Json> {
    let ids = bytes.get(..LIST)?.chunks_exact(4).filter_map(|id| number(id, 0, 4)).filter(|&id| id != 0);
    let list: Vec<Json> = ids.map(|id| json!({ "nsid": json(id) })).collect();
    Some(json!({ "nsid_list": list }))
}

pub fn controllers(bytes: &[u8]) -> Option<Json> {
    let count = number(bytes, 0, 2)?;
    let ids = bytes.get(2..LIST)?.chunks_exact(2).take(count as usize).filter_map(|id| number(id, 0, 2));
    let list: Vec<Json> = ids.map(|id| json!({ "ctrl_id": json(id) })).collect();
    Some(json!({ "num_ctrl": json(count), "ctrl_list": list }))
}

pub fn descriptors(bytes: &[u8]) -> Option<Json> {
    let (mut place, mut list) = (0, Vec::new());
    for descriptor in NamespaceDescriptors::new(bytes.get(..LIST)?) {
        let (nid, at) = (descriptor.nid, place);
        place += HEADER + nid.len();
        let (name, text) = match descriptor.nidt {
            NamespaceIdType::EUI64 => ("eui64", hex(nid)),
            NamespaceIdType::NGUID => ("nguid", hex(nid)),
            NamespaceIdType::UUID if nid.len() == 16 => ("uuid", uuid(nid)),
            // C's `%#x` prints no prefix for 0.
            NamespaceIdType::CSI if nid == [0] => ("csi", "0".into()),
            NamespaceIdType::CSI => ("csi", format!("{:#x}", nid[0])),
            _ => continue,
        };
        list.push(json!({
            "loc": at, "nidt": descriptor.nidt.0, "nidl": nid.len(), "Type": name, name: text,
        }));
    }
    Some(if list.is_empty() { json!({}) } else { json!({ "ns-descs": list }) })
}

pub fn log_pages(bytes: &[u8]) -> Option<Json> {
    Some(json!({ "supported_logs": supported(bytes, |id| format!("lid_{id:#x} "))? }))
}

pub fn features(bytes: &[u8]) -> Option<Json> {
    Some(json!({ "fid_support": supported(bytes, |id| format!("fid_{id}"))? }))
}

/// Returns an object for each of 256 entries of 4 bytes that is about something supported.
fn supported(bytes: &[u8], name: impl Fn(usize) -> String) -> Option<Vec<Json>> {
    let mut list = Vec::new();
    for id in 0..256 {
        let entry = number(bytes, 4 * id, 4)?;
        if entry & SUPPORTED != 0 {
            list.push(json!({ name(id): json(entry) }));
        }
    }
    Some(list)
}
