//! Identify data of key value namespaces.

use super::{super::identity::Identifiers, Keys};
use crate::spec::KeyValueNamespace;
use zerocopy::{FromZeros, IntoBytes};

/// Returns the Identify data of a namespace with these keys, which may be write protected. `format_progress` is FPI.
pub(in super::super) fn page(
    keys: &Keys,
    is_protected: bool,
    format_progress: u8,
    ids: &Identifiers,
) -> Vec<u8> {
    let mut id = KeyValueNamespace::new_zeroed();
    (id.size, id.utilization) = keys.bytes();
    id.attributes = is_protected.into();
    id.format_progress = format_progress;
    (id.nguid, id.eui64) = (ids.nguid, ids.eui64);
    id.formats[0] = keys.format();
    id.as_bytes().to_vec()
}
